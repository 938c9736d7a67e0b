"""The checkpoints of a run: the last few stay, the newest sound one is gone on with, one of another run is refused."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..damage import damage_named, shortened
from ..files import check_regular, write_atomically
from ..frames import evenly
from ..injection.hosts.base import BLOCKS
from ..phi.config import EncoderConfig
from .distributed.shards import is_main
from .options import EARLIER, TrainOptions
from .run_files import checkpoint_name, checkpoints_in

_LOG = logging.getLogger("video_memory")
GIB = 1024**3
SAMPLED, SAMPLED_VALUES = 16, 256  # weights, and values of each, about
ALIKE = 0.95
ADAMW = {"adamw", "adamw8bit"}  # of these one may follow the other, with moments of its own
OTHER_CONTENT = (
    "the dataset holds other things than when this run last stopped (clips, captions, text encoder or VAE): from here "
    "on its losses are of those, and not the ones that an unbroken run would have"
)
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
# What may be otherwise when a run goes on: how long and how fast it learns, what it reports, how a step is computed.
# All else says what is learned. Of batch_size and accumulate the product counts.
MAY_CHANGE = frozenset(
    (
        "steps", "learning_rate", "encoder_rate", "weight_decay", "warmup", "cooldown", "clip", "ema", "max_skipped",
        "batch_size", "accumulate", "mixed_precision", "gradient_checkpointing",
        "resident_blocks", "offload_inputs", "ema_every", "compile_blocks", "preset",
        "reconstruction",  # which is over when a run goes on
        "checkpoint_every", "keep_checkpoints", "heldout_every", "picture_every",
    )
)  # fmt: skip


class Unusable(ValueError):
    """A checkpoint that cannot be gone on with; the message says why."""


class Checkpoints:
    """Those of a folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        """keep: how many of the last ones stay."""
        self.folder, self.keep = folder, keep
        self.unusable: list[Path] = []
        self.used: Path | None = None  # what `newest` gave

    @staticmethod
    def _named(path: Path) -> contextlib.AbstractContextManager[None]:
        return damage_named(path, "checkpoint", "begin another run: choose another folder", Unusable)

    def restoring(self) -> contextlib.AbstractContextManager[None]:
        """While what `newest` gave is loaded: what does not fit raises Unusable that names the file."""
        return contextlib.nullcontext() if self.used is None else self._named(self.used)

    def newest(self, settings: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """The newest state that can be gone on with, or None where a run begins.

        settings: as `settings_of` gives them. parameters: what is trained, by name. Damaged states, and those that are
        not finite, are passed over with a warning. Raises ValueError that names the fields and both values for a run of
        other settings, and where no state is usable; OSError that names a file that could not be read.
        """
        reasons = []
        for path in checkpoints_in(self.folder):
            try:
                with self._named(path):
                    state = _read(path)
                    refused, changed = _differences(path, state, settings)
                    refused = refused or _other_weights(path, state, parameters)
                    _check_finite({} if refused else state)
            except Unusable as error:
                reasons.append(f"{path} cannot be gone on with: {error}")
                self.unusable.append(path)
                continue
            if refused:
                raise ValueError(shortened(refused))
            self.used = path
            if reasons:
                _say(logging.WARNING, "; ".join([*reasons, f"going on from {path.name} instead, step {state['step']}"]))
            if state.get("content") and settings["content"] not in (None, state["content"]):
                _say(logging.WARNING, OTHER_CONTENT)
            _say(logging.INFO, f"going on from step {state['step']}" + "".join(f"; {each}" for each in changed))
            return state
        if reasons:
            raise ValueError(
                "; ".join(reasons)
                + f"; {self.folder} holds no other checkpoint. Begin another run: choose another folder"
            )
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes a state, and then removes those that are too many; a crash meanwhile leaves the earlier ones."""
        path = self.folder / checkpoint_name(state["step"])
        write_atomically(path, lambda temporary: _write(state, temporary))
        for other in (*[p for p in self.unusable if p != path], *checkpoints_in(self.folder)[self.keep :]):
            with contextlib.suppress(PermissionError):  # on Windows, of a file that is open elsewhere: at the next save
                other.unlink(missing_ok=True)
        self.unusable.clear()

    def make_room(self, need: int) -> None:
        """Sees to `need` free bytes before anything is written, and gives all checkpoints but the newest sound one.

        Raises OSError (ENOSPC) that says how much is needed and where, when that is not enough.
        """
        for older in (*self.unusable, *reversed(self._sound()[1:])):
            if shutil.disk_usage(self.folder).free >= need:
                return
            _say(logging.WARNING, f"the disk is nearly full: {older} is given up to save the next state")
            older.unlink(missing_ok=True)
        if shutil.disk_usage(self.folder).free < need:
            raise self.full(need)

    def _sound(self) -> list[Path]:
        return [path for path in checkpoints_in(self.folder) if path not in self.unusable]

    def full(self, need: int) -> OSError:
        """The error of a disk that has no room for `need` bytes."""
        held = [path.name for path in self._sound()[:1]]
        stays = f"; {held[0]} is as it was, and the same run goes on from it" if held else ""
        free = shutil.disk_usage(self.folder).free
        return OSError(
            errno.ENOSPC,
            f"saving this run takes {need / GIB:.3g} GiB in {self.folder}, where {free / GIB:.3g} GiB are free; free "
            f"space on that disk{stays}",
        )


def settings_of(
    options: TrainOptions,
    configs: Sequence[EncoderConfig],
    data: str | None,
    host: Mapping[str, Tensor],
    content: str | None = None,
) -> dict[str, Any]:
    """What a state says of its run. data: what it trains on, content: what that holds. host: see `weights_sample`."""
    own = {"options": asdict(options), "config": asdict(configs[0]), "others": [asdict(one) for one in configs[1:]]}
    return {**own, "data": data, "content": content, "host": dict(host)}


def weights_sample(model: nn.Module) -> dict[str, Tensor]:
    """Some values of some of the weights that are not trained, to tell a host from others of its shape (experts)."""
    frozen = [
        (name.replace(".base_layer", ""), parameter)
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and type(parameter.data) is Tensor
        and parameter.ndim > 1
        and not name.startswith(BLOCKS)  # which may lie elsewhere
    ]
    chosen = [frozen[place] for place in evenly(len(frozen), min(len(frozen), SAMPLED))]
    flat = {name: parameter.detach().flatten() for name, parameter in chosen}
    return {name: values[:: max(1, len(values) // SAMPLED_VALUES)].clone().cpu() for name, values in flat.items()}


def _same_weights(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> bool:
    """Whether two samples are of one model: the same values, or in other types (fp8, also scaled) the same pattern."""
    for name in theirs.keys() & mine.keys():
        old, new = theirs[name], mine[name]
        if old.dtype == new.dtype and not torch.equal(old.float(), new.float()):
            return False
        if old.shape != new.shape or (new.any() and torch.cosine_similarity(old.float(), new.float(), dim=0) < ALIKE):
            return False
    return True


def _read(path: Path) -> dict[str, Any]:
    check_regular(path)
    with path.open("rb") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    # Without these there is nothing to compare or to load.
    named = {"options": dict, "config": dict, "parameters": dict, "averages": dict, "optimizers": list, "step": int}
    for name, kind in named.items() if isinstance(state, dict) else [("state", dict)]:
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise ValueError(f"it has no {name}")
    if not all(isinstance(one, dict) and isinstance(one.get("state"), dict) for one in state["optimizers"]):
        raise ValueError("it has no moments")
    return state


def _write(state: Mapping[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(dict(state), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # after a failed write PyTorch says only that its count is wrong
            raise error.__context__ from error
        raise


def _differences(path: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What differs and may not, in a message, empty for nothing; and what differs and may."""
    theirs, mine = state["options"], settings["options"]
    # What an earlier version did not know yet is what it did then.
    then = {**asdict(TrainOptions()), **EARLIER, **{name: value for name, value in theirs.items() if name in mine}}
    wrong = [(n, then[n], mine[n]) for n in mine if n not in MAY_CHANGE and then[n] != mine[n]]
    wrong = [one for one in wrong if not (one[0] == "optimizer" and {*one[1:]} <= ADAMW)]
    batches = [of["batch_size"] * of["accumulate"] for of in (then, mine)]
    if batches[0] != batches[1]:
        wrong.append(("batch_size x accumulate", *batches))
    configs = [[of["config"], *of.get("others", [])] for of in (state, settings)]
    if len(configs[0]) != len(configs[1]):
        wrong.append(("number of encoders", len(configs[0]), len(configs[1])))
    for number, (old, new) in enumerate(zip(*configs, strict=False), 1):
        old = _defaults(EncoderConfig) | old
        wrong += [(f"{n} of encoder {number}", old.get(n), new[n]) for n in new if old.get(n) != new[n]]
    if state.get("data") and settings["data"] and state["data"] != settings["data"]:
        wrong.append(("dataset", state["data"], settings["data"]))
    if not _same_weights(state.get("host") or {}, settings["host"]):
        wrong.append(("host", "has the weights of one model", "another"))
    if wrong:
        said = ", ".join(f"{name} {old} in the run, {new} asked" for name, old, new in wrong)
        return (
            f"{path.parent} holds a run of other settings: {said}. Ask for the run's to go on with it; to train with "
            "others choose another folder, which may begin with this run's encoder and LoRA"
        ), []
    if state["step"] > mine["steps"]:
        return (
            f"{path.parent} holds a run that has done {state['step']} steps, and steps is {mine['steps']}: ask for "
            "more, or choose another folder"
        ), []
    return "", [f"{n} {mine[n]} from here on, {theirs[n]} before" for n in mine if n in theirs and mine[n] != theirs[n]]


def _other_weights(path: Path, state: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> str:
    """A message for weights that are not those that are trained, else empty."""
    for part in ("parameters", "averages"):
        shapes = {name: tuple(value.shape) for name, value in state[part].items() if isinstance(value, Tensor)}
        mine = {name: tuple(value.shape) for name, value in parameters.items()}
        for name in sorted(shapes.keys() | mine.keys()):
            if shapes.get(name) != mine.get(name):
                return (
                    f"{path.parent} holds a run that trains other weights: {name} is {shapes.get(name, 'not there')} "
                    f"in the run, {mine.get(name, 'not there')} here. Give its host, or choose another folder"
                )
    return ""


def _check_finite(state: Mapping[str, Any]) -> None:
    for part in ("parameters", "averages", "optimizers"):
        if not all(bool(torch.isfinite(value).all()) for value in floats(state.get(part))):
            raise ValueError(f"its {part} hold NaN or infinite values")


def _say(level: int, text: str) -> None:
    if is_main():
        _LOG.log(level, "%s", text)


def floats(value: Any) -> Iterator[Tensor]:
    """The tensors of real numbers inside of nested dicts and lists, and of tensors that are made of others (8 bits)."""
    if hasattr(value, "__tensor_flatten__") and not hasattr(value, "to_local"):
        yield from floats([getattr(value, name) for name in value.__tensor_flatten__()[0]])
    elif isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.dequantize() if hasattr(value, "codes") else value  # torchao's moments of 8 bits
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from floats(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from floats(each)


def _defaults(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(cls) if field.default is not MISSING}
