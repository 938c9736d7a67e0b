"""What the tiny family does: a first film for all, and the demo, a film of six shots and what its memory remembers.
Node numbers of the demo are fixed: it names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memory_encoder.storyboard import Shot, Storyboard
from memory_encoder.training.arguments import GUIDANCE

from . import texts
from .films import BROWN, GREEN
from .graph import Node, Workflow

SIZE: dict[str, Any] = {"width": 128, "height": 96}
# Shots of a second each: films stay near the five seconds that the family's memory was trained on. At this size only
# close-ups have a face.
SHOTS = (
    "Max talks in the garden, close-up",
    "Max waves on the street",
    "Max waves in the kitchen, close-up",
    "Max talks in the bedroom with a yellow bed, close-up",
)
FIRST_SHOTS = (
    "Mira, a girl with long red hair and a green striped shirt, waves in the kitchen, close-up",
    "Mira talks in the garden, close-up",
    "Leo, a man with short black hair and a blue shirt, waves on the street, close-up",
    "Mira waves in the kitchen, close-up",
)
FIRST_NOTE = """
Press **Run**. In a few minutes the film is in *Save Film*, on any computer, without a graphics card.

The models are tiny and draw cartoons. Only the first shot says how Mira looks; the memory carries it into the others.

- Change a shot in **Storyboard** and run again: what comes before it is kept.
- Click a section in **Autoregressive Sampler**, then *Redo*: another take of it alone.

For real pictures open another template, such as *02 Wan 2.2 5B*: everything but the models stays the same.
"""
JUDGED_NOTE = """
Press **Run**. The film is the one of *First film* and is not made twice; **Film Report** measures its shots and names
those that fall out. The sampler's strip marks them then, and offers *Redo*.

Faces, clothes, texts and looks are measured with models that you have: the report says which are missing and where
they belong. Connect **Load CLIP Vision** for clothes and objects.

For a film of your own write its name in *film* and connect its VAE. Any video will do: Load Video's images and a
**Storyboard** that says where each shot begins.
"""
NOTE = """
Press **Run**: a whole film and what its memory holds, in minutes, without a graphics card and without a download. The
pictures are cartoons of 128x96 pixels.

Two drawn shots introduce Max, the model makes the four after them; their prompts give his name and nothing of his
looks. On the right the film's memory is asked for the opening, and the memory of another clip for that one.

`make demo` in the pack's folder runs this workflow by itself, with a real clip in the place of the second one.
"""


def _recall(
    workflow: Workflow,
    ids: tuple[int, int, int, int],
    model: Node,
    memory: list[object],
    rest: dict[str, Node],
    original: list[object],
    titles: tuple[str, str],
) -> list[Node]:
    """Ask a memory for frames 0 to 32 and lay them beside the originals."""
    add = workflow.add
    asked, decoded, compared, saved = ids
    retrieved = add(
        "VideoMemoryRetrieve", titles[0], id=asked, size=(360, 220), model=model[0], memory=memory,
        frame_indices="0-32", sampler=rest["sampler"][0], sigmas=rest["sigmas"][0], seed=11,
        positive=rest["negative"][0], history_guidance=GUIDANCE,
    )  # fmt: skip
    frames = add("VAEDecode", "Remembered frames", id=decoded, samples=retrieved[0], vae=rest["models"][2])
    report = add(
        "VideoMemoryRetrievalReport", "Original and remembered", id=compared, original=original, retrieved=frames[0]
    )
    picture = add(
        "SaveImage", "Save the comparison", id=saved, images=report[0], filename_prefix=f"tiny_demo/{titles[1]}"
    )
    return [retrieved, frames, report, picture]


class TinyFilm:
    """The nodes of a film of the tiny family, added to a workflow; shots of a second."""

    def __init__(self, workflow: Workflow, shots: Sequence[str]) -> None:
        self.add = add = workflow.add
        self.models = models = add("VideoMemoryDemoModels", "Demo models, part of the pack")
        self.shift = add("ModelSamplingSD3", "Shift of the noise schedule", model=models[0], shift=3.0)
        self.storyboard = add(
            "VideoMemoryStoryboard", "Storyboard", clip=models[3], storyboard=texts.storyboard(tuple(shots), 1),
            fps=16.0, section_seconds=1.0,
        )  # fmt: skip
        self.negative = add("CLIPTextEncode", "Negative prompt", size=(420, 90), clip=models[3], text="")
        self.sampler = add("KSamplerSelect", "Sampler", sampler_name="euler")
        self.sigmas = add("BasicScheduler", "Sigmas", model=self.shift[0], scheduler="simple", steps=12, denoise=1.0)

    def column(self) -> list[Node]:
        return [self.models, self.shift, self.sampler, self.sigmas, self.negative]

    def film(self, name: str, **optional: Any) -> Node:
        return self.add(
            "VideoMemorySampler", "Autoregressive Sampler", model=self.shift[0], memory_encoder=self.models[1],
            vae=self.models[2], storyboard=self.storyboard[0], negative=self.negative[0], sampler=self.sampler[0],
            sigmas=self.sigmas[0], cfg=4.0, seed=7, **SIZE, film=name, history_guidance=0.4, sliding_window=0,
            **optional,
        )  # fmt: skip

    def save(self, film: Node, name: str) -> Node:
        return self.add(
            "VideoMemorySaveFilm", "Save Film", vae=self.models[2], latent=film[0], filename_prefix=f"video/{name}"
        )


def first_film() -> Workflow:
    """The first five minutes: nothing to download, nothing to choose."""
    workflow = Workflow(
        "first_film", "First film", "Start here: a film with a memory in minutes, nothing to download", "first"
    )
    parts = TinyFilm(workflow, FIRST_SHOTS)
    film = parts.film(workflow.name)
    saved = parts.save(film, workflow.name)
    memory = workflow.add(
        "VideoMemorySave", "Save the memory, to go on later", memory=film[1], filename_prefix=workflow.name
    )
    intro = workflow.note("Your first film", FIRST_NOTE)
    workflow.group("Start here", [intro, *parts.column()], color=BROWN)
    workflow.group("1  Write", [parts.storyboard])
    workflow.group("2  Make", [film], color=GREEN)
    workflow.group("3  Watch", [memory, saved], color=GREEN)
    return workflow


def judged_film() -> Workflow:
    """The first film once more, with its report."""
    workflow = Workflow("judged_film", "Judge a film", "Which shot to make again, in numbers and words", "first")
    parts = TinyFilm(workflow, FIRST_SHOTS)
    film = parts.film("first_film")
    report = workflow.add(
        "VideoMemoryFilmReport", "Film Report", size=(480, 760), film="first_film", latent=film[0],
        vae=parts.models[2], storyboard=parts.storyboard[0],
    )  # fmt: skip
    intro = workflow.note("Judge a film", JUDGED_NOTE)
    workflow.group("Start here", [intro, *parts.column()], color=BROWN)
    workflow.group("1  Write", [parts.storyboard])
    workflow.group("2  Make", [film], color=GREEN)
    workflow.group("3  Judge", [report], color=GREEN)
    return workflow


def tiny_demo() -> Workflow:
    workflow = Workflow("tiny_demo", "Tiny demo", "A film with memory on the CPU, in minutes")
    add = workflow.add
    models = add("VideoMemoryDemoModels", "Demo models, part of the pack", id=1)
    shift = add("ModelSamplingSD3", "Shift of the noise schedule", id=2, model=models[0], shift=3.0)
    video = add("VideoMemoryDemoClip", "Opening of the film", id=6)
    parts = add("GetVideoComponents", "Its frames", id=7, video=video[0])
    scaled = add("ImageScale", "Film size", id=8, image=parts[0], upscale_method="area", **SIZE, crop="center")
    opening = add("VAEEncode", "Opening as latents", id=9, pixels=scaled[0], vae=models[2])
    # The first prompt leads elsewhere than the opening, so that its cut is said.
    story = Storyboard(tuple(Shot(prompt, i, i + 1, stated=True) for i, prompt in enumerate(SHOTS)))
    storyboard = add(
        "VideoMemoryStoryboard", "Storyboard", id=10, clip=models[3], storyboard=story.to_json(), fps=16.0,
        section_seconds=1.0,
    )  # fmt: skip
    negative = add("CLIPTextEncode", "Negative prompt", id=11, clip=models[3], text="")
    sampler = add("KSamplerSelect", "Sampler", id=12, sampler_name="euler")
    sigmas = add("BasicScheduler", "Sigmas", id=13, model=shift[0], scheduler="simple", steps=12, denoise=1.0)
    film = add(
        "VideoMemorySampler", "Autoregressive Sampler", id=14, model=shift[0], memory_encoder=models[1], vae=models[2],
        storyboard=storyboard[0], negative=negative[0], sampler=sampler[0], sigmas=sigmas[0], cfg=2.5, seed=7, **SIZE,
        film="tiny_demo", history=opening[0], history_guidance=1.0, sliding_window=0,
    )  # fmt: skip
    frames = add("VAEDecode", "Decode the film once", id=15, samples=film[0], vae=models[2])
    made = add("CreateVideo", "Film", id=16, images=frames[0], fps=16.0)
    saved = add("SaveVideo", "Save the film", id=17, video=made[0], filename_prefix="tiny_demo/film")
    rest = {"sampler": sampler, "sigmas": sigmas, "negative": negative, "models": models}
    recalled = _recall(
        workflow, (19, 20, 21, 22), shift, film[1], rest, scaled[0],
        ("Ask the film's memory for the opening", "retrieval"),
    )  # fmt: skip
    memory = add("VideoMemorySave", "Save the film's memory", id=23, memory=film[1], filename_prefix="tiny_demo")
    report = add("PreviewAny", "Report", id=25, source=film[2])
    numbers = add("PreviewAny", "Retrieval in numbers", id=26, source=recalled[2][1])
    real = add("VideoMemoryDemoClip", "Another clip", id=32, who="Mira")
    real_parts = add("GetVideoComponents", "Its frames", id=33, video=real[0])
    real_scaled = add(
        "ImageScale", "Film size", id=40, image=real_parts[0], upscale_method="area", **SIZE, crop="center"
    )
    real_latents = add("VAEEncode", "As latents", id=34, pixels=real_scaled[0], vae=models[2])
    real_memory = add(
        "VideoMemoryCompress", "Into memory", id=35, memory_encoder=models[1], model=shift[0], vae=models[2],
        latent=real_latents[0],
    )  # fmt: skip
    real_recalled = _recall(
        workflow, (36, 37, 38, 39), shift, real_memory[0], rest, real_scaled[0],
        ("Ask for its frames", "real_clip"),
    )  # fmt: skip
    intro = workflow.note("The tiny demo", NOTE)
    workflow.group("Read me", [intro], color=BROWN)
    workflow.group("1  Models", [models, shift])
    workflow.group("2  Opening", [video, parts, scaled, opening, sampler, sigmas])
    workflow.group("3  Story", [storyboard, negative])
    workflow.group("4  Film", [film, memory], [frames, made, report, saved], color=GREEN)
    workflow.group("5  What the film's memory remembers", [*recalled, numbers], color=GREEN)
    workflow.group(
        "6  Another clip, remembered", [real, real_parts, real_scaled, real_latents, real_memory],
        real_recalled,
    )  # fmt: skip
    return workflow


FIRST, ALL = first_film, (tiny_demo,)
