"""Compression rate and encoder configuration, to and from safetensors metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

SCHEMA_VERSION = 1
FORMAT = "video_memory_encoder"

MOST_PICTURES = 64  # latents in front of a section that has 21
RECENT_LATENTS = 8  # uncompressed latents kept for the sliding window and as context of the next decode
DEFAULT_WINDOW = 3  # of them, for the nodes that apply a memory
Variant = Literal["proposed", "only_lr", "without_lr", "large_patchifier", "recent", "keyframes"]
Positions = Literal["physical", "index", "pooled"]
AttentionScope = Literal["frame", "causal", "full"]
Padding = Literal["ceil", "floor"]
HostAttention = Literal["joint", "cached"]
Clips = Literal["film", "section"]
REPEATED_FRAMES = (0, 1, 5)  # they fill whole latents of every host there is, and every section shows as many
Fill = Literal["repeat", "zeros"]
Start = Literal["nothing", "picture", "zeros"]
HistoryTimestep = Literal["zero", "same"]
# A file may say anything: what is far beyond every model there is builds nothing.
_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
_TYPE_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_LEAST: dict[str, int] = dict.fromkeys(("width", "latent_channels", "channels", "heads", "head_dim", "patch"), 1)
_MOST = {
    "width": 65536, "latent_channels": 4096, "channels": 16384, "heads": 1024, "head_dim": 16384, "patch": 64,
    "cross_blocks": 512,
}  # fmt: skip
_MOST_NUMBER, _MOST_ENTRIES, _MOST_CHARACTERS, _MOST_RECENT = 1_000_000, 16, 400, 10_000


def _is_power_of_two(value: int) -> bool:
    return value >= 1 and value & (value - 1) == 0


@dataclass(frozen=True)
class CompressionRate:
    """Compression on top of the token grid, in the paper's order height x width x time (section 4.1)."""

    height: int
    width: int
    time: int

    def __post_init__(self) -> None:
        if not all(_is_power_of_two(n) for n in (self.height, self.width, self.time)):
            raise ValueError(f"rate {self}: each number must be a power of two, such as 4x4x2 (height x width x time)")

    @classmethod
    def parse(cls, text: str) -> CompressionRate:
        """Reads "4x4x2"; raises ValueError that shows the expected form."""
        match = re.fullmatch(r"\s*(\d{1,4})x(\d{1,4})x(\d{1,4})\s*", text)
        if match is None:
            raise ValueError(f"rate {text[:80]!r} is not of the form HEIGHTxWIDTHxTIME; write for example 4x4x2")
        return cls(*(int(n) for n in match.groups()))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.time}"


@dataclass(frozen=True)
class Piece:
    """The next older `latents` latent frames of a history, at one rate."""

    latents: int
    rate: CompressionRate


def parse_schedule(text: str) -> tuple[Piece, ...]:
    """Reads "1@1x1x1+2@2x2x2+16@4x4x4" (FramePack's schedule, newest first) or "3@1x1x1", a sliding window.

    Raises ValueError that shows the expected form.
    """
    pieces = []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(\d{1,5})@(.+)", part)
        if match is None:
            raise ValueError(
                f"rate {text[:80]!r} is no list of LATENTS@RATE, newest first; write such as 1@1x1x1+2@2x2x2+16@4x4x4"
            )
        latents, rate = int(match[1]), CompressionRate.parse(match[2])
        if latents < 1 or latents % rate.time:
            raise ValueError(
                f"rate {text[:80]!r}: {latents} latents are no multiple of {rate.time}, the last number of {rate}"
            )
        pieces.append(Piece(latents, rate))
    return tuple(pieces)


@dataclass(frozen=True)
class EncoderConfig:
    """Everything needed to rebuild a memory encoder.

    The channel pattern and the rates are the paper's (section 4.1); kernel size 3, one attention layer with 8
    heads, `frame` attention and `ceil` padding are not from the paper, which leaves them open.

    variant `recent` is the baseline without a memory of everything: only the last latents, coarser with age, by the
        schedule in `rate` (see `parse_schedule`). positions: `physical` midpoints, or as an ablation `index`, the
        cells' numbers.
    memory_attention: how the host was trained to read the memory: `joint`, memory and video attend to each other, or
        `cached`, the memory attends to itself and the text alone. cross_blocks: blocks of the host that have a
        cross-attention branch to phi's hidden states (paper section 4.5), 0 for none, with heads of head_dim.
    clips: whether the sections of a film are pieces of one clip (`film`), or each a clip of its own that begins with a
        latent of a single frame (`section`), joined in pixels. section_latents: length of every section that the host
        was trained for, in latents; 0 for any. repeated_frames: frames at the beginning of a clip that goes on, which
        show the end of the one before once more and are left out of the film; they fill whole latents.
    variant `keyframes` makes no tokens and has no weights: at most max_pictures whole pictures of the film stand before
        each section as latents, the first_kept and the newest. similarity: above it two pictures count as one.
        picture_step: distance of the pictures in RoPE's time, the last one so far before the section; 0 makes them the
        section's first latents (StoryMem). film_times: pictures of the film stand as far before the section as they
        are in the film, in latents, and those from before it picture_step apart (Memento).

    The rest is how published models read their last latents (FramePack-F1, Helios), for variant `recent`:
    anchor: the film's first latent stays in sight, at full rate, before everything else. fill: a history that is
        shorter than the schedule is filled up with `zeros`, or has fewer tokens (`repeat`, for whole cells alone).
    positions `pooled`: a token has the mean of the rotations of all that it covers.
    history_timestep: the timestep that the history was trained with; "" leaves the choice to the user. With one the
        host was trained to read its history in this one way, see `locked`.
    section_start: rotary time of a section's first latent, which matters where text has a position of its own.
    picture_width: width of CLIP vision tokens of the film's first picture, which stand in front of the text; 0: none.
    skips_text: the history does not attend to the text. key_scale: (blocks, heads) of factors on the history's keys.
    start: what a film begins with when it has no history: `nothing`, a `picture` that it must have, or `zeros`.
    start_noise: least and most noise in what a film is given to begin with; a picture is seen as the end of a still.
    guidance: of a host with a guidance embedding, what it was trained with; 0 leaves it to the prompt and to core.
    """

    host: str
    width: int
    latent_channels: int
    rate: str = "4x4x2"
    variant: Variant = "proposed"
    attention: AttentionScope = "frame"
    padding: Padding = "ceil"
    channels: tuple[int, ...] = (64, 128, 256, 512)
    heads: int = 8
    patch: tuple[int, int, int] = (1, 2, 2)
    memory_attention: HostAttention = "joint"
    cross_blocks: int = 0
    head_dim: int = 128
    positions: Positions = "physical"
    clips: Clips = "film"
    section_latents: int = 0
    repeated_frames: int = 0
    anchor: bool = False
    fill: Fill = "repeat"
    history_timestep: HistoryTimestep | Literal[""] = ""
    section_start: int = 0
    picture_width: int = 0
    skips_text: bool = False
    key_scale: tuple[int, ...] = ()
    start: Start = "nothing"
    max_pictures: int = 8
    first_kept: int = 3
    similarity: float = 0.9
    picture_step: int = 0
    film_times: bool = False
    start_noise: tuple[float, ...] = ()
    guidance: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_type(one.name, str(one.type), getattr(self, one.name))
        for name, value, allowed in (
            ("variant", self.variant, get_args(Variant)),
            ("attention", self.attention, get_args(AttentionScope)),
            ("padding", self.padding, get_args(Padding)),
            ("positions", self.positions, get_args(Positions)),
            ("memory_attention", self.memory_attention, get_args(HostAttention)),
            ("clips", self.clips, get_args(Clips)),
            ("fill", self.fill, get_args(Fill)),
            ("history_timestep", self.history_timestep or "zero", get_args(HistoryTimestep)),
            ("start", self.start, get_args(Start)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {_short(value)} is unknown; choose one of {', '.join(allowed)}")
        if not self.channels or self.channels[-1] % self.heads:
            raise ValueError(f"channels {self.channels} must end in a multiple of heads = {self.heads}")
        if self.patch[0] != 1:
            raise ValueError(f"patch {self.patch}: only hosts that do not patchify time are supported")
        if self.cross_blocks and self.variant not in ("proposed", "without_lr"):
            raise ValueError(f"variant {self.variant} has no hidden states for cross-attention; choose proposed")
        if self.cross_blocks and self.channels[-1] % self.head_dim:
            raise ValueError(
                f"channels {self.channels} must end in a multiple of the host's head width {self.head_dim} for "
                "cross-attention"
            )
        self._check_lattice()
        if self.variant == "keyframes":
            self._check_pictures()
        _ = self.schedule if self.variant == "recent" else self.compression  # a malformed rate is refused here
        self._check_recent()

    def _check_recent(self) -> None:
        """Raises ValueError for settings of variant recent elsewhere, and for those that exclude each other."""
        if self.variant == "recent" and sum(piece.latents for piece in self.schedule) > _MOST_RECENT:
            raise ValueError(f"rate {self.rate!r}: it sees more than the last {_MOST_RECENT} latents")
        only_recent = self.chosen().keys() & {
            "anchor", "fill", "history_timestep", "section_start", "picture_width", "skips_text", "key_scale", "start",
            "start_noise", "guidance",
        }  # fmt: skip
        if self.positions == "pooled":
            only_recent |= {"positions"}
        if only_recent and self.variant != "recent":
            raise ValueError(f"{', '.join(sorted(only_recent))}: for variant recent alone, not for {self.variant}")
        if self.anchor and str(self.schedule[0].rate) != "1x1x1":
            raise ValueError(
                f"rate {self.rate!r}: an anchor goes through the newest piece's layer, which must be 1x1x1"
            )
        if self.start != "nothing" and self.fill != "zeros":
            raise ValueError(f"start {self.start} needs fill zeros")
        if self.picture_width and self.host != "hunyuan":
            raise ValueError(f"picture_width: tokens in front of the text are for host hunyuan, not for {self.host}")
        if self.section_start and self.host != "hunyuan":
            raise ValueError(f"section_start: the text of {self.host} has no position, so that it changes nothing")
        if (self.skips_text or self.key_scale) and self.host != "wan":
            raise ValueError(f"skips_text and key_scale are for host wan, not for {self.host}")
        if self.start_noise and not (
            len(self.start_noise) == 2 and 0 <= self.start_noise[0] <= self.start_noise[1] <= 1
        ):
            raise ValueError(f"start_noise {self.start_noise} must be two numbers from 0 to 1, the smaller one first")
        counts = [self.section_start, self.picture_width, *self.key_scale]
        if any(type(count) is not int or count < 0 for count in counts) or len(self.key_scale) not in (0, 2):
            raise ValueError(
                f"section_start {self.section_start!r}, picture_width {self.picture_width!r} and key_scale "
                f"{self.key_scale!r} must be whole numbers, key_scale two of them (blocks, heads)"
            )

    def _check_lattice(self) -> None:
        if self.clips == "section" and self.has_lr:
            raise ValueError(f"variant {self.variant} decodes the film as one clip; it cannot have clips section")
        if type(self.repeated_frames) is not int or self.repeated_frames not in REPEATED_FRAMES:
            raise ValueError(f"repeated_frames is {self.repeated_frames!r}; give 0, 1 or 5")
        if self.repeated_frames and self.clips != "section":
            raise ValueError("repeated_frames belong to clips of their own; set clips to section")
        least = 3 if self.repeated_frames > 1 else 2
        if type(self.section_latents) is not int or self.section_latents < 0 or 0 < self.section_latents < least:
            raise ValueError(f"section_latents is {self.section_latents!r}; give {least} or more, or 0 for any length")

    def _check_pictures(self) -> None:
        counts = (self.max_pictures, self.first_kept, self.picture_step)
        if any(type(count) is not int or count < 0 for count in counts) or not 0 < self.max_pictures <= MOST_PICTURES:
            raise ValueError(
                f"max_pictures is {self.max_pictures!r}, first_kept {self.first_kept!r}, picture_step "
                f"{self.picture_step!r}; give whole numbers, max_pictures from 1 to {MOST_PICTURES}"
            )
        if self.film_times and not self.picture_step:
            raise ValueError("film_times needs a picture_step, the distance of pictures that are of no film")
        if self.first_kept > self.max_pictures:
            raise ValueError(f"first_kept {self.first_kept} are more than max_pictures {self.max_pictures}")
        if not 0 < self.similarity <= 1:
            raise ValueError(f"similarity {self.similarity} must lie above 0 and up to 1")
        if self.clips != "section":
            raise ValueError("variant keyframes makes every section a clip of its own; set clips to section")

    @property
    def compression(self) -> CompressionRate:
        """The rate of all tokens; that of variant recent lies on the token grid itself."""
        return CompressionRate(1, 1, 1) if self.variant == "recent" else CompressionRate.parse(self.rate)

    @property
    def schedule(self) -> tuple[Piece, ...]:
        """Pieces of variant recent, newest first."""
        return parse_schedule(self.rate)

    @property
    def stride(self) -> tuple[int, int, int]:
        """Latent cells per memory token along (time, height, width)."""
        rate = self.compression
        return rate.time * self.patch[0], rate.height * self.patch[1], rate.width * self.patch[2]

    @property
    def locked(self) -> bool:
        """Whether the host was trained to read its history in one way: nothing about it is the user's to choose."""
        return self.history_timestep != ""

    @property
    def has_lr(self) -> bool:
        return self.variant in ("proposed", "only_lr")

    @property
    def has_hr(self) -> bool:
        return self.variant not in ("only_lr", "keyframes")

    @property
    def has_tokens(self) -> bool:
        """Whether what it makes enters the host as tokens; else as latents in front of the section."""
        return self.variant != "keyframes"

    def chosen(self) -> dict[str, Any]:
        """The settings that are not at their defaults, by name: what a newer version adds changes nothing here."""
        return {
            field.name: getattr(self, field.name)
            for field in sorted(fields(self), key=lambda field: field.name)
            if getattr(self, field.name) != field.default
        }

    def to_metadata(self) -> dict[str, str]:
        """Metadata for `safetensors.torch.save_file`: format, schema version and the configuration as JSON."""
        return {"format": FORMAT, "schema_version": str(SCHEMA_VERSION), "config": json.dumps(asdict(self))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, source: str = "file") -> EncoderConfig:
        """Inverse of `to_metadata`. Raises ValueError when `source` is not one of our encoders or is too new."""
        metadata = metadata or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{source} is not a memory encoder; choose a file of models/memory_encoders")
        return cls.from_dict(checked_json(metadata, SCHEMA_VERSION, source), source)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> EncoderConfig:
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            names = _short(", ".join(unknown))[1:-1]
            raise ValueError(f"{source}: unknown setting {names}; update ComfyUI-VideoMemory to read it")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        try:
            return cls(**values)
        except (TypeError, LookupError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"{source}: incomplete encoder configuration ({error})") from error


def _check_type(name: str, kind: str, value: Any) -> None:
    """Raises ValueError for a value that is not of its field's type, or beyond every model there is."""
    several = kind.startswith("tuple[")
    scalar = kind.removeprefix("tuple[").split(",")[0].rstrip("]")
    allowed, entries = _TYPES.get(scalar, (str,)), value if isinstance(value, tuple) else (value,)
    count = None if not several or "..." in kind else kind.count(",") + 1
    fits = isinstance(value, tuple) == several and len(entries) <= _MOST_ENTRIES and count in (None, len(entries))
    if not fits or not all(type(one) in allowed for one in entries):
        raise ValueError(f"{name} is {_short(value)}; give {_TYPE_NAMES.get(scalar, 'a text')}{', several' * several}")
    least, most = _LEAST.get(name, -_MOST_NUMBER), _MOST.get(name, _MOST_NUMBER)
    for one in entries:
        if len(one) > _MOST_CHARACTERS if isinstance(one, str) else not least <= one <= most:
            raise ValueError(f"{name} is {_short(value)}, beyond what any model has")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def checked_json(metadata: Mapping[str, str], newest: int, source: str) -> dict[str, Any]:
    """Reads metadata["config"] after checking metadata["schema_version"] against the `newest` known."""
    try:
        version = int(metadata["schema_version"])
        values = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: metadata is damaged ({_short(error)}); download or save the file again") from error
    if version > newest:
        raise ValueError(
            f"{source}: schema version {_short(version)} is newer than {newest}; update ComfyUI-VideoMemory"
        )
    if not isinstance(values, dict):
        raise ValueError(f"{source}: metadata is damaged (config is no object); download or save the file again")
    return values
