"""The memory encoder phi (paper section 3.1, Figure 3): `forward` is the figure; `stream.py` does it piece by piece.

Shapes: B batch, C latent channels, T latent frames, H W latent height and width, D width of the host,
t h w cells of the compressed grid, M = t*h*w memory tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import stream
from .attention import MemoryAttention
from .config import EncoderConfig
from .cross_attention import CrossAttention
from .picture import PictureTokens
from .positions import cells_for, grid_for
from .recent import RecentHistory
from .stream import Encoded, StreamState, flat
from .trunk import LargePatchifier, Trunk, whole_cells


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
        self.picture = PictureTokens(config, operations, device, dtype) if config.picture_width else None
        self.key_scale = (
            nn.Parameter(torch.ones(config.key_scale, device=device, dtype=dtype)) if config.key_scale else None
        )

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
        for part in (self.cross, self.picture):
            if part is not None:
                part.reset_parameters(generator)

    @property
    def untrained(self) -> bool:
        """Whether the HR branch adds nothing yet, as it does before the first step of training."""
        return self.attention is not None and not bool(self.out.weight.any())

    def forward(self, latents_BCTHW: Tensor, lr_BDthw: Tensor | None = None) -> Tensor:
        """Memory tokens [B,M,D] of a whole clip, as Figure 3 draws it.

        latents_BCTHW: latents in the host's normalised space. lr_BDthw: patchified LR latents, one time step for each
        cell. Raises ValueError when shapes do not fit the configuration.
        """
        self.check_latents(latents_BCTHW)
        if self.recent is not None:
            return self.append(latents_BCTHW).tail
        batch, _, frames, height, width = latents_BCTHW.shape
        grid = grid_for(height, width, self.config)
        lr = self.check_lr(lr_BDthw, (batch, cells_for(frames, self.config.stride[0])[1], *grid))

        features = None if self.trunk is None else self.trunk(whole_cells(latents_BCTHW, grid, self.config))
        return flat(self.project(self.attend(features), lr))

    def attend(self, features_BCthw: Tensor | None, past_BCthw: Tensor | None = None) -> Tensor | None:
        """The HR branch before its projection; `past` are earlier features that the attention may look back to."""
        if features_BCthw is None or self.attention is None:
            return features_BCthw
        return self.attention(features_BCthw, past_BCthw)

    def project(self, hidden_BCthw: Tensor | None, lr_BDthw: Tensor | None) -> Tensor:
        """Tokens [B,D,t,h,w]: the sum of both branches, or the one there is."""
        hr = hidden_BCthw if hidden_BCthw is None or self.attention is None else self.out(hidden_BCthw)
        if hr is None:
            assert lr_BDthw is not None, "every variant has a branch"
            return lr_BDthw
        return hr if lr_BDthw is None else hr + lr_BDthw.to(hr.dtype)

    def append(
        self, latents_BCTHW: Tensor, lr_BDthw: Tensor | None = None, state: StreamState | None = None
    ) -> Encoded:
        """The next latents of a film, see `stream.append`."""
        return stream.append(self, latents_BCTHW, lr_BDthw, state or StreamState())

    def check_latents(self, latents: Tensor, size: tuple[int, int] | None = None) -> None:
        """Raises ValueError for latents that are not this encoder's, or not of the film's `size`."""
        channels = self.config.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels or 0 in latents.shape:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} do not fit this encoder, which reads [batch, {channels}, "
                "frames, height, width]; use the VAE and the encoder that belong to the model"
            )
        if size is not None and tuple(latents.shape[3:]) != size:
            raise ValueError(
                f"latents of {latents.shape[3]}x{latents.shape[4]} cannot continue a memory of "
                f"{size[0]}x{size[1]}; keep one picture size for the whole film"
            )

    def check_lr(self, lr: Tensor | None, cells: tuple[int, int, int, int]) -> Tensor | None:
        """LR tokens [B,D,t,h,w] of the (batch, t, h, w) `cells`, None without that branch; else raises ValueError."""
        if not self.config.has_lr:
            return None
        shape = (cells[0], self.config.width, *cells[1:])
        if lr is None or tuple(lr.shape) != shape:
            found = None if lr is None else tuple(lr.shape)
            raise ValueError(f"LR tokens {found} do not match the HR branch, which needs {shape}")
        return lr
