"""The stories and notes of the workflows."""

from __future__ import annotations

from memory_encoder.storyboard import Shot, Storyboard

MIRA = "Mira, a young woman with short red hair and a yellow raincoat"
TOM = "Tom, an old lighthouse keeper with a white beard and a blue cap"
KITCHEN = "a small kitchen with green tiles and a copper kettle"

STORY = (
    f"{MIRA}, lights the stove in {KITCHEN}, morning light from the left, the camera is still",
    f"{MIRA}, runs along a rainy pier towards a lighthouse, the camera follows her from behind",
    f"{TOM}, opens the red door of the lighthouse and waves, close shot, wind in his beard",
    f"{MIRA}, and {TOM}, drink tea in {KITCHEN}, rain on the window, the camera moves slowly closer",
)
CONTINUATION = (
    "the camera moves on and shows the rest of the place, the same light, the same people",
    "a close shot of the person seen at the beginning, the same clothes",
)
FROM_PICTURE = (
    "the person in the picture turns to the window and smiles, the same light, the camera is still",
    "the same person walks through a busy street in the evening, the same clothes, lights in the shop windows",
    "the same person sits in the first room again and looks at the camera, the same clothes, the same light",
)
ENDING = (
    f"{MIRA}, and {TOM}, stand on the gallery of the lighthouse at night, the light turns above them, wide shot",
    f"{MIRA}, waves from a small boat, {TOM}, waves back from the pier, dawn, the camera rises slowly",
)


WALK = (
    "the person in the picture slowly turns to the window and smiles, soft light, the camera is still",
    "the person walks to the window and opens it, wind moves the curtain, the camera follows",
    "the person leans out of the window and waves, laughing, the camera moves slowly closer",
)
# Each place is seen in two shots, of which the second goes on from the first.
GUIDED = (
    f"{MIRA}, lights the stove in {KITCHEN}, morning light from the left, the camera is still",
    f"{MIRA}, carries the kettle through {KITCHEN} to the window, morning light, the camera turns slowly with her",
    f"{MIRA}, runs along a rainy pier towards a lighthouse, the camera follows her from behind",
    f"{MIRA}, stops at the end of the pier and looks up at the lighthouse, rain, the camera moves around her",
)


def storyboard(prompts: tuple[str, ...], seconds: float, going_on: tuple[int, ...] = ()) -> str:
    """The canonical text of shots of equal length; those of `going_on` (counted from 0) begin without a cut."""
    shots = (
        Shot(prompt, i * seconds, (i + 1) * seconds, transition="continue" if i in going_on else "cut")
        for i, prompt in enumerate(prompts)
    )
    return Storyboard(tuple(shots)).to_json()


# What decides a person's evening stands first in the first note.
UNTRAINED_FIRST = """
**Know this first.** There is no trained memory for this model to download. The film is made section by section and
kept on disk, but people and places will **not** look the same when they come back.
"""

UNTRAINED_ALONE = """
**Know this first.** There is no trained memory for this model to download: people and places will **not** look the same
when they come back.
"""

UNTRAINED = """
**New Memory Encoder** makes an untrained memory: it hands the model a small copy of the film so far, which the model
has never learned to read.

For a memory that is trained, open *StoryMem* or *FramePack-F1*; to see one at work in minutes, *First film*.

To train your own, use *Pretrain* and *Finetune*, then put **Load Memory Encoder** here: its **model** goes to the shift
node and its **memory_encoder** to the places that **New Memory Encoder** feeds.
"""

TRAINED_FIRST = """
**Know this first.** `my_film_memory` is a memory that you train yourself: the templates *Pretrain* and *Finetune* leave
it behind. There is none for this model to download.
"""

TRAINED = """
For a memory of this kind set `memory_attention` and `cross_attention` of **New Memory Encoder** in *Pretrain*.

On the command line stage 2 can still add them: `--memory-attention cached --cross-attention`.
"""

FRAMEPACK_FIRST = """
**Know this first.** FramePack-F1 is trained to go on from what it has made: it sees the last 2.5 seconds and the first
frame. It is **no** memory of the whole film: who was away for longer looks as in the first frame, or new.
"""

FRAMEPACK = """
**Convert it once.** Download FramePack-F1 (lllyasviel/FramePack_F1_I2V_HY_20250503), then

`python -m memory_encoder convert FOLDER --out converted --name framepack_f1`

and put `framepack_f1_model` into models/diffusion_models, `framepack_f1_memory_encoder` into models/memory_encoders.

**Licence.** Its weights derive from HunyuanVideo: Tencent Hunyuan Community License, which excludes the European Union,
the United Kingdom and South Korea.

The history is 19 latents, coarser with age. How the model reads it comes from the encoder's file: 9 latents a section,
no window, guidance 10, no weight of its own. What it was not trained for is refused.
"""

WRITE = """
2. Write the shots in **Storyboard**. Say in every shot how people and places look, or once in its *Cast and look*.
"""

HOW_FILM = f"""
1. ComfyUI offers the model files that are missing when the workflow opens.
{WRITE.strip()}
3. Press **Run**. Each section is on disk before the next one starts, in `output/video_memory`.
4. Change a shot and run again: what comes before it is kept.
"""

ESTIMATE = "These sizes are estimates: the plan in **Storyboard** makes them anew for your settings."
SEED = "Keep the seed on *fixed*: another seed is another film."

PICTURE = """
1. **Demo Clip** holds the place of your picture. Drop a picture on the canvas, which makes a *Load Image*, and connect
it in its place. It is cropped to the film's size.
"""


def sizes(lines: str) -> str:
    """What the plan takes, as `python -m memory_encoder budget` estimates it."""
    return f"**Size.** {lines.strip()}\n\n{ESTIMATE}"
