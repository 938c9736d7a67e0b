"""Pictures in front of a section as Memento's training has them; StoryMem's are latents of the section like any other.

They stand at times of their own in the model's rotary embedding, are at every step as noisy as the step says, whatever
the model made of them before, and take half of what they see from themselves alone. Its training does the last where
there is a picture of an identity and where there is none. For image-to-video models whose rotary embedding is an
argument of their blocks and holds the video alone, as Wan's. Not from the paper.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .compiled import compile_by_blocks
from .hosts import MemoryTokens, find_host
from .hosts.base import HOOK, Block, BlockArgs, Constants, Once
from .inject import DIFFUSION_MODEL, ON_CLEANUP, moved_section, with_patches

KEY = "video_memory_pictures"


def with_leading_pictures(model: Any, times: Sequence[float], noise: Tensor) -> Any:
    """A clone of a ModelPatcher whose first latents are pictures at `times`; those after them stand at 0, 1, ...

    noise: [1,C,T,h,w] of the section, pictures first, as core adds it at the first sigma. The pictures themselves are
    what the model is given in its channels for images.
    """
    patched = model.clone()
    host = find_host(patched.get_model_object("diffusion_model"))
    compile_by_blocks(patched, host.slots())
    wrapper = _PicturesWrapper(tuple(times), noise[:, :, : len(times)])
    patched.add_wrapper_with_key(DIFFUSION_MODEL, KEY, wrapper)
    patched.add_callback_with_key(ON_CLEANUP, KEY, wrapper.constants.forget)
    return patched


@dataclass(frozen=True)
class _PicturesWrapper:
    """Wraps one forward pass of the diffusion model (WrappersMP.DIFFUSION_MODEL)."""

    times: tuple[float, ...]
    noise: Tensor
    constants: Constants = field(default_factory=Constants)

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        call = inspect.signature(executor.class_obj._forward).bind(*args, **kwargs)
        call.apply_defaults()
        host, x = find_host(executor.class_obj), call.arguments["x"]
        options = call.arguments["transformer_options"]
        rotary = moved_section(host, x, -float(len(self.times)), options, self.constants, self.times)
        places: Once[Tensor] = Once()
        apart = half_alone(len(self.times), rotary.shape[1] // x.shape[2])

        def make(pe: Tensor) -> Tensor:
            return torch.cat([rotary.to(pe), pe[:, rotary.shape[1] :]], dim=1)

        def moved(args: BlockArgs, block: Block) -> BlockArgs:
            return block({**args, "pe": places.of(args["pe"], make), HOOK: apart})

        nothing = MemoryTokens(x.new_zeros(0), rotary, "same")
        patches = dict.fromkeys(host.slots(), moved)
        self._make_noisy(x, options["sigmas"])
        call.arguments["transformer_options"] = with_patches(options, patches, nothing)
        return executor(*call.args, **call.kwargs)

    def _make_noisy(self, x: Tensor, sigmas: Tensor) -> None:
        """Puts the pictures, which lie in the last channels of x [B,C+4+C,T,h,w], at the noise of this step into its
        first latents. In place, since core has put these channels together for this pass alone."""
        count, channels = len(self.times), self.noise.shape[1]
        sigma, noise = sigmas[0].to(x.device, torch.float32), self.noise.to(x.device, torch.float32)
        x[:, :channels, :count] = (1 - sigma) * x[:, -channels:, :count].float() + sigma * noise


def half_alone(pictures: int, size: int) -> Callable[..., Tensor]:
    """A hook on self-attention [B,L,D]: its first rows get the mean of what they see of all and of themselves alone.

    pictures: how many there are, of `size` rows each.
    """
    rows = pictures * size

    def hook(attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = attention(q, k, v, *args, **kwargs)
        for start in range(0, rows, size):  # one by one, so that this takes no memory worth counting
            picture = slice(start, start + size)
            alone = attention(q[:, picture], k[:, :rows], v[:, :rows], *args, **kwargs)
            out[:, picture].mul_(0.5).add_(alone, alpha=0.5)
        return out

    return hook
