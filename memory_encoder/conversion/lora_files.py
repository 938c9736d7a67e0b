"""LoRAs in peft's names: what a file of one holds, and what of it is refused.

Of a pickled file nothing is run, and of a safetensors file headers alone are held.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .lora_kinds import KINDS, LoraKind
from .lora_settings import metadata_of, neighbour_of
from .weights import Checkpoint, ConversionError, Entry, is_known, opened

_EXPERTS = ("low_noise_model.", "high_noise_model.")
PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_PREFIX = re.compile(r"(?:(?:base_model|model|module|transformer|diffusion_model|(?:low|high)_noise_model)\.)*")
_PART = re.compile(r"(.+?)\.(?:lora_(A|B|down|up)(?:\.(?!weight$)[^.]+)?\.weight|(alpha))")
_WRAPPERS = ("trainable_state_dict", "lora_state_dict", "state_dict", "model", "lora", "module")
_OWN = "give the LoRA's own file as its authors publish it"
_LAYER = re.compile(r"blocks\.\d+\.(?:self_attn|cross_attn|ffn)\..+")


@dataclass(frozen=True)
class Layer:
    """A layer's LoRA: keys of A [rank,in] and B [out,rank], and of alpha where the file has one."""

    down: str
    up: str
    alpha: str | None


@dataclass(frozen=True)
class Adapter:
    """The LoRA of one file. settings: what an adapter_config.json or the file's metadata say of it.

    left_out: how many tensors of the file its kind does without.
    """

    path: Path
    checkpoint: Checkpoint
    layers: Mapping[str, Layer]
    settings: Mapping[str, Any]
    left_out: int = 0

    def rank(self, layer: Layer) -> int:
        return self.checkpoint.shape(layer.down)[0]

    @property
    def width(self) -> int:
        """Width of the host: what its self-attention reads. Raises ConversionError without a LoRA for it."""
        layer = next((layer for name, layer in self.layers.items() if name.endswith("self_attn.q")), None)
        if layer is None:
            raise ConversionError(
                f"{self.path.name} has no LoRA for self_attn.q, by which the model's width is known for the memory "
                "encoder; give the file as its authors publish it, or say --kind lora for a LoRA without a memory"
            )
        return self.checkpoint.shape(layer.down)[1]


@contextlib.contextmanager
def adapter_of(path: Path, kind: LoraKind) -> Iterator[Adapter]:
    """The LoRA in a file of a kind.

    Raises ConversionError for a file that is damaged, not whole, or no LoRA of Wan's layers.
    """
    with contextlib.ExitStack() as stack:
        if path.suffix in PICKLED:
            checkpoint, settings = _pickled(path), {}
        else:
            checkpoint, settings = stack.enter_context(opened([path])), metadata_of(path)
        names = {key: _PREFIX.sub("", key, count=1) for key in checkpoint.names}
        used = {key: name for key, name in names.items() if not (kind.left_out and name.startswith(kind.left_out))}
        layers = _layers(checkpoint, used)
        adapter = Adapter(path, checkpoint, layers, settings or neighbour_of(path), len(names) - len(used))
        if adapter.settings.get("use_dora"):
            raise ConversionError(f"{path.name} is a DoRA, which has magnitudes beside the LoRA; give a plain LoRA")
        _check_values(adapter)
        yield adapter


def is_lora(path: Path) -> bool:
    """Whether a file, or a folder with such files, holds a LoRA rather than a whole model."""
    files = files_in(path)
    if any(file.suffix in PICKLED for file in files):
        return True
    try:
        with safe_open(str(files[0]), framework="pt") as file:
            return any(".lora_" in key for key in file.keys())  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, IndexError):
        return False  # what is wrong will be said when it is read


def files_in(path: Path) -> list[Path]:
    """The file itself, or the LoRA files of a folder."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob("*.safetensors")) or sorted(file for file in path.iterdir() if file.suffix in PICKLED)


def _layers(checkpoint: Checkpoint, names: Mapping[str, str]) -> dict[str, Layer]:
    """The pairs of a file by the layer's name in core's model. names: without prefix, by key; all must be of pairs."""
    if not names:
        raise ConversionError(f"{checkpoint.name} holds no LoRA; {_OWN}")
    if all(any(expert in key for key in names) for expert in _EXPERTS):
        raise ConversionError(
            f"{checkpoint.name} holds the LoRAs of both experts; save the tensors whose names begin with {_EXPERTS[0]} "
            f"and those with {_EXPERTS[1]} in a file each, and give both files"
        )
    found: dict[str, dict[str, str]] = {}
    for key, name in names.items():
        match = _PART.fullmatch(name)
        if match is None:
            raise ConversionError(f"{checkpoint.name} holds {key}, which is no part of a plain LoRA; {_cure(name)}")
        part = match[3] or {"down": "A", "up": "B"}.get(match[2], match[2])
        if part in found.setdefault(match[1], {}):
            raise ConversionError(f"{checkpoint.name} holds more than one LoRA ({key}); give one at a time")
        found[match[1]][part] = key
    for name, parts in found.items():
        if not _LAYER.fullmatch(name):
            raise ConversionError(
                f"{checkpoint.name} is a LoRA for {name}, which is no layer of Wan as core names them; give one in "
                "the original names, such as blocks.0.self_attn.q"
            )
        down, up = (list(checkpoint.shape(parts[part])) if part in parts else [] for part in ("A", "B"))
        if len(down) != 2 or len(up) != 2 or down[0] != up[1]:
            raise ConversionError(
                f"{checkpoint.name}: {name} has A of the shape {down or 'nothing'} and B of {up or 'nothing'}; "
                "the file is not whole, download it again"
            )
    return {name: Layer(parts["A"], parts["B"], parts.get("alpha")) for name, parts in found.items()}


def _cure(name: str) -> str:
    """What to do about a tensor that is no part of a LoRA: it may be of a kind that was not said."""
    owner = next((kind for kind in KINDS.values() if kind.left_out and name.startswith(kind.left_out)), None)
    return _OWN if owner is None else f"if the file is of {owner.name}, say --kind {owner.name}"


def _check_values(adapter: Adapter) -> None:
    """Raises ConversionError for weights that are not finite."""
    for name, layer in adapter.layers.items():
        for key in (layer.down, layer.up):
            if not torch.isfinite(adapter.checkpoint.tensor(key).float()).all():
                raise ConversionError(f"{adapter.path.name}: {name} holds NaN or infinite values; download it again")


class _Loaded:
    """Tensors that are there already, read as those of a safetensors file are."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def get_tensor(self, key: str) -> Tensor:
        return self.tensors[key]


def _pickled(path: Path) -> Checkpoint:
    """The tensors of a file of torch.save, read without running anything that it holds."""
    if not path.is_file():
        raise ConversionError(f"{path} is not there; give the path of a LoRA")
    try:
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of a format that cannot be mapped
            data = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConversionError(
            f"{path.name} cannot be read as weights alone ({reason}); download it again, or give a .safetensors file"
        ) from error
    for name in _WRAPPERS:
        if isinstance(data, Mapping) and isinstance(data.get(name), Mapping):
            data = data[name]
    if not isinstance(data, Mapping) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise ConversionError(f"{path.name} is no list of tensors by name; give the LoRA's own file")
    file = _Loaded({str(key): value for key, value in data.items()})
    for key, value in file.tensors.items():
        if not is_known(value.dtype):
            raise ConversionError(f"{path.name} holds {key} as {value.dtype}; give a file of floats")
    entries = {key: Entry(file, key, tuple(value.shape), value.dtype) for key, value in file.tensors.items()}
    return Checkpoint(entries, path)
