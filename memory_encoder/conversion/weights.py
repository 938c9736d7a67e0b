"""Weights of checkpoints larger than the machine's memory: read tensor by tensor from one file or several, and written.

Only headers are held. A file comes into being beside its place and moves there when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import check_space, remove_abandoned_of, write_atomically

INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(.*-)(\d+)(-of-)(\d+)(\.safetensors)")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SCALES = ("scaled_fp8", "scale_weight", "weight_scale", "input_scale", "scale_input", "comfy_quant", "weight_scale_2")
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "module.")


def is_known(dtype: torch.dtype) -> bool:
    """Whether a tensor of this type can be written."""
    return dtype in _NAMES


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message names it and says what to do."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint: where it lies, its name there, shape and type."""

    file: Any
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Checkpoint:
    """The tensors of a checkpoint by name, in one file or in shards; each is read when it is asked for.

    path: its file, or one of several. name: what errors call it; the file's name by default.
    """

    def __init__(self, entries: Mapping[str, Entry], path: Path, name: str = "") -> None:
        self.entries, self.path, self.name = dict(entries), path, name or path.name

    def nearest_name(self, pattern: str) -> str:
        """The nearest name, of its file and of three folders around it, whose lower case holds a pattern; or "".

        Folders called `transformer` do not count: diffusers' layout has one in every model.
        """
        near = [name for name in reversed(self.path.resolve().parts) if name != "transformer"][:4]
        return next((name for name in (self.path.name, *near) if re.search(pattern, name.lower())), "")

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    @property
    def names(self) -> list[str]:
        return list(self.entries)

    def shape(self, key: str) -> tuple[int, ...]:
        return self.entries[key].shape

    def tensor(self, key: str) -> Tensor:
        entry = self.entries[key]
        return entry.file.get_tensor(entry.key)


@contextlib.contextmanager
def opened(paths: Sequence[Path]) -> Iterator[Checkpoint]:
    """A checkpoint of one file, of all its shards, of an index, or of the folder with one of them.

    Raises ConversionError for a file that is missing, damaged, foreign or quantised with scales.
    """
    files = [file for path in paths for file in _files(path)]
    entries: dict[str, Entry] = {}
    with contextlib.ExitStack() as stack:
        for path in dict.fromkeys(files):
            try:
                file: Any = stack.enter_context(safe_open(str(path), framework="pt"))
                found = {key: _entry(file, key, path) for key in file.keys()}  # noqa: SIM118 - not a dict
            except (SafetensorError, OSError) as error:
                raise ConversionError(f"{path} cannot be read ({error}); download it again") from error
            if twice := sorted(entries.keys() & found.keys()):
                raise ConversionError(f"{path.name} holds {twice[0]}, as another file does; give one model at a time")
            entries |= found
        if not entries:
            raise ConversionError("there is no tensor in what was given; give a checkpoint in .safetensors")
        _refuse_scales(entries, paths[0])
        path = files[0] if paths[0].is_dir() else paths[0]  # a file's name is nearer than its folder's
        yield Checkpoint(_without_prefix(entries), path, paths[0].name)


@dataclass(frozen=True)
class Made:
    """One tensor of a file to write: its name, the tensors that it is made of, and how.

    dtype: of the result; None keeps that of the sources.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[[list[Tensor]], Tensor] = field(default=lambda tensors: tensors[0])
    dtype: torch.dtype | None = None

    def type_in(self, checkpoint: Checkpoint) -> torch.dtype:
        if self.dtype is not None:
            return self.dtype
        return max((checkpoint.entries[key].dtype for key in self.sources), key=lambda dtype: dtype.itemsize)

    def tensor(self, checkpoint: Checkpoint) -> Tensor:
        dtype = self.type_in(checkpoint)
        return self.make([checkpoint.tensor(key).to(dtype) for key in self.sources]).contiguous()


def size_of(made: Sequence[Made], checkpoint: Checkpoint) -> int:
    """Bytes of a file's tensors."""
    return sum(math.prod(one.shape) * one.type_in(checkpoint).itemsize for one in made)


def write_streaming(made: Sequence[Made], checkpoint: Checkpoint, path: Path, metadata: Mapping[str, str]) -> None:
    """A safetensors file, tensor by tensor and whole or not at all. Raises OSError that names it."""
    size = size_of(made, checkpoint)
    remove_abandoned_of(path)  # which may be as large
    check_space(path.parent, size, f"{path.name} is not written")
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for one in made:
        dtype = one.type_in(checkpoint)
        stop = start + math.prod(one.shape) * dtype.itemsize
        header[one.name] = {"dtype": _NAMES[dtype], "shape": list(one.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for one in made:
                tensor = one.tensor(checkpoint)
                assert tuple(tensor.shape) == one.shape, one.name
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)

    write_atomically(path, write)


def _files(path: Path) -> list[Path]:
    """The files that a path means: itself, the shards beside it, those of an index, or of a folder."""
    if path.is_dir():
        inside = sorted(path.glob(f"*{INDEX}")) or sorted(path.glob("*.safetensors"))
        if not inside:
            raise ConversionError(f"{path} holds no .safetensors file; give the folder of the transformer")
        return [file for one in inside for file in _files(one)]
    if not path.is_file():
        raise ConversionError(f"{path} is not there; give the path of a checkpoint")
    if path.name.endswith(".json"):
        try:
            names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ConversionError(
                f"{path.name} is no index of shards ({error}); give its .safetensors files"
            ) from error
        return _there([path.with_name(Path(str(name)).name) for name in names])
    if path.suffix != ".safetensors":
        raise ConversionError(f"{path.name} is no .safetensors file; give the checkpoint in that format")
    shard = _SHARD.fullmatch(path.name)
    if shard is None:
        return [path]
    before, number, of, count, after = shard.groups()
    numbers = (str(i + 1).zfill(len(number)) for i in range(int(count)))
    return _there([path.with_name(f"{before}{number}{of}{count}{after}") for number in numbers])


def _there(paths: list[Path]) -> list[Path]:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ConversionError(
            f"shard {missing[0].name} is missing in {missing[0].parent} ({len(paths)} belong together); download it"
        )
    return paths


def _entry(file: Any, key: str, path: Path) -> Entry:
    part = file.get_slice(key)
    dtype = _DTYPES.get(part.get_dtype())
    if dtype is None:
        raise ConversionError(
            f"{path.name} holds {key} as {part.get_dtype()}, which is quantised in a way of its own; "
            "give the bf16 file or the plain fp8 one"
        )
    return Entry(file, key, tuple(part.get_shape()), dtype)


def _refuse_scales(entries: Mapping[str, Entry], path: Path) -> None:
    scaled = next((key for key in entries if key.rsplit(".", 1)[-1] in _SCALES), None)
    if scaled is not None:
        raise ConversionError(
            f"{path.name} is fp8 with scales ({scaled}): a scale for each of q, k and v, where the converted file has "
            "one tensor; give the bf16 file or the plain fp8 one"
        )


def _without_prefix(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Entries without the prefix that all of them have, as saved from within another module."""
    prefix = next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in entries)), "")
    return {key.removeprefix(prefix): entry for key, entry in entries.items()}
