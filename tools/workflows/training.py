"""The workflows that train a memory and look at what it remembers. Node numbers are fixed: tests name them."""

from __future__ import annotations

from typing import Any

from memory_encoder.training.arguments import GUIDANCE
from memory_encoder.training.options import Stage
from memory_encoder.training.presets import preset_named

from . import families
from .films import BROWN, GREEN
from .graph import Node, Workflow

PRESET = "12gb-5b"
SIZE: dict[str, Any] = {"width": 832, "height": 480}
PRETRAIN_FIRST = """
**Know this first.** Nobody has trained a memory of this size with the pack yet. By our estimates the two stages take
thousands of clips and at least two days on an RTX 4090. To see a trained memory at work in minutes, open *First film*.

"""
FINETUNE_FIRST = """
**Know this first.** `my_memory` is what *Pretrain* leaves behind; there is none to download. By our estimates this
stage takes at least a day and a half on an RTX 4090.

"""
CHECK_FIRST = """
**Know this first.** `my_memory` is what *Pretrain* leaves behind; there is none to download.

"""
CLIPS = """
1. Put videos into `input/training_clips`, each with its caption in a `.txt` of the same name. Some hundred clips of
   25 seconds or more are a beginning; every tenth is kept for testing.
2. Run. The clips are encoded once, into `output/video_memory_datasets/my_clips`.
"""
RUN = """
A run can be cancelled and goes on from its last checkpoint when the workflow is queued again. It leaves the encoder in
`output/memory_encoders` and the LoRA in `output/loras`, where the loaders find them (press R).
"""
HARDWARE = """
**Hardware.** Before the first step the node prints what it trains and an estimate of the memory that takes; it cuts a
batch that does not fit card and system RAM into smaller steps, and makes sections as long as the card has room for. The
values are those of the preset *12gb-5b*; lower `width` and `height` for a smaller card, or choose another `preset`.
Speed and memory of full-size runs have not been measured; what a run costs by our estimates is in `docs/training.md`.
With a `preset` its values count, whatever stands beside them; choose *none* to change them one by one, such as `rank`.
"""


def _trainer(
    workflow: Workflow, encoder: Node, output: int, loaded: families.Loaded, stage: Stage, **settings: Any
) -> None:
    """Dataset, training and what they show, as nodes 5 to 8."""
    add = workflow.add
    assert loaded.clip is not None
    dataset = add(
        "VideoMemoryDataset", "Encode the clips once", id=5, vae=loaded.vae[0], model=loaded.unet[0],
        folder="training_clips", name="my_clips", rates="4x4x2", **SIZE, fps=24.0, window_seconds=25.0,
        stride_seconds=0.0, heldout="0.1", on_bad="skip", scene_cuts=False, clip=loaded.clip[0],
    )  # fmt: skip
    report = add("PreviewAny", "What was encoded and what was left out", id=6, source=dataset[1])
    recipe = preset_named(PRESET).options(stage) | {"mixed_precision": "auto", "preset": PRESET}
    train = add(
        "VideoMemoryTrain", f"Train: {stage}", id=7, model=loaded.unet[0], memory_encoder=encoder[output],
        dataset=dataset[0], stage=stage, seed=0, vae=loaded.vae[0], **recipe, **settings,
    )  # fmt: skip
    plot = add("PreviewImage", "Loss", id=8, images=train[3])
    workflow.group("Read me", workflow.notes, color=BROWN)
    workflow.group("1  Models", [*loaded.nodes(), encoder])
    workflow.group("2  Clips", [dataset, report])
    workflow.group("3  Training", [train], [plot], color=GREEN)


def pretrain() -> Workflow:
    """Stage I of the paper."""
    workflow = Workflow("pretrain", "Pretrain", "Teach a memory to keep frames (stage 1)", "pretrain")
    loaded = families.load_wan5(workflow)
    encoder = workflow.add(
        "VideoMemoryEncoderNew", "New memory encoder", model=loaded.unet[0], rate="4x4x2", variant="proposed"
    )
    workflow.note(
        "Stage 1: retrieval",
        PRETRAIN_FIRST
        + "The encoder learns to keep frames, and a LoRA teaches the model to read them: it draws any frame of a clip "
        "from the memory alone.\n" + CLIPS + RUN + "\nThen go on with *Finetune*.",
    )
    workflow.note("Hardware", HARDWARE)
    _trainer(workflow, encoder, 0, loaded, "retrieval", run="my_memory")
    return workflow


def finetune() -> Workflow:
    """Stage II of the paper."""
    workflow = Workflow("finetune", "Finetune", "Teach the model to go on from a memory (stage 2)", "finetune")
    loaded = families.load_wan5(workflow)
    encoder = workflow.add(
        "VideoMemoryEncoderLoader", "Load the pretrained encoder", size=(400, 170), model=loaded.unet[0],
        encoder_name="my_memory.safetensors", lora_name="none", lora_strength=1.0,
    )  # fmt: skip
    workflow.note(
        "Stage 2: continuation",
        FINETUNE_FIRST
        + "The model learns to make the next section of a film from its memory. It begins with the encoder of stage 1."
        "\n\n`retrieval_share` lets some steps go on with stage 1, so that the LoRA does both.\n" + CLIPS + RUN,
    )
    workflow.note("Hardware", HARDWARE)
    _trainer(workflow, encoder, 1, loaded, "continuation", run="my_film_memory")
    return workflow


def retrieval_check() -> Workflow:
    """What a memory remembers of a clip, beside what comes without it."""
    workflow = Workflow(
        "retrieval_check", "Retrieval check", "What does your memory remember? In pictures and dB", "check"
    )
    add = workflow.add
    loaded = families.load_wan5(workflow, with_text=False)
    encoder = add(
        "VideoMemoryEncoderLoader", "Load encoder and LoRA", id=3, size=(400, 170), model=loaded.unet[0],
        encoder_name="my_memory.safetensors", lora_name="my_memory.safetensors", lora_strength=1.0,
    )  # fmt: skip
    shift = add("ModelSamplingSD3", "Shift of the noise schedule", id=4, model=encoder[0], shift=families.WAN5.shift)
    video = add("VideoMemoryDemoClip", "Put a clip here that was not trained on", id=5)
    parts = add("GetVideoComponents", "Its frames", id=6, video=video[0])
    first = add("ImageFromBatch", "The first 33", id=7, image=parts[0], batch_index=0, length=33)
    scaled = add("ImageScale", "Size", id=8, image=first[0], upscale_method="area", **SIZE, crop="center")
    latents = add("VAEEncode", "As latents", id=9, pixels=scaled[0], vae=loaded.vae[0])
    memory = add(
        "VideoMemoryCompress", "Into memory", id=10, memory_encoder=encoder[1], model=shift[0], vae=loaded.vae[0],
        latent=latents[0],
    )  # fmt: skip
    sampler = add("KSamplerSelect", "Sampler", id=11, sampler_name="euler")
    sigmas = add("BasicScheduler", "Sigmas", id=12, model=shift[0], scheduler="simple", steps=20, denoise=1.0)
    columns: list[list[Node]] = []
    for start, strength, what, prefix in (
        (13, 1.0, "with memory", "with_memory"),
        (17, 0.0, "without memory", "without_memory"),
    ):
        retrieved = add(
            "VideoMemoryRetrieve", f"Every frame, {what}", id=start, size=(360, 220), model=shift[0], memory=memory[0],
            frame_indices="0-32", sampler=sampler[0], sigmas=sigmas[0], seed=0, strength=strength,
            history_guidance=GUIDANCE if strength else 0.0,
        )  # fmt: skip
        frames = add("VAEDecode", f"Frames {what}", id=start + 1, samples=retrieved[0], vae=loaded.vae[0])
        report = add(
            "VideoMemoryRetrievalReport",
            f"Compare, {what}",
            id=start + 2,
            original=scaled[0],
            retrieved=frames[0],
            memory=memory[0],
        )
        saved = add(
            "SaveImage", f"Original and {what}", id=start + 3, images=report[0], filename_prefix=f"evaluate/{prefix}"
        )
        columns.append([retrieved, frames, report, saved])
    for column, number, what in ((columns[0], 21, "With memory"), (columns[1], 22, "Without memory")):
        column.append(add("PreviewAny", f"{what}, in numbers", id=number, source=column[2][1]))
    workflow.note(
        "What does the memory remember?",
        CHECK_FIRST
        + """The clip is compressed into a memory, and the model draws every frame of it again from the memory alone.
The same once more without memory, which shows what the model would guess.

1. Choose encoder and LoRA: what *Pretrain* left.
2. **Demo Clip** holds the place of your clip. Drop a video on the canvas, which makes a *Load Video*, and connect it in
its place: one that was not trained on.
3. Press **Run**, and compare the two sheets, and the numbers with those of the flat colour and the thumbnails in the
same report: *without memory* is a made-up picture, and to be better than that alone proves little.
""",
    )
    workflow.group("Read me", workflow.notes, color=BROWN)
    workflow.group("1  Models", [*loaded.nodes(), encoder, shift, sampler, sigmas])
    workflow.group("2  The clip", [video, parts, first, scaled, latents, memory])
    workflow.group("3  With memory", columns[0], color=GREEN)
    workflow.group("4  Without memory", columns[1], color="#8a4b4b")
    return workflow


ALL = (retrieval_check, pretrain, finetune)
