"""The storyboard node, text in, shots with their conditioning out; and what a language model writes such a text by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..memory_encoder.frames import TEMPORAL
from ..memory_encoder.storyboard import (
    CastLine,
    KeyframeUnit,
    Lattice,
    Section,
    Shot,
    Storyboard,
    StoryboardError,
    describe_schedule,
    merged,
    plan_sections,
    read_characters,
    read_storyboard,
    storyboard_prompt,
)
from .runtime.managed import ManagedEncoder
from .shot_pictures import load_pictures, stamps_of
from .sockets import CATEGORY, StoryboardSocket, encoder_input, fps_input

EXAMPLE = Storyboard(
    (
        Shot("Mira, a girl with red hair, waves in the kitchen", 0, 5),
        Shot("a street in the rain", 5, 10),
        Shot("Mira in the kitchen", 10, 15),
    )
).to_json()


@dataclass(frozen=True)
class EncodedStoryboard:
    """What travels through a STORYBOARD socket: shots, lengths, one conditioning per prompt, and pictures by name."""

    storyboard: Storyboard
    fps: float
    section_seconds: float
    total_seconds: float | None
    conditioning: dict[str, Any]
    negative: Any = None
    pictures: dict[str, Tensor] = field(default_factory=dict)

    def plan(self, lattice: Lattice, history_latents: int = 0, **history: Any) -> tuple[Section, ...]:
        """Sections of the film after `history_latents` latents; `history` says more of them, see `plan_sections`."""
        return plan_sections(
            self.storyboard,
            fps=self.fps,
            section_seconds=self.section_seconds,
            lattice=lattice,
            total_seconds=self.total_seconds,
            history_latents=history_latents,
            **history,
        )


class VideoMemoryStoryboard(io.ComfyNode):
    """Parses a storyboard, plans its sections and encodes its prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryStoryboard",
            display_name="Storyboard",
            category=CATEGORY,
            description="Shots with times and prompts, as JSON, [0s: text] lists, keyframes, tables or subtitles.",
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoder of the model."),
                io.String.Input("storyboard", multiline=True, default=EXAMPLE, tooltip="The shots."),
                fps_input(),
                io.Float.Input(
                    "section_seconds",
                    default=5.0,
                    min=0.25,
                    max=600.0,
                    step=0.05,
                    tooltip="Longest piece made at once; longer shots become several sections.",
                ),
                io.Float.Input(
                    "total_seconds",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.1,
                    optional=True,
                    tooltip="Length of the film; 0 takes it from the shots.",
                ),
                io.Combo.Input(
                    "keyframe_unit",
                    options=list(get_args(KeyframeUnit)),
                    default="seconds",
                    optional=True,
                    tooltip='What keys without a unit are in "0": "text", "16": "text".',
                ),
                encoder_input(
                    optional=True,
                    tooltip="The sampler's encoder, where it says how long sections are; for frames and schedule.",
                ),
                io.String.Input(
                    "characters",
                    optional=True,
                    force_input=True,
                    tooltip='Who looks how, "Mira: a girl with red hair", a line each, or as JSON; put into every '
                    "prompt that names them.",
                ),
            ],
            outputs=[
                StoryboardSocket.Output(display_name="storyboard", tooltip="For the Autoregressive Sampler."),
                io.Int.Output(display_name="frames", tooltip="Frames of the film when nothing precedes it."),
                io.String.Output(display_name="schedule", tooltip="Which prompt each section uses."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, storyboard: Any = "", **_: Any) -> str:
        """Changes when a picture that the storyboard names does, in whatever form; times do not matter to that."""
        try:
            found = stamps_of(read_storyboard(storyboard, section_seconds=5.0, fps=16.0).storyboard)
            return str(found) if found else ""
        except (StoryboardError, OSError, TypeError, AttributeError):  # linked, or one that the run will refuse
            return ""

    @classmethod
    def execute(
        cls,
        clip,
        storyboard: str,
        fps: float,
        section_seconds: float,
        total_seconds: float = 0.0,
        keyframe_unit: KeyframeUnit = "seconds",
        memory_encoder: ManagedEncoder | None = None,
        characters: str = "",
    ) -> io.NodeOutput:
        reading = read_storyboard(
            storyboard,
            section_seconds=section_seconds,
            fps=fps,
            total_seconds=total_seconds or None,
            keyframe_unit=keyframe_unit,
        )
        parsed = reading.storyboard
        parsed = replace(parsed, cast=merged(parsed.cast, sheets_of(characters)))
        encoded = EncodedStoryboard(
            storyboard=parsed,
            fps=fps,
            section_seconds=section_seconds,
            total_seconds=total_seconds or None,
            conditioning={},
            negative=_encode(clip, parsed.negative) if parsed.negative else None,
            pictures=load_pictures(parsed),
        )
        parts = () if memory_encoder is None else memory_encoder.parts
        sections = encoded.plan(Lattice.of([part.config for part in parts], TEMPORAL))
        for prompt in dict.fromkeys(shot.prompt for shot in parsed.expanded().shots):
            encoded.conditioning[prompt] = _encode(clip, prompt)
        schedule = f"{describe_schedule(sections, fps)}\n{reading.note}"
        # The editor learns from a run what a text was that another node made.
        shown = {"text": [schedule], "storyboard": [parsed.to_json()], "read_as": [reading.to_dict()]}
        return io.NodeOutput(encoded, sum(section.frames for section in sections), schedule, ui=shown)


class VideoMemoryStoryboardPrompt(io.ComfyNode):
    """The instruction that makes a language model write a storyboard, with a person's idea."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMemoryStoryboardPrompt",
            display_name="Storyboard Prompt",
            category=CATEGORY,
            description="What to tell a language model so that it writes a storyboard: for Generate Text, whose answer "
            "goes into Storyboard.",
            inputs=[
                io.String.Input(
                    "idea",
                    multiline=True,
                    default="Mira visits the old lighthouse keeper Tom on a rainy day and drinks tea with him.",
                    tooltip="What happens in the film, in your own words.",
                ),
                io.String.Input(
                    "characters",
                    multiline=True,
                    default="Mira: a young woman with short red hair and a yellow raincoat\n"
                    "Tom: an old man with a white beard and a blue cap",
                    tooltip='Who looks how, "Mira: a girl with red hair", a line each; words without a name are the '
                    "look of the whole film. Connect the output of the same name to Storyboard.",
                ),
                io.Int.Input("shots", default=6, min=0, max=1000, tooltip="How many; 0 leaves it to the model."),
                io.Float.Input(
                    "seconds",
                    default=30.0,
                    min=0.0,
                    max=86400.0,
                    step=0.5,
                    tooltip="Length of the film; 0 leaves it to the model.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="For Generate Text, or any language model."),
                io.String.Output(
                    display_name="characters",
                    tooltip="For Storyboard, so that they look as you wrote whatever the model answers.",
                ),
            ],
        )

    @classmethod
    def execute(cls, idea: str, characters: str = "", shots: int = 0, seconds: float = 0.0) -> io.NodeOutput:
        return io.NodeOutput(storyboard_prompt(idea, sheets_of(characters), shots, seconds), characters)


def sheets_of(characters: str) -> tuple[CastLine, ...]:
    """The lines of an input `characters`. Raises StoryboardError that names it."""
    try:
        return read_characters(characters)
    except StoryboardError as error:
        raise StoryboardError(f"characters: {error}") from error


def _encode(clip: Any, prompt: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


NODES = [VideoMemoryStoryboard, VideoMemoryStoryboardPrompt]
