"""What a run leaves on disk: checkpoints to go on from, and the encoder and LoRA files that people use."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..damage import DamagedFileError, check_finite, damage_named, read_header, read_tensors, shortened
from ..files import is_plain, read_plain, save_tensors, unwritable, write_bytes
from ..locks import BusyError, alone
from ..phi.encoder import MemoryEncoder
from ..phi.trained_on import TrainedOn
from .distributed.shards import gathered, is_main
from .lora import lora_state

CHECKPOINT, LOSSES, BEST = "checkpoint.pt", "losses.jsonl", "best"
PACE, HELD_OUT, TRAINED = "pace.jsonl", "heldout.txt", "trained.txt"
MOST_TRAINED, SHOWN = 100_000, 8  # clips whose names are kept, and in a line
LOSS_PICTURE, RECALL_PICTURE = "loss.png", "recalled.png"
ENCODER, LORA, HOST = "encoder.safetensors", "lora.safetensors", "host.safetensors"
LOCK = ".lock"  # there while a run trains; says by whom
_NUMBER = re.compile(r"checkpoint-(\d+)\.pt")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While it is open nobody else trains in this folder; raises BusyError that names the folder and who does."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(folder / LOCK))
        except BusyError as error:
            raise BusyError(
                f"the run in {folder} is being trained by {error}; wait for it, end it, or give another folder"
            ) from error
        yield


def checkpoint_name(step: int) -> str:
    """File of the state after so many steps."""
    return CHECKPOINT.replace(".", f"-{step:06}.")


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first; one of version 0.1.0 had no number, and comes last."""
    numbers = {path: _NUMBER.fullmatch(path.name) for path in folder.glob("checkpoint*.pt")}
    named = [path for path, number in numbers.items() if number or path.name == CHECKPOINT]
    return sorted(named, key=lambda path: -1 if (number := numbers[path]) is None else int(number[1]), reverse=True)


def encoder_name(number: int) -> str:
    """File of a run's encoder number 1, 2, ..."""
    return ENCODER if number == 1 else ENCODER.replace(".", f"_{number}.")


@dataclass(frozen=True)
class TensorFile:
    """What a file will hold: whole tensors, in the main process, and metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @classmethod
    def of_run(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], facts: Mapping[str, Any]) -> TensorFile:
        """Where tensors are split over processes, all must call it. facts: stage, steps, ..., of the run."""
        return cls(gathered(tensors), {**metadata, "training": json.dumps(dict(facts))})

    def write(self, path: Path) -> None:
        """Writes it in the main process."""
        if is_main():
            save_tensors(self.tensors, path, self.metadata)


def encoder_file(encoder: MemoryEncoder, facts: Mapping[str, Any], trained_on: TrainedOn | None = None) -> TensorFile:
    """An encoder file that Load Memory Encoder reads."""
    said = {} if trained_on is None else trained_on.to_metadata()
    return TensorFile.of_run(encoder.state_dict(), encoder.config.to_metadata() | said, facts)


def lora_file(diffusion_model: nn.Module, facts: Mapping[str, Any]) -> TensorFile:
    """The LoRA under core's keys, float32."""
    return TensorFile.of_run(lora_state(diffusion_model), {"format": "pt"}, facts)


def host_file(diffusion_model: nn.Module, metadata: Mapping[str, str], facts: Mapping[str, Any]) -> TensorFile:
    """A host that was trained itself; `metadata` is what core read from the file it came from."""
    return TensorFile.of_run(diffusion_model.state_dict(), metadata, facts)


def read_lora(path: Path) -> dict[str, Tensor]:
    """A LoRA written by `save_lora`. Raises DamagedFileError that names the file, OSError when it cannot be read."""
    with damage_named(path, "lora", "give a LoRA that this pack has trained"):
        tensors, _ = read_tensors(path)
        for name, value in tensors.items():
            check_finite(shortened(name, 100), value)
        return {name: value.float() for name, value in tensors.items()}


def facts_of(path: Path) -> dict[str, Any]:
    """What a run wrote about itself into an encoder, LoRA or host; empty for any other file, and for none."""
    try:
        with damage_named(path, "file", ""):
            facts = json.loads(read_header(path)[1].get("training", "null"))
    except (DamagedFileError, OSError):
        return {}
    return facts if isinstance(facts, dict) else {}


def run_of(path: Path) -> str | None:
    """What tells the run that wrote an encoder or LoRA from all others; None for any other file."""
    return facts_of(path).get("run")


def published_files(folder: Path, name: str, encoders: int) -> dict[str, dict[str, Path]]:
    """What a run has to offer: by "encoders" and "loras" its files, by the names that they have beside others'.

    The last ones are called by the run's name, further encoders NAME_2 and so on, and those with the lowest held-out
    loss NAME_best, NAME_best_2.
    """
    found: dict[str, dict[str, Path]] = {"encoders": {}, "loras": {}}
    own = run_of(folder / LORA)
    for place, called in ((folder, name), (folder / BEST, f"{name}_best")):
        if place != folder and (own is None or run_of(place / LORA) != own):
            continue  # no clip is held out, or they are of an earlier run of this folder
        for file in map(encoder_name, range(1, encoders + 1)):
            found["encoders"][file.replace("encoder", called, 1)] = place / file
        found["loras"][LORA.replace("lora", called, 1)] = place / LORA
    return found


def not_a_pair(encoder: Path, lora: Path) -> str | None:
    """What an encoder and a LoRA say of themselves where they were not trained together, or were not saved together;
    None where they were, and where one does not say."""
    one, two = facts_of(encoder), facts_of(lora)
    if not one.get("run") or not two.get("run"):
        return None
    if one["run"] != two["run"]:
        return (
            f"{encoder.name} and {lora.name} are of two training runs: take the LoRA that was trained with the encoder"
        )
    if one.get("steps") != two.get("steps"):
        return (
            f"{encoder.name} is of step {one.get('steps')} of its run and {lora.name} of step {two.get('steps')}: take "
            "both of one step"
        )
    return None


def names_in_line(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> None:
    """Writes names, a line each, into files of a run's folder."""
    for file, names in lists.items():
        write_bytes(folder / file, "".join(f"{name}\n" for name in names).encode())


def clips_trained_on(encoder: Path) -> set[str]:
    """Names of the clips that the run trained on in whose folder an encoder lies; empty where that is not known."""
    folder = encoder.parent.parent if encoder.parent.name == BEST else encoder.parent
    path = folder / TRAINED
    return set(read_plain(path).decode(errors="replace").splitlines()) if is_plain(path) else set()


def begun_with(folder: Path) -> dict[str, Any]:
    """The options of the run in a folder, as `TrainOptions.that_shape_the_run` gave them; empty where there is none."""
    facts = facts_of(folder / ENCODER) if checkpoints_in(folder) else {}
    return {name: value for name, value in facts.items() if name != "steps"}  # there it is how many were done


class LossLog:
    """One JSON line per step; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, from_step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = [entry for entry in read_losses(path) if entry["step"] < from_step]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        write_bytes(path, text.encode())

    def add(self, **entry: Any) -> None:
        """Appends an entry and keeps it; the line is on disk when this returns. Raises OSError that names the file."""
        self.entries.append(entry)
        self.append(self.path, entry)

    @staticmethod
    def append(path: Path, entry: Mapping[str, Any]) -> None:
        """Adds a line to a log that nobody keeps in memory."""
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(entry)) + "\n")
        except OSError as error:
            raise unwritable(path, error) from error


def read_losses(path: Path) -> list[dict[str, Any]]:
    """Entries of a loss log with a step and finite values; a last line that a crash cut short is left out."""
    entries = []
    for line in read_plain(path).splitlines() if is_plain(path) else []:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        finite = isinstance(entry, dict) and all(math.isfinite(v) for v in entry.values() if isinstance(v, float))
        if finite and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def points_of(entries: list[Any], name: str) -> list[list[float]]:
    """Points [step, value] of the entries that have `name`; what is not a finite number has no place on a curve."""
    points = [[entry.get("step"), entry[name]] for entry in entries if isinstance(entry, dict) and name in entry]
    return [point for point in points if all(isinstance(n, (int, float)) and math.isfinite(n) for n in point)]
