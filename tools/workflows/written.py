"""A film whose storyboard a language model writes, with core's own text generation."""

from __future__ import annotations

from . import families, texts
from .families import QWEN35_4B, WAN5
from .films import FilmParts, story_film
from .graph import Workflow

HOW = """
**Your idea.** Say in **Storyboard Prompt** what happens, who appears, how many shots there are and how long the film
is. **Generate Text** writes the shots, **Storyboard** shows them after the first run.

Who looks how goes from *characters* to **Storyboard** too, so that it stands in every prompt that names them, whatever
the model answers. Do not like the shots? Change the idea, or disconnect *storyboard* and go on writing by hand.

The language model is Qwen 3.5 4B (9 GB); any that *Generate Text* runs will do. It writes before the film is made and
is out of the way then. *sampling_mode* off writes the same for the same idea; with *on* keep the seed fixed.
"""
SIZE = """1280x704 at 24 fps in sections of 5 seconds: see *Wan 2.2 5B*."""


def written() -> Workflow:
    line = "Your idea, written as shots by Generate Text"
    workflow = Workflow("written_film", "Written by a language model", line, "film")
    add = workflow.add
    loaded = families.load_wan5(workflow)
    parts = FilmParts(workflow, WAN5, loaded, "")
    prompt = add("VideoMemoryStoryboardPrompt", "Your idea", shots=4, seconds=20.0)
    model = add(
        "CLIPLoader", "Language model", models=[QWEN35_4B], size=(400, 140), clip_name=QWEN35_4B.name,
        type="stable_diffusion", device="default",
    )  # fmt: skip
    text = add(
        "TextGenerate", "Writes the shots", clip=model[0], prompt=prompt[0], max_length=4096, sampling_mode="off"
    )
    parts.storyboard.inputs |= {"storyboard": text[0], "characters": prompt[1]}
    about = f"{HOW.strip()}\n\n{texts.sizes(SIZE)}"
    return story_film(workflow, "From an idea to a film", parts, about, [prompt, model, text])


ALL = (written,)
