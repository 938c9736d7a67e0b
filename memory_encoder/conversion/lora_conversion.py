"""LoRAs in peft's names, to files that core's LoRA loader reads with the scale that they were trained with.

peft multiplies B A by alpha / rank, or with rsLoRA by alpha / sqrt(rank), and writes neither into the weights' file.
Core takes alpha / rank from the file, and 1 where it says nothing: the scale becomes alpha, the weights stay as they
are.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import save_tensors
from ..phi.config import EncoderConfig
from .lora_files import Adapter, adapter_of, files_in
from .lora_kinds import KINDS, LoraKind, kind_of
from .lora_settings import setting
from .weights import ConversionError, Made, size_of, write_streaming

_GENERIC = re.compile(r"backbone_|adapter_model|pytorch_lora_weights|pytorch_model|model$")
_ASK = "give it with --scale: alpha / rank, with rsLoRA alpha / sqrt(rank)"


def scale_of(adapter: Adapter, name: str, kind: LoraKind, given: float | None) -> tuple[float, str]:
    """What a layer's B A is to be multiplied by, and how that is known. Raises ConversionError where it is not."""
    layer = adapter.layers[name]
    rank, file = adapter.rank(layer), adapter.path.name
    if given is not None:
        return given, "as given"
    trained = kind.trained[1] if kind.trained is not None and kind.trained[0] == rank else None
    if layer.alpha is not None:
        scale = _alpha(adapter, name, layer.alpha) / rank
        if trained is not None and not math.isclose(scale, trained, rel_tol=1e-2):
            raise ConversionError(
                f"{file} is in core's format with scale {scale:.4g}, but {kind.name} was trained with {trained:.4g}; "
                f"say with --scale which of the two it is to have"
            )
        return scale, "from its own alpha: it was in core's format already"
    if (alpha := setting(adapter.settings, "lora_alpha", "alpha_pattern", name)) is not None:
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


def _alpha(adapter: Adapter, name: str, key: str) -> float:
    """A layer's own alpha. Raises ConversionError for one that no LoRA can have been trained with."""
    value = adapter.checkpoint.tensor(key)
    if value.numel() == 1 and 0 < float(value) < math.inf:
        return float(value)
    found = f"{float(value):g}" if value.numel() == 1 else f"{value.numel()} values"
    raise ConversionError(
        f"{adapter.path.name}: {name} has an alpha of {found}, where one number above 0 belongs; say the scale with "
        "--scale, or download the file again"
    )


@dataclass(frozen=True)
class Planned:
    """A LoRA file to write, and what to say of it."""

    adapter: Adapter
    made: Sequence[Made]
    path: Path
    said: str


def plan(adapter: Adapter, kind: LoraKind, scale: float | None, path: Path) -> Planned:
    """Raises ConversionError where the scale is not known, or none that a file can hold."""
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
        if not 0 < float(alpha) < math.inf:
            raise ConversionError(
                f"{adapter.path.name}: {name} would have scale {found:g}, which 32 bits do not hold; say the scale "
                "that it was trained with by --scale"
            )
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
        known = KINDS[kind] if kind != "auto" else _kind(files)
        adapters = [stack.enter_context(adapter_of(file, known)) for file in files]
        paths = [folder / f"{label}_lora.safetensors" for label in _labels(files, name)]
        _check_paths(paths, files)
        planned = [plan(one, known, scale, path) for one, path in zip(adapters, paths, strict=True)]
        config = _encoder(known, adapters)
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
    if left_out := sum(one.left_out for one in adapters):
        lines.append(
            f"Left out: {left_out} tensors of {known.left_out.rstrip('.')}, with which {known.name} chooses pictures; "
            "the memory encoder chooses them by its own rule"
        )
    return [*lines, f"Licence: {known.licence}."]


def _encoder(kind: LoraKind, adapters: Sequence[Adapter]) -> EncoderConfig | None:
    """The memory encoder of all files; a kind without one needs no width, and may be of both modes."""
    if kind.picture_step is None:
        return None
    return kind.encoder(adapters[0].width, _gives_five_frames([one.path for one in adapters]))


def _kind(files: Sequence[Path]) -> LoraKind:
    """The one kind of all files. Scale, licence and memory encoder hang on it, so that none may borrow another's."""
    kinds = {kind_of(file).name: file for file in reversed(files)}
    if len(kinds) > 1:
        found = ", ".join(f"{file.name} of {name}" for name, file in kinds.items())
        raise ConversionError(
            f"these are LoRAs of more than one kind by their names ({found}); convert one kind at a time, or say with "
            "--kind what all of them are"
        )
    return KINDS[next(iter(kinds))]


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
