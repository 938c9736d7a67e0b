"""LoRAs in peft's names, to files that core's LoRA loader reads with the scale that they were trained with.

peft multiplies B A by alpha / rank, or with rsLoRA by alpha / sqrt(rank), and writes neither into the weights' file.
Core takes alpha / rank from the file, and 1 where it says nothing: the scale becomes alpha, the weights stay as they
are.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import save_tensors
from .lora_kinds import KINDS, LoraKind, kind_of
from .weights import Checkpoint, ConversionError, Entry, Made, is_known, opened, size_of, write_streaming

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_PREFIX = re.compile(r"(?:(?:base_model|model|module|transformer|diffusion_model)\.)*")
_PART = re.compile(r"(.+?)\.(?:lora_(A|B|down|up)(?:\.(?!weight$)[^.]+)?\.weight|(alpha))")
_LAYER = re.compile(r"blocks\.\d+\.(?:self_attn|cross_attn|ffn)\..+")
_GENERIC = re.compile(r"backbone_|adapter_model|pytorch_lora_weights|pytorch_model|model$")
_ASK = "give it with --scale: alpha / rank, with rsLoRA alpha / sqrt(rank)"


@dataclass(frozen=True)
class Layer:
    """A layer's LoRA: keys of A [rank,in] and B [out,rank], and of alpha where the file has one."""

    down: str
    up: str
    alpha: str | None


@dataclass(frozen=True)
class Adapter:
    """The LoRA of one file. settings: what an adapter_config.json or the file's metadata say of it."""

    path: Path
    checkpoint: Checkpoint
    layers: Mapping[str, Layer]
    settings: Mapping[str, Any]

    def rank(self, layer: Layer) -> int:
        return self.checkpoint.shape(layer.down)[0]

    @property
    def width(self) -> int:
        """Width of the host: what its self-attention reads."""
        layer = next((layer for name, layer in self.layers.items() if name.endswith("self_attn.q")), None)
        if layer is None:
            raise ConversionError(f"{self.path.name} has no LoRA for self_attn.q, by which the model's width is known")
        return self.checkpoint.shape(layer.down)[1]


@contextlib.contextmanager
def adapter_of(path: Path) -> Iterator[Adapter]:
    """The LoRA in a file. Raises ConversionError for one that is damaged, not whole, or no LoRA of Wan's layers."""
    with contextlib.ExitStack() as stack:
        if path.suffix in PICKLED:
            checkpoint, settings = _pickled(path), {}
        else:
            checkpoint, settings = stack.enter_context(opened([path])), _metadata(path)
        adapter = Adapter(path, checkpoint, _layers(checkpoint), settings or _neighbour(path))
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


def scale_of(adapter: Adapter, name: str, kind: LoraKind, given: float | None) -> tuple[float, str]:
    """What a layer's B A is to be multiplied by, and how that is known. Raises ConversionError where it is not."""
    layer = adapter.layers[name]
    rank, file = adapter.rank(layer), adapter.path.name
    if given is not None:
        return given, "as given"
    trained = kind.trained[1] if kind.trained is not None and kind.trained[0] == rank else None
    if layer.alpha is not None:
        scale = float(adapter.checkpoint.tensor(layer.alpha)) / rank
        if trained is not None and not math.isclose(scale, trained, rel_tol=1e-2):
            raise ConversionError(
                f"{file} is in core's format with scale {scale:.4g}, but {kind.name} was trained with {trained:.4g}; "
                f"say with --scale which of the two it is to have"
            )
        return scale, "from its own alpha: it was in core's format already"
    if (alpha := _setting(adapter.settings, "lora_alpha", "alpha_pattern", name)) is not None:
        if adapter.settings.get("use_rslora"):
            return alpha / math.sqrt(rank), f"rsLoRA: {alpha:g} / sqrt({rank}), from its settings"
        return alpha / rank, f"{alpha:g} / {rank}, from its settings"
    if trained is not None and "base_model." in layer.down:  # under another name the scale may lie in the weights
        return trained, f"rsLoRA: {rank} / sqrt({rank}), as {kind.name} was trained"
    raise ConversionError(
        f"{file} does not say with which scale its LoRA of rank {rank} was trained, nor does an adapter_config.json "
        f"beside it; {_ASK}, which are 1 and {math.sqrt(rank):.4g} where alpha is the rank, or 1 where somebody has "
        "multiplied the weights by it already"
    )


@dataclass(frozen=True)
class Planned:
    """A LoRA file to write, and what to say of it."""

    adapter: Adapter
    made: Sequence[Made]
    path: Path
    said: str


def plan(adapter: Adapter, kind: LoraKind, scale: float | None, path: Path) -> Planned:
    """Raises ConversionError where the scale is not known."""
    made: list[Made] = []
    scales: dict[float, str] = {}
    for name, layer in adapter.layers.items():
        found, why = scale_of(adapter, name, kind, scale)
        scales.setdefault(found, why)
        core = f"diffusion_model.{name}"
        made += [
            Made(f"{core}.{end}.weight", (key,), adapter.checkpoint.shape(key))
            for end, key in (("lora_down", layer.down), ("lora_up", layer.up))
        ]
        alpha = torch.tensor(found * adapter.rank(layer), dtype=torch.float32)
        made.append(Made(f"{core}.alpha", (), (), lambda _, alpha=alpha: alpha, torch.float32))
    ranks = sorted({adapter.rank(layer) for layer in adapter.layers.values()})
    said = ", ".join(f"{found:.4g} ({why})" for found, why in scales.items())
    rank = " to ".join(str(one) for one in dict.fromkeys((ranks[0], ranks[-1])))
    return Planned(adapter, made, path, f"LoRA of rank {rank} for {len(adapter.layers)} layers, scale {said}")


def convert_loras(
    inputs: Sequence[Path], folder: Path, name: str, kind: str = "auto", scale: float | None = None
) -> list[str]:
    """Writes a LoRA for core of each input, for known kinds the memory encoder beside them, and says what they are for.

    Nothing is written when one of the inputs cannot be converted. Raises ConversionError, OSError that names a file.
    """
    if scale is not None and not 0 < scale < math.inf:
        raise ConversionError(f"--scale is {scale}; give a number above 0")
    files = [file for path in inputs for file in files_in(path)]
    if not files:
        raise ConversionError(f"{inputs[0]} holds no LoRA file; give a .safetensors or .pth file")
    with contextlib.ExitStack() as stack:
        adapters = [stack.enter_context(adapter_of(file)) for file in files]
        known = KINDS[kind] if kind != "auto" else kind_of(files[0])
        paths = [folder / f"{label}_lora.safetensors" for label in _labels(files, name)]
        _check_paths(paths, files)
        planned = [plan(one, known, scale, path) for one, path in zip(adapters, paths, strict=True)]
        config = known.encoder(adapters[0].width, _gives_five_frames(files))
        for one in planned:
            write_streaming(one.made, one.adapter.checkpoint, one.path, {"format": "pt"})
        sizes = [size_of(one.made, one.adapter.checkpoint) / 2**30 for one in planned]
    lines = [
        f"{one.path}  {size:.2f} GiB: {one.said}; for models/loras and Load LoRA at strength 1"
        for one, size in zip(planned, sizes, strict=True)
    ]
    if config is not None:
        path = folder / f"{_shared(files, name)}_memory_encoder.safetensors"
        save_tensors({}, path, config.to_metadata())
        lines.append(
            f"{path}: keeps whole pictures, and gives a shot that goes on the last {config.repeated_frames} before it; "
            "for models/memory_encoders and Load Memory Encoder"
        )
    return [*lines, f"Licence: {known.licence}."]


def _gives_five_frames(files: Sequence[Path]) -> bool:
    """Whether the files, by their names and the two folders around them, are of MM2V (five given frames), not MI2V."""
    modes = set()
    for file in files:
        near = (file.name, *(parent.name for parent in file.resolve().parents[:2]))
        found = (match[0] for name in near if (match := re.search(r"m[im]2v", name.lower())))
        modes.add(next(found, "mi2v"))
    if len(modes) > 1:
        raise ConversionError(
            "these are LoRAs of MI2V and of MM2V, which need a memory encoder each; convert one pair at a time"
        )
    return modes == {"mm2v"}


def _labels(files: Sequence[Path], name: str) -> list[str]:
    """How the files to write are called: by `name` or their folder where their own names say little."""
    labels = []
    for file in files:
        stem = file.stem.removesuffix("_lora")
        own = stem.removeprefix("backbone_")
        if name:
            labels.append(name if len(files) == 1 and own == stem else f"{name}_{own}")
        elif _GENERIC.match(stem):
            folder = file.resolve().parent.name
            labels.append(f"{folder}_{own}" if own != stem else folder)
        else:
            labels.append(stem)
    return labels


def _shared(files: Sequence[Path], name: str) -> str:
    """One name for what belongs to all files."""
    if name:
        return name
    labels = _labels(files, "")
    return re.sub(r"[_-]?(high|low)[_-]?(noise)?$", "", labels[0], flags=re.IGNORECASE) or labels[0]


def _check_paths(paths: Sequence[Path], files: Sequence[Path]) -> None:
    if len(set(paths)) < len(paths):
        raise ConversionError("two inputs would become one file; convert them one by one with --name")
    if clash := {path.resolve() for path in paths} & {file.resolve() for file in files}:
        raise ConversionError(f"{clash.pop()} would be written over itself; give another folder with --out")


def _layers(checkpoint: Checkpoint) -> dict[str, Layer]:
    """The pairs of a file by the layer's name in core's model; no key may be left over."""
    found: dict[str, dict[str, str]] = {}
    for key in checkpoint.names:
        match = _PART.fullmatch(key[_PREFIX.match(key).end() :])  # type: ignore[union-attr]
        if match is None:
            raise ConversionError(
                f"{checkpoint.name} holds {key}, which is no part of a plain LoRA; give the LoRA's own file as its "
                "authors publish it"
            )
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
    for name in ("state_dict", "model", "lora", "module"):
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


def _metadata(path: Path) -> dict[str, Any]:
    """The adapter's settings in a safetensors file's metadata, as peft, diffusers and others write them."""
    with safe_open(str(path), framework="pt") as file:
        metadata: dict[str, Any] = file.metadata() or {}
    for name in ("lora_adapter_metadata", "adapter_config"):
        found = _settings(metadata.get(name, ""))
        found = {key.removeprefix("transformer."): value for key, value in found.items()}
        if "lora_alpha" in found:
            return found
    return {}


def _neighbour(path: Path) -> dict[str, Any]:
    """Those in an adapter_config.json beside the file."""
    config = path.with_name("adapter_config.json")
    try:
        return _settings(config.read_text(encoding="utf-8"), config.name)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{config} cannot be read ({error}); download it again, or give --scale") from error


def _settings(text: str, source: str = "") -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if source:
            raise ConversionError(f"{source} is no JSON ({error}); download it again") from error
        return {}
    return data if isinstance(data, dict) else {}


def _setting(settings: Mapping[str, Any], field: str, pattern: str, name: str) -> float | None:
    """A number of peft's settings for a layer; patterns name layers that have one of their own."""
    value = settings.get(field)
    patterns = settings.get(pattern)
    for ending, own in patterns.items() if isinstance(patterns, Mapping) else ():
        if name == ending or name.endswith(f".{ending}"):
            value = own
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 < value < math.inf else None  # type: ignore[arg-type, operator]
