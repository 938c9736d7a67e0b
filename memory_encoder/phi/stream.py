"""Phi over a film that grows: the next latents, nothing computed twice, any partition equal to the whole.

What streams lives here: the inputs that each convolution still needs, the unfinished cell, what an attention that looks
back must keep. Shapes as in `encoder.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from .config import EncoderConfig
from .positions import cell_coordinates, cells_for, grid_for
from .recent import RecentHistory
from .trunk import Cache, LargePatchifier, Trunk, fit


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


class Phi(Protocol):
    """What streaming asks of an encoder; `encoder.MemoryEncoder` says what each of them is."""

    config: EncoderConfig
    trunk: Trunk | LargePatchifier | None
    recent: RecentHistory | None
    attention: Any
    cross: Any

    def attend(self, features_BCthw: Tensor | None, past_BCthw: Tensor | None = None) -> Tensor | None: ...
    def project(self, hidden_BCthw: Tensor | None, lr_BDthw: Tensor | None) -> Tensor: ...
    def check_latents(self, latents: Tensor, size: tuple[int, int] | None = None) -> None: ...
    def check_lr(self, lr: Tensor | None, cells: tuple[int, int, int, int]) -> Tensor | None: ...


def append(encoder: Phi, latents_BCTHW: Tensor, lr_BDthw: Tensor | None, state: StreamState) -> Encoded:
    """Compresses the next latents of a film; any partition of a film gives the tokens of the whole.

    latents_BCTHW: latents in the host's normalised space, directly after those already in `state`.
    lr_BDthw: patchified LR latents, one time step for each cell touched: the one left unfinished by the last append,
        if any, then the new ones. Needed by variants with an LR branch.
    Raises ValueError when shapes do not fit the configuration or the earlier appends.
    """
    encoder.check_latents(latents_BCTHW, state.size if state.latents else None)
    if encoder.recent is not None:
        return _append_recent(encoder.recent, latents_BCTHW, state)
    config = encoder.config
    batch, _, frames, height, width = latents_BCTHW.shape
    grid = grid_for(height, width, config)
    stride, total = config.stride[0], state.latents + frames
    done, _ = cells_for(state.latents, stride)
    complete, started = cells_for(total, stride)
    lr = encoder.check_lr(lr_BDthw, (batch, started - done, *grid))

    missing = complete * stride + 1 - total if started > complete else 0
    new, tail, caches = _features(encoder.trunk, fit(latents_BCTHW, grid, config), state.caches, missing)
    scope = None if encoder.attention is None else config.attention
    full = scope == "full"  # all tokens are made anew, those of complete cells too
    first, settled = (0, 0) if full else (done, complete)
    touched = _joined(new, tail)
    hidden = encoder.attend(_joined(state.features, touched)) if full else encoder.attend(touched, state.features)
    tokens = encoder.project(hidden, _joined(state.lr, lr) if full else lr)
    shown = hidden if encoder.cross is not None else None
    return Encoded(
        tokens=flat(tokens[:, :, : settled - first]),
        coordinates=cell_coordinates(first, settled, grid, config, total),
        tail=flat(tokens[:, :, settled - first :]),
        hidden=None if shown is None else flat(shown[:, :, : settled - first]),
        tail_hidden=None if shown is None else flat(shown[:, :, settled - first :]),
        tail_coordinates=cell_coordinates(settled, started, grid, config, total),
        state=StreamState(
            latents=total,
            size=(height, width),
            caches=caches,
            features=_joined(state.features, new) if scope in ("causal", "full") else None,
            lr=_joined(state.lr, lr[:, :, : complete - done]) if full and lr is not None else None,
        ),
    )


def _append_recent(recent: RecentHistory, latents: Tensor, state: StreamState) -> Encoded:
    """All tokens may change with the next append. caches: the latents that are seen, then the anchor, if any."""
    total = state.latents + latents.shape[2]
    seen = torch.cat([*state.caches[:1], latents], dim=2)[:, :, -recent.latents :]
    anchor = (state.caches[1:] or (latents[:, :, :1],))[0]
    tail, places = recent(seen, total, anchor)
    return Encoded(
        tokens=tail[:, :0],
        coordinates=torch.zeros(0, 3),
        tail=tail,
        tail_coordinates=places,
        state=StreamState(
            latents=total,
            size=(latents.shape[3], latents.shape[4]),
            caches=(seen, anchor) if recent.config.anchor else (seen,),
        ),
    )


def of_nothing(recent: RecentHistory, nothing_BC0HW: Tensor) -> Encoded:
    """The history of a film that has not begun, where the host was trained to see zeros in its places."""
    tail, places = recent(nothing_BC0HW, 0, torch.nn.functional.pad(nothing_BC0HW, (0, 0, 0, 0, 0, 1)))
    return Encoded(tail[:, :0], torch.zeros(0, 3), tail, places, StreamState())


def _features(
    trunk: Trunk | LargePatchifier | None, x: Tensor, caches: Cache, missing: int
) -> tuple[Tensor | None, Tensor | None, Cache]:
    """Trunk output of complete cells, of the unfinished one (its last latent repeated), and the new caches."""
    if trunk is None:
        return None, None, ()
    new, caches = trunk.stream(x, caches)
    if missing == 0:
        return new, None, caches
    tail, _ = trunk.stream(x[:, :, -1:].expand(-1, -1, missing, -1, -1), caches)
    return new, tail, caches


def flat(tokens_BDthw: Tensor) -> Tensor:
    """[B,D,t,h,w] -> [B,M,D], the order of the memory."""
    return rearrange(tokens_BDthw, "b d t h w -> b (t h w) d")


def _joined(first: Tensor | None, second: Any) -> Any:
    """Concatenation along time where either side may be absent."""
    if first is None or second is None:
        return second if first is None else first
    return torch.cat([first, second], dim=2)
