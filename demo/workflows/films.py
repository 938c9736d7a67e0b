"""The workflows that make films with full-size models."""

from __future__ import annotations

from typing import Any

from . import families, texts
from .families import HUNYUAN_VIDEO, WAN5, WAN14, Family, Loaded
from .graph import Node, Workflow

BLUE, GREEN, BROWN = "#3f789e", "#4f7f5f", "#8a6d3b"


class FilmParts:
    """The nodes that every film has, added to a workflow."""

    def __init__(
        self, workflow: Workflow, family: Family, loaded: Loaded, prompts: tuple[str, ...], second_rate: str = ""
    ) -> None:
        assert loaded.clip is not None
        self.workflow, self.family, self.loaded = workflow, family, loaded
        add = workflow.add
        self.shift = add("ModelSamplingSD3", "Shift of the noise schedule", model=loaded.unet[0], shift=family.shift)
        self.shift_low: Node | None = None
        if loaded.low_noise is not None:
            self.shift_low = add("ModelSamplingSD3", "Shift, low noise", model=loaded.low_noise[0], shift=family.shift)
        self.encoders = [add("VideoMemoryEncoderNew", "New Memory Encoder (untrained)", model=self.shift[0])]
        if second_rate:
            self.encoders.append(
                add("VideoMemoryEncoderNew", f"A second one at {second_rate}", model=self.shift[0], rate=second_rate)
            )
            first, second = self.encoders
            self.encoders.append(
                add("VideoMemoryEncoderCombine", "Both", memory_encoder=first[0], second_encoder=second[0])
            )
        self.encoder = self.encoders[-1]
        self.budget = add(
            "VideoMemoryBudget",
            "Memory Budget",
            memory_encoder=self.encoder[0],
            width=family.width,
            height=family.height,
            fps=family.fps,
            history_seconds=20.0,
            section_seconds=family.section_seconds,
            card_gib=12.0,
            bytes_per_weight=family.bytes_per_weight,
        )
        self.storyboard = add(
            "VideoMemoryStoryboard",
            "Storyboard",
            clip=loaded.clip[0],
            storyboard=texts.storyboard(prompts, family.section_seconds),
            fps=family.fps,
            section_seconds=family.section_seconds,
        )
        self.negative = add("CLIPTextEncode", "Negative prompt", clip=loaded.clip[0], text=families.NEGATIVE)
        self.sampler = add("KSamplerSelect", "Sampler", sampler_name=family.sampler)
        self.sigmas = add(
            "BasicScheduler", "Sigmas", model=self.shift[0], scheduler="simple", steps=family.steps, denoise=1.0
        )

    def film(self, name: str, **optional: Any) -> Node:
        """The sampler; `optional` are its optional inputs."""
        if self.shift_low is not None:
            optional["model_low_noise"] = self.shift_low[0]
        return self.workflow.add(
            "VideoMemorySampler",
            "Autoregressive Sampler",
            model=self.shift[0],
            memory_encoder=self.encoder[0],
            vae=self.loaded.vae[0],
            storyboard=self.storyboard[0],
            negative=self.negative[0],
            sampler=self.sampler[0],
            sigmas=self.sigmas[0],
            cfg=self.family.cfg,
            seed=7,
            width=self.family.width,
            height=self.family.height,
            film=name,
            **optional,
        )

    def save(self, film: Node, name: str) -> Node:
        """The film as a file, decoded piece by piece, so that a long one fits into RAM."""
        return self.workflow.add(
            "VideoMemorySaveFilm",
            "Save Film",
            vae=self.loaded.vae[0],
            latent=film[0],
            filename_prefix=f"video/{name}",
        )

    def models_column(self) -> list[Node]:
        shifts = [self.shift] if self.shift_low is None else [self.shift, self.shift_low]
        return [*self.loaded.nodes(), *shifts]


def _film(workflow: Workflow, title: str, family: Family, loaded: Loaded, size: str, second_rate: str = "") -> Workflow:
    """A film from a storyboard alone."""
    name = workflow.name
    parts = FilmParts(workflow, family, loaded, texts.STORY, second_rate)
    film = parts.film(name)
    saved = parts.save(film, name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    memory = workflow.add("VideoMemorySave", "Save the memory, to go on later", memory=film[1], filename_prefix=name)
    intro = workflow.note(title, texts.HOW_FILM.format(film=name) + "\n" + texts.sizes(size))
    about = workflow.note("About the memory", texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  Memory and sampling", [*parts.encoders, parts.budget, parts.sampler, parts.sigmas])
    workflow.group("3  Story", [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, memory], color=GREEN)
    workflow.group("5  Result", [saved, report], color=GREEN)
    return workflow


def wan_5b() -> Workflow:
    workflow = Workflow("wan22_5b_film", "Wan 2.2 5B", "Four shots from a storyboard, 1280 x 704, 24 fps")
    size = """1280x704 at 24 fps in sections of 5 seconds, beside 20 seconds of history in 3,600 memory tokens: about
4.4 GiB with streamed weights, 9.1 GiB with all weights on the card. It fits an RTX 4070 with 12 GB. For 8 GB set width
and height to 832x480."""
    loaded = families.load_wan5(workflow)
    return _film(workflow, "A film with Wan 2.2 5B", WAN5, loaded, size)


def wan_14b() -> Workflow:
    workflow = Workflow("wan22_14b_film", "Wan 2.2 14B", "High and low noise expert, fp8 or GGUF, 832 x 480")
    size = """832x480 at 16 fps in sections of 5 seconds, beside 20 seconds of history in 4,160 memory tokens: about
7.6 GiB on a 12 GB card, with the weights streamed from system RAM (32 GB or more for the two experts in fp8).

**GGUF.** Replace the two expert loaders by *Unet Loader (GGUF)* of the pack ComfyUI-GGUF and set `bytes_per_weight` of
the budget to 0.6 for Q4. Nothing else changes."""
    loaded = families.load_wan14(workflow)
    return _film(workflow, "A film with Wan 2.2 14B", WAN14, loaded, size)


def hunyuan() -> Workflow:
    workflow = Workflow("hunyuan_film", "HunyuanVideo", "Four shots from a storyboard, 832 x 480, 24 fps")
    size = """832x480 at 24 fps in sections of 3 seconds, beside 20 seconds of history in 6,240 memory tokens: about
6.0 GiB on a 12 GB card, with the weights streamed from system RAM."""
    loaded = families.load_hunyuan(workflow)
    return _film(workflow, "A film with HunyuanVideo", HUNYUAN_VIDEO, loaded, size)


def two_memories() -> Workflow:
    workflow = Workflow("two_memories", "Two memories", "4x4x2 and 2x2x8 side by side, Wan 2.2 5B", "two")
    size = """The model sees the tokens of both memories: 4x4x2 is coarse in space and fine in time, 2x2x8 the other way
round. 1280x704 at 24 fps in sections of 5 seconds: **Memory Budget** says what both take together."""
    loaded = families.load_wan5(workflow)
    return _film(workflow, "A film with two memories", WAN5, loaded, size, second_rate="2x2x8")


ALL = (wan_5b, wan_14b, hunyuan, two_memories)
