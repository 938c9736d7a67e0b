"""A model whose history others have trained, split in two: the model for core, and the memory encoder for us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..phi.config import EncoderConfig
from .weights import Checkpoint, Made, size_of, write_streaming


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint becomes. model: core's name of the kind of model. notes: what a person should check."""

    kind: str
    model: str
    core: Sequence[Made]
    encoder: Sequence[Made]
    config: EncoderConfig
    licence: str
    notes: Sequence[str] = ()

    def write(self, checkpoint: Checkpoint, folder: Path, name: str) -> list[str]:
        """Writes both files and says what they are for. Raises OSError that names a file."""
        model, encoder = folder / f"{name}_model.safetensors", folder / f"{name}_memory_encoder.safetensors"
        # The small one first: who sees the model file has both.
        write_streaming(self.encoder, checkpoint, encoder, self.config.to_metadata())
        write_streaming(self.core, checkpoint, model, {"format": "pt"})
        sizes = [size_of(made, checkpoint) / 2**30 for made in (self.core, self.encoder)]
        return [
            f"{model}  {sizes[0]:.2f} GiB: {self.model}, for models/diffusion_models and Load Diffusion Model",
            f"{encoder}  {sizes[1]:.2f} GiB: for models/memory_encoders and Load Memory Encoder",
            *self.notes,
            f"Licence: {self.licence}.",
        ]


def encoder_tensors(made: Sequence[Made], checkpoint: Checkpoint) -> list[Made]:
    """The encoder's tensors in one type of at least 16 bits: it is small, and computes with them itself."""
    types = {one.type_in(checkpoint) for one in made}
    dtype = next(iter(types)) if len(types) == 1 else torch.bfloat16
    dtype = torch.bfloat16 if dtype.itemsize == 1 else dtype
    return [replace(one, dtype=dtype) for one in made]
