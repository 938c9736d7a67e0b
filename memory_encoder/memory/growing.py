"""What only grows with a film: pieces one behind the other, none ever copied, each in RAM or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .kept import InFile

Piece: TypeAlias = Tensor | InFile


@dataclass(frozen=True)
class Growing:
    """A tensor in pieces along one axis, at least one; whole it is of the type `dtype`, that of the last one."""

    axis: int
    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, axis: int) -> Growing:
        return cls(axis, (tensor,), tensor.dtype)

    @property
    def length(self) -> int:
        return sum(piece.shape[self.axis] for piece in self.pieces)

    @property
    def shape(self) -> torch.Size:
        sizes = list(self.pieces[-1].shape)
        sizes[self.axis] = self.length
        return torch.Size(sizes)

    def followed_by(self, *pieces: Piece) -> Growing:
        """It and these behind it; those that hold nothing are left out."""
        every = (*self.pieces, *pieces)
        filled = tuple(piece for piece in every if piece.shape[self.axis])
        return Growing(self.axis, filled or every[-1:], every[-1].dtype if pieces else self.dtype)

    def whole(self) -> Tensor:
        """All of it; where it has several pieces the only copy is the one returned."""
        return self.part(0, self.length)

    def part(self, start: int, end: int) -> Tensor:
        """From `start` up to `end`; pieces outside are not read."""
        found: list[Tensor] = []
        at = 0
        for piece in self.pieces:
            first, last = max(start - at, 0), min(end - at, piece.shape[self.axis])
            at += piece.shape[self.axis]
            if first < last:
                tensor = piece.read() if isinstance(piece, InFile) else piece
                found.append(tensor.narrow(self.axis, first, last - first).to(self.dtype))
        if not found:
            sizes = list(self.shape)
            sizes[self.axis] = 0
            return torch.zeros(sizes, dtype=self.dtype)
        return found[0] if len(found) == 1 else torch.cat(found, self.axis)

    def picked(self, indices: Tensor | None) -> Tensor:
        """Those at ascending indices, on any device, or all; of files no more than one piece is in RAM beside them."""
        if indices is None:
            return self.whole()
        if not any(isinstance(piece, InFile) for piece in self.pieces):
            whole = self.whole()
            return whole.index_select(self.axis, indices.to(whole.device))
        found: list[Tensor] = []
        at = 0
        for piece in self.pieces:
            length = piece.shape[self.axis]
            inside = indices[(indices >= at) & (indices < at + length)] - at
            if len(inside):
                tensor = piece.read() if isinstance(piece, InFile) else piece
                found.append(tensor.index_select(self.axis, inside.to(tensor.device)).to(self.dtype))
            at += length
        return torch.cat(found, self.axis) if found else self.part(0, 0)

    def until(self, end: int) -> Growing:
        """Its beginning; where `end` lies between two pieces nothing is read."""
        kept: list[Piece] = []
        at = 0
        for piece in self.pieces:
            if at + piece.shape[self.axis] > end:
                kept.append(self.part(at, end).clone())  # not a view that would keep the rest alive
                break
            kept.append(piece)
            at += piece.shape[self.axis]
        return Growing(self.axis, tuple(kept), self.dtype)
