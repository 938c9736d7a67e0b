"""What a host must offer, and what is passed to its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ...phi.config import HistoryTimestep

BLOCKS = ("blocks.", "double_blocks.", "single_blocks.")  # names of the lists, in the order in which they run
HOOK = "video_memory_attention"  # an entry of a block's arguments, taken out before the block sees them
Slot = tuple[str, int]
BlockArgs = dict[str, Any]
Block = Callable[[BlockArgs], BlockArgs]
BlockPatch = Callable[[BlockArgs, Block], BlockArgs]
Made = TypeVar("Made")
Patched = Callable[[str], Tensor | None]
"""A weight of the model by its name, with what patches it (a LoRA in MODEL), on the device where it waits; None where
nothing does. What lies in the layer is patched or not, depending on what core has loaded just then."""


class HostError(ValueError):
    """The model cannot carry a memory; the message says which models can."""


class Constants:
    """What is the same in all steps of a section: made once, by name, device and type, until the run lets go of it."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Any] = {}

    def __len__(self) -> int:
        return len(self._made)

    def get(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def forget(self, *_: Any) -> None:
        """Also as a callback at the end of a run (CallbacksMP.ON_CLEANUP)."""
        self._made.clear()


class Once(Generic[Made]):
    """What is made of one tensor, for as long as it is asked for with that tensor: by all blocks of a pass."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Made] | None = None

    def of(self, source: Tensor, make: Callable[[Tensor], Made]) -> Made:
        if self._last is None or self._last[0] is not source:
            self._last = source, make(source)
        return self._last[1]


@dataclass(frozen=True)
class Reading:
    """What a host was trained to have beside the memory, or to do with it; see `phi.config.EncoderConfig`.

    section_start: rotary time of the section's first latent. picture [B,N,D]: tokens in front of the text. skips_text:
    the memory does not attend to the text. key_scale [blocks, heads], or one for all heads of a block.
    """

    section_start: int = 0
    picture: Tensor | None = None
    skips_text: bool = False
    key_scale: Tensor | None = None


@dataclass
class MemoryTokens:
    """Memory on its way through one forward pass; each block replaces `tokens` by its output.

    tokens [B,M,D]; rotary [.. M ..] in the host's own layout; timestep: modulation of the memory tokens. video: rotary
    of the video where it takes the place of the host's own. constants: for what the host makes of its weights alone.
    """

    tokens: Tensor
    rotary: Tensor
    timestep: HistoryTimestep
    reading: Reading = Reading()
    video: Tensor | None = None
    constants: Constants = field(default_factory=Constants)
    _last: tuple[Tensor, Tensor, Tensor] | None = None

    def behind(self, video: Tensor) -> Tensor:
        """Video [B,L,D] and memory in a row. Where they are the two halves of what the last block made, that itself."""
        last, self._last = self._last, None
        if last is not None and last[1] is video and last[2] is self.tokens:
            return last[0]
        return torch.cat([video, self.tokens], dim=1)

    def split(self, both: Tensor, length: int) -> Tensor:
        """The first `length` of what a block made, and keeps the rest for the next one."""
        video, self.tokens = both[:, :length], both[:, length:]
        if not torch.is_grad_enabled():  # a block may add to its inputs in place, which a backward pass needs
            self._last = both, video, self.tokens
        return video

    def apart(self) -> None:
        """Has the next block run on a copy, since someone else may use its inputs once more."""
        self._last = None


class MemoryPass(Protocol):
    """The memory alone on its way through the host's blocks, which makes it independent of video and timestep."""

    tokens: int

    def arguments(self, args: BlockArgs) -> BlockArgs:
        """A block's arguments for the memory, from those for the video."""
        ...

    def receive(self, out: BlockArgs) -> None:
        """Keeps what the block made, for the next one."""
        ...


class Host(Protocol):
    """A diffusion transformer seen from the memory: its first projection, its positions and its blocks.

    image_channels: channels of its input beside the latent's, for a start image and its mask; 0 in text-to-video.
    image_optional: text-to-video checkpoints have these channels as well, and leave them empty.
    masks_text: whether its forward reads attention_mask, which core's takes for one row at a time.
    adds_in_place: whether its blocks add to their inputs.
    patched: what patches the weights of its first projection, which the memory's tokens share with the video's.
    """

    name: str
    model: Any
    width: int
    latent_channels: int
    patch: tuple[int, int, int]
    text_width: int
    pooled_width: int | None
    head_dim: int
    image_channels: int
    image_optional: bool
    masks_text: bool
    adds_in_place: bool
    patched: Patched

    @classmethod
    def matches(cls, model: Any) -> bool:
        """Whether this class knows the blocks of `model`."""
        ...

    def patchifier(self) -> tuple[Tensor, Tensor]:
        """Weight [D,C,1,ph,pw] and bias [D] of the first projection, for the latent channels alone."""
        ...

    def embed(self, latents_BCTHW: Tensor) -> Tensor:
        """The host's patchify and first projection: normalised latents -> [B,D,T,H/ph,W/pw]."""
        ...

    def constants(self, guidance: float) -> dict[str, float]:
        """Arguments of its forward that core gives beside the text, the same for every text."""
        ...

    def rotary(self, coordinates: Tensor, options: Mapping[str, Any] | None = None) -> Tensor:
        """Rotary embedding of (time, height, width) in token-grid units, in the layout of the host's `pe`.

        coordinates: [M,3], or [M,P,3] for tokens that have the mean of P rotations.
        options: core's transformer_options, which may scale and shift the video's positions.
        """
        ...

    def block_patches(self, memory: MemoryTokens, call: Mapping[str, Any]) -> dict[Slot, BlockPatch]:
        """One patch per block for one forward pass; `call` holds the arguments of that pass by name."""
        ...

    def slots(self) -> list[Slot]:
        """All blocks in the order in which they run."""
        ...

    def memory_pass(self, memory: MemoryTokens, call: Mapping[str, Any]) -> MemoryPass:
        """The memory on its own; raises HostError where the text's tokens depend on the timestep in an unknown way."""
        ...

    def video(self, args: BlockArgs) -> tuple[slice, Tensor]:
        """Where the video lies in a block's `img`, and its rotary matrices [1,L,1,d/2,2,2]."""
        ...

    def flat_rotary(self, rotary: Tensor) -> Tensor:
        """The result of `rotary` as [1,M,1,d/2,2,2]."""
        ...


def scaling_of(options: Mapping[str, Any] | None) -> tuple[tuple[str, float], ...]:
    """What core's ScaleROPE does to positions, as a key."""
    return tuple(sorted(((options or {}).get("rope_options") or {}).items()))


def mean_of_points(rotary: Tensor, coordinates: Tensor, axis: int) -> Tensor:
    """Rotary embeddings of all coordinates [M,3] or [M,P,3], in a row along `axis`, as one for each of M tokens."""
    return rotary if coordinates.ndim == 2 else rotary.unflatten(axis, coordinates.shape[:2]).mean(axis + 1)


def as_it_lies(name: str) -> None:
    """What patches a model that no patcher has, or whose patches lie in its weights: nothing beside them."""


class Projection:
    """A host's patchify convolution, wherever its weights lie, with what patches them.

    name: of its layer in the model.
    """

    def __init__(self, model: Any, name: str, patched: Patched) -> None:
        self.conv: Any = attrgetter(name)(model)
        self.weight, self.bias = (patched(f"{name}.{each}") for each in ("weight", "bias"))

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weight [D,C,1,ph,pw] and bias [D]."""
        weight = self.conv.weight if self.weight is None else self.weight
        return weight, (self.conv.bias if self.bias is None else self.bias).to(weight.device)

    def __call__(self, latents: Tensor, patch: tuple[int, int, int]) -> Tensor:
        """Channels that the convolution has beyond the latent's (mask and start image of I2V checkpoints) are zero, as
        in core when no image is given. Odd sizes are padded to whole patches.
        """
        weight, bias = self.weights()
        missing = weight.shape[1] - latents.shape[1]
        pad_w, pad_h = -latents.shape[-1] % patch[2], -latents.shape[-2] % patch[1]
        plain = weight.is_floating_point() and weight.element_size() > 1  # fp8 and packed weights are cast to the input
        in_ram = weight.device.type == "cpu"
        latents = latents.to(weight.device, weight.dtype if plain else torch.float32 if in_ram else latents.dtype)
        latents = torch.nn.functional.pad(latents, (0, pad_w, 0, pad_h, 0, 0), mode="circular")  # as core pads
        latents = torch.nn.functional.pad(latents, (0, 0, 0, 0, 0, 0, 0, missing))
        if self.weight is None and self.bias is None and not (in_ram and plain):
            return self.conv(latents)
        # Around a fault of cuDNN core hands it half types whatever the device is, RAM too, where weights often wait.
        kind = nn.Conv3d if in_ram else type(self.conv)
        return kind._conv_forward(self.conv, latents, weight.to(latents.dtype), bias.to(latents.dtype))


def non_blocking(device: torch.device) -> bool:
    """Whether copies from and to a device may be left to run by themselves: CUDA's (and ROCm's), which keep order.

    On MPS they give wrong values, as core's `device_supports_non_blocking` knows; elsewhere nothing is won.
    """
    return device.type == "cuda"


def host_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a diffusion model, in the order in which they run."""
    lists: list[Any] = [getattr(model, name.rstrip("."), ()) for name in BLOCKS]
    return [block for blocks in lists for block in blocks]
