"""Films with memories that others have trained."""

from __future__ import annotations

from . import families, texts
from .families import FRAMEPACK
from .films import BROWN, GREEN, Encoders, FilmParts
from .graph import Workflow


def framepack() -> Workflow:
    """A long single shot from a picture with FramePack-F1."""
    line = "One long shot from a picture, with a trained history"
    workflow = Workflow("framepack_film", "FramePack-F1", line, "image")
    loaded = families.load_hunyuan(workflow, "framepack_f1_model")
    story = texts.storyboard(texts.WALK, 3 * FRAMEPACK.section_seconds, going_on=(1, 2))
    encoders = Encoders(trained="framepack_f1_memory_encoder", lora="none")
    parts = FilmParts(workflow, FRAMEPACK, loaded, story, encoders)
    picture = workflow.add("VideoMemoryDemoClip", "First frame: put your picture here")
    vision = workflow.add(
        "CLIPVisionLoader", "What shows it the picture", models=[families.SIGLIP_FILE],
        clip_name=families.SIGLIP_FILE.name,
    )  # fmt: skip
    film = parts.film(workflow.name, start_image=picture[2], clip_vision=vision[0])
    saved = parts.save(film, workflow.name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    how = f"""
{texts.PICTURE.strip()}
2. Write in **Storyboard** what happens. A shot is made in sections of 36 frames (1.2 s); a new prompt may begin with
any section. *Cut* and *Go on* are the same here: the model was trained to go on, and has never seen a cut.
3. Press **Run**. Sections are kept, reused, locked and made again as in every film.
"""
    size = """832x480 at 30 fps in sections of 1.2 seconds, beside 3,926 tokens of history and 729 of the picture:
about 3.0 GiB with weights streamed from system RAM. 25 steps without a negative prompt's pass."""
    intro = workflow.note("A film with FramePack-F1", "\n\n".join((texts.FRAMEPACK_FIRST, how, texts.sizes(size))))
    about = workflow.note("About the memory", texts.FRAMEPACK)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", [*parts.models_column(), vision])
    workflow.group("2  Picture, memory and sampling", [picture, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film], color=GREEN)
    workflow.group("5  Result", [report, saved], color=GREEN)
    return workflow


ALL = (framepack,)
