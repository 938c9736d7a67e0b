"""The workflows that make films with full-size models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import families, texts
from .families import HUNYUAN_VIDEO, WAN5, WAN14, Family, Loaded
from .graph import Node, Workflow

BLUE, GREEN, BROWN = "#3f789e", "#4f7f5f", "#8a6d3b"


@dataclass(frozen=True)
class Encoders:
    """Which memory a film has: a new one, a second rate beside it, or the trained one of that name instead.

    lora: name of the one that belongs to a trained encoder, by default the same.
    """

    second_rate: str = ""
    trained: str = ""
    lora: str | None = None


UNTRAINED = Encoders()


class FilmParts:
    """The nodes that every film has, added to a workflow."""

    def __init__(
        self,
        workflow: Workflow,
        family: Family,
        loaded: Loaded,
        story: Sequence[str] | str,
        encoders: Encoders = UNTRAINED,
    ) -> None:
        assert loaded.clip is not None
        self.workflow, self.family, self.loaded = workflow, family, loaded
        add = workflow.add
        self.trained: Node | None = None
        if encoders.trained:
            self.trained = add(
                "VideoMemoryEncoderLoader",
                "Load your memory encoder and LoRA",
                size=(400, 170),
                model=loaded.unet[0],
                encoder_name=f"{encoders.trained}.safetensors",
                lora_name=f"{encoders.trained}.safetensors" if encoders.lora is None else encoders.lora,
            )
        model = self.trained or loaded.unet
        self.shift = add("ModelSamplingSD3", "Shift of the noise schedule", model=model[0], shift=family.shift)
        self.shift_low: Node | None = None
        if loaded.low_noise is not None:
            self.shift_low = add("ModelSamplingSD3", "Shift, low noise", model=loaded.low_noise[0], shift=family.shift)
        self.encoders = [] if self.trained else self._untrained(encoders.second_rate)
        self.encoder = self.trained[1] if self.trained else self.encoders[-1][0]
        text = story if isinstance(story, str) else texts.storyboard(tuple(story), family.section_seconds)
        self.storyboard = add(
            "VideoMemoryStoryboard",
            "Storyboard",
            clip=loaded.clip[0],
            storyboard=text,
            fps=family.fps,
            section_seconds=family.section_seconds,
        )
        self.negative = add("CLIPTextEncode", "Negative prompt", clip=loaded.clip[0], text=families.NEGATIVE)
        self.sampler = add("KSamplerSelect", "Sampler", sampler_name=family.sampler)
        self.sigmas = add(
            "BasicScheduler", "Sigmas", model=self.shift[0], scheduler="simple", steps=family.steps, denoise=1.0
        )

    def _untrained(self, second_rate: str) -> list[Node]:
        """One new encoder, or two and the node that joins them."""
        add, model = self.workflow.add, self.shift[0]
        first = add("VideoMemoryEncoderNew", "New Memory Encoder (untrained)", model=model)
        if not second_rate:
            return [first]
        second = add("VideoMemoryEncoderNew", f"A second one at {second_rate}", model=model, rate=second_rate)
        both = add("VideoMemoryEncoderCombine", "Both", memory_encoder=first[0], second_encoder=second[0])
        return [first, second, both]

    def film(self, name: str, **optional: Any) -> Node:
        """The sampler; `optional` are its optional inputs."""
        if self.shift_low is not None:
            optional["model_low_noise"] = self.shift_low[0]
        return self.workflow.add(
            "VideoMemorySampler",
            "Autoregressive Sampler",
            model=self.shift[0],
            memory_encoder=self.encoder,
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

    def save(self, film: Node, name: str, **optional: Any) -> Node:
        """The film as a file, decoded piece by piece, so that a long one fits into RAM."""
        return self.workflow.add(
            "VideoMemorySaveFilm",
            "Save Film",
            vae=self.loaded.vae[0],
            latent=film[0],
            filename_prefix=f"video/{name}",
            **optional,
        )

    def models_column(self) -> list[Node]:
        after = (self.trained, self.shift, self.shift_low)
        return [*self.loaded.nodes(), *(node for node in after if node is not None)]


def story_film(
    workflow: Workflow, title: str, parts: FilmParts, about_text: str, writers: Sequence[Node] = (), **settings: Any
) -> Workflow:
    """A film from a storyboard alone, which `writers` may make; `settings` are those of the sampler."""
    name = workflow.name
    film = parts.film(name, **settings)
    saved = parts.save(film, name)
    report = workflow.add("PreviewAny", "What was made and reused", source=film[2])
    memory = workflow.add("VideoMemorySave", "Save the memory, to go on later", memory=film[1], filename_prefix=name)
    first = texts.TRAINED_FIRST if parts.trained else texts.UNTRAINED_FIRST
    intro = workflow.note(title, "\n\n".join((first, texts.HOW_FILM, texts.SEED, about_text)))
    about = workflow.note("About the memory", texts.TRAINED if parts.trained else texts.UNTRAINED)
    workflow.group("Read me", [intro, about], color=BROWN)
    workflow.group("1  Models", parts.models_column())
    workflow.group("2  Memory and sampling", [*parts.encoders, parts.sampler, parts.sigmas])
    written = [list(writers)] if writers else []
    workflow.group("3  Story", *written, [parts.storyboard, parts.negative])
    workflow.group("4  Film", [film, memory], color=GREEN)
    workflow.group("5  Result", [report, saved], color=GREEN)
    return workflow


def wan_5b() -> Workflow:
    workflow = Workflow("wan22_5b_film", "Wan 2.2 5B", "Four shots from a storyboard, 1280 x 704, 24 fps")
    size = """1280x704 at 24 fps in sections of 5 seconds, beside 20 seconds of history in 3,600 memory tokens: about
3.8 GiB with streamed weights, 8.4 GiB with all weights on the card. It fits an RTX 4070 with 12 GB. For 8 GB set width
and height to 832x480."""
    parts = FilmParts(workflow, WAN5, families.load_wan5(workflow), texts.STORY)
    return story_film(workflow, "A film with Wan 2.2 5B", parts, texts.sizes(size))


def wan_14b() -> Workflow:
    workflow = Workflow("wan22_14b_film", "Wan 2.2 14B", "High and low noise expert, fp8 or GGUF, 832 x 480")
    size = """832x480 at 16 fps in sections of 5 seconds, beside 20 seconds of history in 4,160 memory tokens: about
4.7 GiB on a 12 GB card, with the weights streamed from system RAM (32 GB or more for the two experts in fp8)."""
    gguf = """

**GGUF.** Replace the two expert loaders by *Unet Loader (GGUF)* of the pack ComfyUI-GGUF. Nothing else changes."""
    parts = FilmParts(workflow, WAN14, families.load_wan14(workflow), texts.STORY)
    return story_film(workflow, "A film with Wan 2.2 14B", parts, texts.sizes(size) + gguf)


def hunyuan() -> Workflow:
    workflow = Workflow("hunyuan_film", "HunyuanVideo", "Four shots from a storyboard, 832 x 480, 24 fps")
    size = """832x480 at 24 fps in sections of 3 seconds, beside 20 seconds of history in 6,240 memory tokens: about
4.3 GiB on a 12 GB card, with the weights streamed from system RAM."""
    parts = FilmParts(workflow, HUNYUAN_VIDEO, families.load_hunyuan(workflow), texts.STORY)
    return story_film(workflow, "A film with HunyuanVideo", parts, texts.sizes(size))


def two_memories() -> Workflow:
    workflow = Workflow("two_memories", "Two memories", "4x4x2 and 2x2x8 side by side, Wan 2.2 5B", "two")
    size = """The model sees the tokens of both memories: 4x4x2 is coarse in space and fine in time, 2x2x8 the other way
round. 1280x704 at 24 fps in sections of 5 seconds."""
    parts = FilmParts(workflow, WAN5, families.load_wan5(workflow), texts.STORY, Encoders(second_rate="2x2x8"))
    return story_film(workflow, "A film with two memories", parts, texts.sizes(size))


def guided() -> Workflow:
    """History guidance and the sliding window."""
    line = "Shots that go on, and a weight of its own on the memory"
    workflow = Workflow("guided_film", "Guided film", line, "guided")
    story = texts.storyboard(texts.GUIDED, WAN5.section_seconds, going_on=(1, 3))
    how = """
**Sliding window.** In **Storyboard**, shots 2 and 4 are set to *Go on*: the camera keeps running. Such a section sees
the last 3 latents (12 frames) uncompressed beside the memory (`sliding_window` of the sampler), so that movement and
light go on. Shots 1 and 3 begin with a *Cut* and see the memory alone.

**History guidance.** `history_guidance` 1.5 gives the memory a weight of its own in the guidance. 0 is off, 1 costs
nothing, other values take one more pass in every step, about half as long again. It makes returning characters
clearer where the memory has been trained; with an untrained one try 0 or 1 first.
"""
    size = """As *Wan 2.2 5B*: about 4.0 GiB with streamed weights, 8.6 GiB with all weights on the card; the window
adds 2,640 tokens to a step."""
    parts = FilmParts(workflow, WAN5, families.load_wan5(workflow), story)
    title = "Going on, and guidance by the memory"
    return story_film(workflow, title, parts, how + "\n" + texts.sizes(size), history_guidance=1.5, sliding_window=3)


def cached_cross() -> Workflow:
    """A trained encoder with cached memory attention and cross-attention."""
    line = "Two other ways from the memory into the model"
    workflow = Workflow("cached_cross_film", "Cached and cross-attention", line, "cached")
    how = """
**Cached memory** (`memory_attention` *cached* in **New Memory Encoder**). What the memory gives each block is computed
once a section and used in all its steps: faster, and a little worse in the paper.

**Cross-attention** (`cross_attention` there). A second path from the encoder into every block, for what the tokens
leave out. It adds nothing until it is trained.

Each works without the other. Here nothing is to be set: **Load Memory Encoder** reads from the file what the encoder
was trained for, and `attention_mode` *auto* of the sampler follows it.
"""
    size = """As *Wan 2.2 5B*, and 2.5 GiB for keys and values: about 3.5 GiB with weights and cache in system RAM,
10.5 GiB with all on the card. It fits an RTX 4070 with 12 GB."""
    parts = FilmParts(workflow, WAN5, families.load_wan5(workflow), texts.STORY, Encoders(trained="my_film_memory"))
    return story_film(workflow, "Cached memory and cross-attention", parts, how + "\n" + texts.sizes(size))


ALL = (wan_5b, wan_14b, hunyuan, two_memories, guided, cached_cross)
