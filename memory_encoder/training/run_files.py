"""What a run leaves on disk: checkpoints to go on from, and the encoder and LoRA files that people use."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..files import save_tensors, write_atomically, write_bytes
from ..phi.config import EncoderConfig
from ..phi.encoder import MemoryEncoder
from .distributed.shards import gathered, is_main
from .lora import lora_state
from .options import EARLIER, TrainOptions

CHECKPOINT, LOSSES = "checkpoint.pt", "losses.jsonl"
LOSS_PICTURE, RECALL_PICTURE = "loss.png", "recalled.png"
ENCODER, LORA, HOST = "encoder.safetensors", "lora.safetensors", "host.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state of a run; a crash meanwhile leaves the earlier one."""
    write_atomically(folder / CHECKPOINT, lambda path: torch.save(state, path))


def encoder_name(number: int) -> str:
    """File of a run's encoder number 1, 2, ..."""
    return ENCODER if number == 1 else ENCODER.replace(".", f"_{number}.")


def load_checkpoint(
    folder: Path, options: TrainOptions, config: EncoderConfig, *others: EncoderConfig
) -> dict[str, Any] | None:
    """The last state, or None when there is none.

    Raises ValueError that names the file when it is damaged or belongs to a run with other settings.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete it to begin anew") from error
    # What an earlier version did not know yet is at its default there.
    theirs = {
        "options": TrainOptions().that_shape_the_run() | EARLIER | state.get("options", {}),
        "config": _defaults(EncoderConfig) | state.get("config", {}),
        "others": [_defaults(EncoderConfig) | other for other in state.get("others", [])],
    }
    mine = {
        "options": options.that_shape_the_run(),
        "config": asdict(config),
        "others": [asdict(other) for other in others],
    }
    for part, value in mine.items():
        if theirs[part] != value:
            raise ValueError(
                f"{path} belongs to a run with other settings ({part}); choose another folder or delete it"
            )
    return state


def _defaults(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(cls) if field.default is not MISSING}


def save_encoder(path: Path, encoder: MemoryEncoder, facts: dict[str, Any]) -> None:
    """Writes an encoder file that Load Memory Encoder reads; `facts` (stage, steps, ...) go into its metadata."""
    _save(encoder.state_dict(), path, encoder.config.to_metadata() | {"training": json.dumps(facts)})


def save_lora(path: Path, diffusion_model: nn.Module, facts: dict[str, Any]) -> None:
    """Writes the LoRA under core's keys, float32."""
    _save(lora_state(diffusion_model), path, {"format": "pt", "training": json.dumps(facts)})


def read_lora(path: Path) -> dict[str, Tensor]:
    """A LoRA written by `save_lora`. Raises ValueError that names the file when it cannot be read."""
    try:
        return {name: value.float() for name, value in safetensors.torch.load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"lora {path} cannot be read ({error}); give a LoRA that this pack has trained") from error


def facts_of(path: Path) -> dict[str, Any]:
    """What a run wrote about itself into an encoder, LoRA or host; empty for any other file, and for none."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("training", "null"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def run_of(path: Path) -> str | None:
    """What tells the run that wrote an encoder or LoRA from all others; None for any other file."""
    return facts_of(path).get("run")


def begun_with(folder: Path) -> dict[str, Any]:
    """The options of the run in a folder, as `TrainOptions.that_shape_the_run` gave them; empty where there is none."""
    return facts_of(folder / ENCODER) if (folder / CHECKPOINT).is_file() else {}


def save_host(path: Path, diffusion_model: nn.Module, metadata: dict[str, str], facts: dict[str, Any]) -> None:
    """Writes a host that was trained itself; `metadata` is what core read from the file it came from."""
    _save(diffusion_model.state_dict(), path, metadata | {"training": json.dumps(facts)})


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes whole tensors from the main process; where they are split, all processes must call it."""
    whole = gathered(tensors)
    if is_main():
        save_tensors(whole, path, metadata)


class LossLog:
    """One JSON line per step; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, from_step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = [entry for entry in read_losses(path) if entry["step"] < from_step]
        text = "".join(json.dumps(entry) + "\n" for entry in self.entries)
        write_bytes(path, text.encode())

    def add(self, **entry: Any) -> None:
        """Appends an entry and keeps it; the line is on disk when this returns."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_losses(path: Path) -> list[dict[str, Any]]:
    """Entries of a loss log; a last line that a crash cut short is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
