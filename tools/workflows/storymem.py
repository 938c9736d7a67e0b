"""Films with a memory of whole pictures: StoryMem on Wan 2.2 I2V 14B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import families, texts
from .families import STORYMEM, Loaded
from .films import BROWN, GREEN, Encoders, FilmParts
from .graph import Node, Workflow

CONVERTED = "storymem_mi2v"  # the name that the note gives to `convert`
ENCODERS = Encoders(trained=f"{CONVERTED}_memory_encoder", lora=f"{CONVERTED}_high_noise_lora.safetensors")

FIRST = """
**Know this first.** StoryMem's LoRAs have taught the model to look at up to 8 whole pictures of the film so far: people
and places come back. Its weights are under the S-Lab License 1.0: **not for commercial use**. Nothing of them comes
with this pack.
"""
ABOUT = """
**Convert once.** Get StoryMem's MI2V pair of LoRAs and convert it, since core does not know its names and its scale:

`python -m memory_encoder convert Wan2.2-MI2V-A14B --name storymem_mi2v --out converted`

Put the two LoRAs into **models/loras** and the memory encoder (a small file) into **models/memory_encoders**.

**The pictures.** After each shot up to three of its pictures are chosen, sharp ones that differ; the first three and
the newest stay. *Pictures* in the strip of the sampler pins and bans them, or its input `pictures`: **2:40, -3:16**.
"""
SIZE = """832x480 at 16 fps in sections of 5 seconds, with 8 pictures: about 5.4 GiB with weights streamed from system
RAM. 40 steps with both prompts: on a 12 GB card a section takes its time."""
GGUF = """**GGUF.** Replace the two expert loaders by *Unet Loader (GGUF)* of the pack ComfyUI-GGUF, with Q4 files of
Wan 2.2 I2V 14B (about 9 GB each): less system RAM is needed. Nothing else changes."""
CUTS = "A shot begins with a *Cut*, or goes on (*Go on*) from the last frame of the one before."
KEPT = "Sections are kept, reused, locked and made again as in every film."


def _load(workflow: Workflow) -> tuple[Loaded, list[Node]]:
    """Both experts with their LoRAs; the high-noise one's comes with the memory encoder."""
    high = families.load_unet(workflow, families.WAN_14B_I2V_HIGH, "High-noise expert, I2V (or a GGUF loader)")
    low = families.load_unet(workflow, families.WAN_14B_I2V_LOW, "Low-noise expert, I2V (or a GGUF loader)")
    lora = workflow.add(
        "LoraLoaderModelOnly",
        "StoryMem, low noise",
        size=(400, 110),
        model=low[0],
        lora_name=f"{CONVERTED}_low_noise_lora.safetensors",
        strength_model=1.0,
    )
    loaded = Loaded(high, families.load_umt5(workflow), families.load_vae(workflow, families.WAN_14B_VAE), lora)
    return loaded, [low]


def _film(
    workflow: Workflow, title: str, how: str, story: Sequence[str], pictures: Sequence[Node], **beginning: Any
) -> Workflow:
    """`pictures`: the nodes of what the film begins with; `beginning`: inputs of the sampler that they go to."""
    loaded, lows = _load(workflow)
    parts = FilmParts(workflow, STORYMEM, loaded, story, ENCODERS)
    parts.storyboard.inputs["memory_encoder"] = parts.encoder  # every section is a clip: the editor counts so
    film = parts.film(workflow.name, boundary=0.9, **beginning)
    saved = parts.save(film, workflow.name)
    title_of_memory = "Save the memory, to go on later"
    memory = workflow.add("VideoMemorySave", title_of_memory, memory=film[1], filename_prefix=workflow.name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    intro = workflow.note(title, "\n\n".join((FIRST, how, CUTS, KEPT, texts.sizes(SIZE), GGUF)))
    about = workflow.note("About the memory", ABOUT)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", [*lows, *parts.models_column()])
    workflow.group("2  Pictures and sampling", [*pictures, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, memory], color=GREEN)
    workflow.group("5  Result", [report, saved], color=GREEN)
    return workflow


def film() -> Workflow:
    """A film whose first frame is given."""
    line = "People and places come back: whole pictures as memory"
    workflow = Workflow("storymem_film", "StoryMem", line, "memory")
    picture = workflow.add("VideoMemoryDemoClip", "First frame: put your picture here")
    how = f"""
{texts.PICTURE.strip()}
{texts.WRITE.strip()}
3. Press **Run**.

Instead of a picture the film may begin with a clip of Wan 2.2 **T2V** 14B: make the first shot with *Wan 2.2 14B* in
the same size and connect its LATENT to `history`.
"""
    return _film(workflow, "A film with StoryMem", how, texts.FROM_PICTURE, [picture], start_image=picture[2])


def references() -> Workflow:
    """A film whose people and places are given."""
    line = "Faces and places are given, the film knows them"
    workflow = Workflow("storymem_references", "StoryMem with references", line, "image")
    first = workflow.add("VideoMemoryDemoClip", "A face: put your picture here")
    second = workflow.add("VideoMemoryDemoClip", "A place, or another face", who="Mira")
    batch = workflow.add("ImageBatch", "Both as references", image1=first[2], image2=second[2])
    how = f"""
1. **Demo Clip** holds the place of your pictures of people, places or costumes. Drop a picture on the canvas, which
makes a *Load Image*, and connect it instead; more go in with further *Batch Images*. Give 2 to 4: all stay in the
memory.
{texts.WRITE.strip()}
3. Press **Run**. The first shot already knows the pictures, and begins with none of them.
"""
    return _film(
        workflow, "A film from references", how, texts.FROM_PICTURE, [first, second, batch], references=batch[0]
    )


ALL = (film, references)
