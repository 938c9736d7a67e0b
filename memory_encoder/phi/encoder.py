"""The memory encoder phi (paper section 3.1, Figure 3).

Shapes: B batch, C latent channels, T latent frames, H W latent height and width, D width of the host,
t h w cells of the compressed grid, M = t*h*w memory tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .attention import MemoryAttention
from .config import EncoderConfig
from .cross_attention import CrossAttention
from .positions import cell_coordinates, cells_for, grid_for
from .recent import RecentHistory
from .trunk import LargePatchifier, Trunk, fit


@dataclass(frozen=True)
class StreamState:
    """What `append` must know of the past.

    latents: latent frames seen. size: their height and width. caches: inputs that each convolution still needs.
    features, lr: inputs of the attention and LR tokens of complete cells, kept where the scope reaches back in time.
    """

    latents: int = 0
    size: tuple[int, int] = (0, 0)
    caches: tuple[Tensor, ...] = ()
    features: Tensor | None = None
    lr: Tensor | None = None

    def to(self, **place: Any) -> StreamState:
        """The state with its tensors moved or cast, arguments as in `Tensor.to`."""
        return replace(
            self,
            caches=tuple(cache.to(**place) for cache in self.caches),
            features=None if self.features is None else self.features.to(**place),
            lr=None if self.lr is None else self.lr.to(**place),
        )


@dataclass(frozen=True)
class Encoded:
    """Tokens of one append.

    `tokens` [B,M,D] belong to complete cells and never change. `tail` [B,M',D] belongs to cells that later latents
    will still change; the next append returns them again. `coordinates` [M,3] and `tail_coordinates` [M',3] are
    (time, height, width) in token-grid units from the film's first latent. `hidden` [B,M,C] and `tail_hidden` are
    phi's last hidden states at the same places, for encoders with cross-attention.
    """

    tokens: Tensor
    coordinates: Tensor
    tail: Tensor
    tail_coordinates: Tensor
    state: StreamState = field(repr=False)
    hidden: Tensor | None = None
    tail_hidden: Tensor | None = None

    def all_tokens(self) -> Tensor:
        return torch.cat([self.tokens, self.tail], dim=1)

    def all_hidden(self) -> Tensor | None:
        if self.hidden is None or self.tail_hidden is None:
            return None
        return torch.cat([self.hidden, self.tail_hidden], dim=1)

    def to(self, **place: Any) -> Encoded:
        """Tokens and state moved or cast; coordinates stay as they are."""
        return replace(
            self,
            tokens=self.tokens.to(**place),
            tail=self.tail.to(**place),
            state=self.state.to(**place),
            hidden=None if self.hidden is None else self.hidden.to(**place),
            tail_hidden=None if self.tail_hidden is None else self.tail_hidden.to(**place),
        )


class MemoryEncoder(nn.Module):
    """Compresses a history of VAE latents into tokens of the host's width.

    HR branch: convolutions over the latents, one attention layer, a zero-initialised projection. LR branch: tokens
    of the down-sampled video, made with the VAE and the host's own patchifier by the caller. Their sum is the memory,
    so that an untrained encoder equals Only LR. `operations` is a namespace with Conv3d, Linear and LayerNorm
    (`torch.nn` or ComfyUI's managed layers).
    """

    def __init__(
        self,
        config: EncoderConfig,
        operations: Any = nn,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.trunk: Trunk | LargePatchifier | None = None
        self.recent: RecentHistory | None = None
        self.attention: MemoryAttention | None = None
        if config.variant == "large_patchifier":
            self.trunk = LargePatchifier(config, operations, device, dtype)
        elif config.variant == "recent":
            self.recent = RecentHistory(config, operations, device, dtype)
        elif config.has_hr:
            width = config.channels[-1]
            self.trunk = Trunk(config, operations, device, dtype)
            self.attention = MemoryAttention(width, config.heads, config.attention, operations, device, dtype)
            self.out = operations.Conv3d(width, config.width, 1, device=device, dtype=dtype)
        self.cross = CrossAttention(config, operations, device, dtype) if config.cross_blocks else None

    def reset_parameters(self, generator: torch.Generator, patchifier: tuple[Tensor, Tensor] | None = None) -> None:
        """Initialises all weights from `generator`; the global random state is not touched.

        `patchifier` is the host's first projection, weight [D,C,1,ph,pw] and bias [D]; large_patchifier and recent
        need it.
        """
        stretched = self.recent or (self.trunk if isinstance(self.trunk, LargePatchifier) else None)
        if stretched is not None:
            if patchifier is None:
                raise ValueError(
                    f"variant {self.config.variant} starts from the host's patchifier: pass its weight and bias"
                )
            stretched.from_patchifier(*patchifier)
        elif isinstance(self.trunk, Trunk) and self.attention is not None:
            self.trunk.reset_parameters(generator)
            self.attention.reset_parameters(generator)
            nn.init.zeros_(self.out.weight)  # step 0 equals Only LR; a zero gate would block the gradient instead
            nn.init.zeros_(self.out.bias)
        if self.cross is not None:
            self.cross.reset_parameters(generator)

    def forward(self, latents_BCTHW: Tensor, lr_BDthw: Tensor | None = None) -> Tensor:
        """Memory tokens [B,M,D] of a whole clip; arguments as in `append`."""
        return self.append(latents_BCTHW, lr_BDthw).all_tokens()

    def append(
        self, latents_BCTHW: Tensor, lr_BDthw: Tensor | None = None, state: StreamState | None = None
    ) -> Encoded:
        """Compresses the next latents of a film; any partition of a film gives the tokens of the whole.

        latents_BCTHW: latents in the host's normalised space, directly after those already in `state`.
        lr_BDthw: patchified LR latents, one time step for each cell touched: the one left unfinished by the last
            append, if any, then the new ones. Needed by variants with an LR branch.
        Raises ValueError when shapes do not fit the configuration or the earlier appends.
        """
        state = state or StreamState()
        batch, _, frames, height, width = self._checked(latents_BCTHW, state).shape
        if self.recent is not None:
            return self._recent(self.recent, latents_BCTHW, state)
        grid = grid_for(height, width, self.config)
        stride, total = self.config.stride[0], state.latents + frames
        done, _ = cells_for(state.latents, stride)
        complete, started = cells_for(total, stride)
        lr = self._checked_lr(lr_BDthw, (batch, self.config.width, started - done, *grid))

        x = fit(latents_BCTHW, grid, self.config)
        new, tail, caches = self._features(x, state.caches, complete * stride + 1 - total if started > complete else 0)
        full = self.attention is not None and self.config.attention == "full"
        first, settled = (0, 0) if full else (done, complete)
        hidden = self._hidden(_joined(new, tail), state, full)
        tokens = self._tokens(hidden, lr, state, full)
        shown = hidden if self.cross is not None else None
        keeps = self.attention is not None and self.config.attention != "frame"
        return Encoded(
            tokens=_flat(tokens[:, :, : settled - first]),
            coordinates=cell_coordinates(first, settled, grid, self.config, total),
            tail=_flat(tokens[:, :, settled - first :]),
            hidden=None if shown is None else _flat(shown[:, :, : settled - first]),
            tail_hidden=None if shown is None else _flat(shown[:, :, settled - first :]),
            tail_coordinates=cell_coordinates(settled, started, grid, self.config, total),
            state=StreamState(
                latents=total,
                size=(height, width),
                caches=caches,
                features=_joined(state.features, new) if keeps else None,
                lr=_joined(state.lr, lr[:, :, : complete - done]) if full and lr is not None else None,
            ),
        )

    def _recent(self, recent: RecentHistory, latents: Tensor, state: StreamState) -> Encoded:
        """All tokens may change with the next append."""
        total = state.latents + latents.shape[2]
        seen = torch.cat([*state.caches, latents], dim=2)[:, :, -recent.latents :]
        tail, places = recent(seen, total)
        return Encoded(
            tokens=tail[:, :0],
            coordinates=places[:0],
            tail=tail,
            tail_coordinates=places,
            state=StreamState(latents=total, size=(latents.shape[3], latents.shape[4]), caches=(seen,)),
        )

    def _features(
        self, x: Tensor, caches: tuple[Tensor, ...], missing: int
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, ...]]:
        """Trunk output of complete cells, of the unfinished one (its last latent repeated), and the new caches."""
        if self.trunk is None:
            return None, None, ()
        new, caches = self.trunk.stream(x, caches)
        if missing == 0:
            return new, None, caches
        tail, _ = self.trunk.stream(x[:, :, -1:].expand(-1, -1, missing, -1, -1), caches)
        return new, tail, caches

    def _hidden(self, x: Tensor | None, state: StreamState, full: bool) -> Tensor | None:
        """The HR branch before its projection, of the cells touched, or of all when the attention scope is full."""
        if x is None or self.attention is None:
            return x
        return self.attention(_joined(state.features, x)) if full else self.attention(x, state.features)

    def _tokens(self, hidden: Tensor | None, lr: Tensor | None, state: StreamState, full: bool) -> Tensor:
        """Tokens [B,D,t,h,w] of the same cells."""
        parts: list[Tensor] = []
        if hidden is not None:
            parts.append(hidden if self.attention is None else self.out(hidden))
        if lr is not None:
            parts.append(_joined(state.lr, lr) if full else lr)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1].to(parts[0].dtype)

    def _checked(self, latents: Tensor, state: StreamState) -> Tensor:
        channels = self.config.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels or 0 in latents.shape:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} do not fit this encoder, which reads [batch, {channels}, "
                "frames, height, width]; use the VAE and the encoder that belong to the model"
            )
        if state.latents and tuple(latents.shape[3:]) != state.size:
            raise ValueError(
                f"latents of {latents.shape[3]}x{latents.shape[4]} cannot continue a memory of "
                f"{state.size[0]}x{state.size[1]}; keep one picture size for the whole film"
            )
        return latents

    def _checked_lr(self, lr: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
        if not self.config.has_lr:
            return None
        if lr is None or tuple(lr.shape) != shape:
            found = None if lr is None else tuple(lr.shape)
            raise ValueError(f"LR tokens {found} do not match the HR branch, which needs {shape}")
        return lr


def _flat(tokens_BDthw: Tensor) -> Tensor:
    return rearrange(tokens_BDthw, "b d t h w -> b (t h w) d")


def _joined(first: Tensor | None, second: Any) -> Any:
    """Concatenation along time where either side may be absent."""
    if first is None or second is None:
        return second if first is None else first
    return torch.cat([first, second], dim=2)
