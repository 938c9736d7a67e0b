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

ABOUT = """
**About the memory.** Each shot is made with up to 8 whole pictures of the film in front of it, which StoryMem's LoRAs
have taught the model to look at: people and places come back. After each shot up to three of its pictures are chosen,
sharp ones that differ; the first three and the newest stay. In the strip of the sampler they can be pinned and banned,
or in `pictures`: **2:40, -3:16**.

**Once.** Get StoryMem's MI2V pair of LoRAs and convert it, since core does not know its names and its scale:
`python -m memory_encoder convert Wan2.2-MI2V-A14B --name storymem_mi2v --out converted`. Put the two LoRAs into
**models/loras** and the memory encoder (a small file) into **models/memory_encoders**.

**Licence.** StoryMem's weights are under the S-Lab License 1.0: **not for commercial use**. Nothing of them comes with
this pack.
"""
SIZE = """832x480 at 16 fps in sections of 5 seconds, with 8 pictures: Memory Budget says about 9.3 GiB with weights
streamed from system RAM. 40 steps with both prompts: on a 12 GB card a section takes its time.

**GGUF.** Replace the two expert loaders by *Unet Loader (GGUF)* of the pack ComfyUI-GGUF, with Q4 files of Wan 2.2 I2V
14B (about 9 GB each): less system RAM is needed. Nothing else changes."""
PROMPTS = """A shot begins with a *Cut*, or goes on (*Go on*) from the last frame of the one before. Say in every shot
again how people and places look: that is how StoryMem was trained."""


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
    intro = workflow.note(title, f"{how}\n{PROMPTS}\n\n{texts.sizes(SIZE)}")
    about = workflow.note("About the memory", ABOUT)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", [*lows, *parts.models_column()])
    workflow.group("2  Pictures and sampling", [*pictures, parts.budget, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, memory], color=GREEN)
    workflow.group("5  Result", [saved, report], color=GREEN)
    return workflow


def film() -> Workflow:
    """A film whose first frame is given."""
    line = "People and places come back: whole pictures as memory"
    workflow = Workflow("storymem_film", "StoryMem", line, "memory")
    picture = workflow.add("LoadImage", "First frame", image="start.png")
    how = """
1. Convert StoryMem's LoRAs once, see below.
2. Choose the picture that the film begins with. It is cropped to the film's size.
3. Write the shots in **Storyboard** and run. Sections are kept, reused, locked and made again as in every film.

Instead of a picture the film may begin with a clip of Wan 2.2 **T2V** 14B: make the first shot with *wan22_14b_film* in
the same size and connect its LATENT to `history`.
"""
    return _film(workflow, "A film with StoryMem", how, texts.FROM_PICTURE, [picture], start_image=picture[0])


def references() -> Workflow:
    """A film whose people and places are given."""
    line = "Faces and places are given, the film knows them"
    workflow = Workflow("storymem_references", "StoryMem with references", line, "image")
    first = workflow.add("LoadImage", "A face", image="start.png")
    second = workflow.add("LoadImage", "A place, or another face", image="start.png")
    batch = workflow.add("ImageBatch", "Both as references", image1=first[0], image2=second[0])
    how = """
1. Convert StoryMem's LoRAs once, see below.
2. Choose pictures of people, places or costumes. They are cropped to the film's size; further ones go in with further
*Batch Images* nodes. All of them stay in the memory, so give few: 2 to 4 of 8.
3. Write the shots in **Storyboard** and run. The first shot already knows the pictures, and begins with none of them.
"""
    return _film(
        workflow, "A film from references", how, texts.FROM_PICTURE, [first, second, batch], references=batch[0]
    )


ALL = (film, references)
