"""Every reader of a file that may come from elsewhere: a good file, and what reading it means."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from memory_encoder.damage import DAMAGE
from memory_encoder.digests import section_key
from memory_encoder.files import save_tensors
from memory_encoder.film.opening import stored_film
from memory_encoder.film.sections import SectionStore
from memory_encoder.injection.hosts.encoder_file import load_encoder, read_config, read_encoder, read_trained_on
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.keyframe_memory import KeyframeMemory
from memory_encoder.memory.memory_file import load_memory
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.storyboard import StoryboardError, read_storyboard
from memory_encoder.training.checkpoints import Checkpoints, Unusable, settings_of
from memory_encoder.training.dataset.captions import captions_of, read_folder_captions
from memory_encoder.training.dataset.clips import file_hash
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.index import Findings
from memory_encoder.training.dataset.settings import DatasetError, LatentSpace
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.run_files import encoder_file, facts_of, read_lora, read_losses
from tests.unit.dataset_clips import cache, counting

from .mutation import Mutation, any_bytes, json_lines, json_text, pickled, tensor_file

MOST_CHARACTERS = 1500  # of any message
CONFIG = EncoderConfig("wan", 16, 4, channels=(8, 8, 8, 8), heads=2)
KEY = section_key("", {})
OPTIONS = TrainOptions(steps=4)


@dataclass(frozen=True)
class Loader:
    """make: writes good files into a folder and returns the one to damage. load: reads it from there.

    of_file: a refusal names the file.
    """

    name: str
    make: Callable[[Path], Path]
    load: Callable[[Path], Any]
    mutate: Mutation
    errors: tuple[type[Exception], ...] = (ValueError,)
    of_file: bool = True


def outcome(loader: Loader, path: Path, good: bytes, random: Random) -> tuple[str, str]:
    """What becomes of one damage: "loaded", "refused" with the message, or "raw" with the exception that got out."""
    path.write_bytes(loader.mutate(good, random))
    try:
        loader.load(path)
    except (UnicodeError, json.JSONDecodeError) as error:  # ValueErrors too, but nobody's words
        return "raw", repr(error)[:300]
    except loader.errors as error:
        text = str(error)
        named = path.name in text or path.parent.name in text or not loader.of_file
        return ("refused", text) if named and len(text) <= MOST_CHARACTERS else ("raw", f"message: {text[:300]}")
    except OSError as error:
        return ("refused", str(error)) if path.name in str(error) else ("raw", repr(error)[:300])
    except (*DAMAGE, MemoryError) as error:
        return "raw", repr(error)[:300]
    return "loaded", ""


def _encoder(folder: Path) -> Path:
    encoder = MemoryEncoder(CONFIG, dtype=torch.float32)
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    encoder_file(encoder, {"run": "a", "stage": "retrieval"}).write(folder / "encoder.safetensors")
    return folder / "encoder.safetensors"


def _memory(folder: Path) -> Path:
    encoder = MemoryEncoder(
        EncoderConfig("wan", 16, 4, variant="without_lr", channels=(8, 8, 8, 8), heads=2), dtype=torch.float32
    )
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    memory, codec = VideoMemory.empty(encoder.config), None
    for latents in (3, 2):
        with torch.no_grad():
            piece = torch.randn(1, 4, latents, 4, 4, generator=torch.Generator().manual_seed(latents))
            memory = append_history(encoder, codec, memory, piece, "a cat", 3)  # type: ignore[arg-type]
    memory.save(folder / "memory.safetensors")
    return folder / "memory.safetensors"


def _keyframes(folder: Path) -> Path:
    config = EncoderConfig("wan", 16, 4, variant="keyframes", clips="section", repeated_frames=1)
    pictures = torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    KeyframeMemory(config).appended(pictures, 2, (2, 2), "a cat", 3).save(folder / "pictures.safetensors")
    return folder / "pictures.safetensors"


def _use_memory(path: Path) -> None:
    memory = load_memory(path)
    if isinstance(memory, VideoMemory):
        _ = memory.all_tokens(), memory.all_coordinates(), memory.latents, memory.frames, memory.boundaries_with_end()
    else:
        _ = memory.bank(), memory.closing(1), memory.token_count, memory.contents()


def _section(folder: Path) -> Path:
    return SectionStore(folder, "film").put(KEY, 0, {"latents": torch.ones(1, 4, 2, 4, 4)}, {"prompt": "a cat"})


def _manifest(folder: Path) -> Path:
    store = SectionStore(folder, "film")
    facts = {"status": "stored", "latents": 2, "frames": 5, "fps": 16.0, "width": 32, "height": 32, "chain": "b"}
    records = [{"index": i, "key": KEY, "prompt": "a cat", "previous": "b" * i, **facts} for i in range(2)]
    return store.write_manifest(records)


def _use_film(path: Path) -> None:
    film = stored_film(path.parent.parent, path.parent.name)
    _ = film.fact("fps"), len(film.records), film.opening()


def _dataset(folder: Path) -> Path:
    tensors = {"hr": torch.zeros(4, 3, 4, 4), "lr.2x2x2": torch.zeros(4, 2, 2, 2)}
    (folder / "shards").mkdir(parents=True)
    save_tensors(tensors, folder / "shards" / "a.safetensors", {})
    findings = Findings()
    findings.clip(0, "a.mp4", "train", None)
    findings.window(0, 0.0, (3, 4, 4), "shards/a.safetensors", file_hash(folder / "shards" / "a.safetensors"))
    findings.skip(1, "b.mp4", "too short")
    space = asdict(LatentSpace("wan", "Wan21", "vae", 4, 4, 8, (1, 2, 2), 5, None))
    head = {
        "format": "video_memory_dataset", "schema_version": 2, "space": space, "text_encoder": "none",
        "settings": {"rates": ["2x2x2"], "padding": "ceil", "fps": 8.0},
        "windows": findings.write_index(folder, "index"),
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(head))
    return folder / "index.json"


def _database(folder: Path) -> Path:
    return next(_dataset(folder).parent.glob("*.sqlite"))


def _shard(folder: Path) -> Path:
    return _dataset(folder).parent / "shards" / "a.safetensors"


def _use_dataset(folder: Path) -> None:
    dataset = MemoryDataset.open(folder)
    _ = dataset.skipped, dataset.sources, dataset.clips, dataset.identity
    for index in range(min(len(dataset), 3)):
        _ = dataset.sample(index)
    if len(dataset):
        _ = dataset.largest


def _changed_database(content: bytes, random: Random) -> bytes:
    """The database with other bytes, or with another value in one column of one table."""
    if random.randrange(2):
        return any_bytes(content, random)
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content)  # type: ignore[attr-defined]
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = random.choice(tables)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    value = random.choice([None, -1, 0, 2**40, 0.5, "", "x" * 3000, b"", b"\xff" * 40, "../../etc/passwd"])
    try:
        connection.execute(f"UPDATE {table} SET {random.choice(columns)} = ?", (value,))
        if random.randrange(6) == 0:
            connection.execute(f"DROP TABLE {random.choice(tables)}")
        connection.commit()
    except sqlite3.Error:
        return content
    return connection.serialize()  # type: ignore[attr-defined]


def _record(folder: Path) -> Path:
    """What a cache wrote of a clip, for the next one."""
    counting(folder / "clips" / "a.mp4", 17)
    cache(folder / "clips", folder / "out")
    return next((folder / "out" / "clips").glob("*.json"))


def _use_record(path: Path) -> None:
    cache(path.parents[2] / "clips", path.parents[1])


def _lora(folder: Path) -> Path:
    weights = {f"diffusion_model.blocks.0.q.lora_{part}.weight": torch.ones(4, 4) for part in "AB"}
    save_tensors(weights, folder / "lora.safetensors", {"format": "pt", "training": json.dumps({"run": "a"})})
    return folder / "lora.safetensors"


def _use_lora(path: Path) -> None:
    _ = facts_of(path)
    read_lora(path)


PARAMETERS = {"a": torch.ones(2, 2), "b": torch.ones(3)}


def checkpoint_state(step: int) -> dict[str, Any]:
    """What a run of two parameters saves."""
    return {
        "step": step, "run": "a", "best": None, "skipped": 0, "parameters": dict(PARAMETERS),
        "averages": dict(PARAMETERS),
        "optimizers": [{"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 0.1}]}],
    } | settings_of(OPTIONS, [CONFIG], "data", {})  # fmt: skip


def _checkpoint(folder: Path) -> Path:
    Checkpoints(folder, 2).save(checkpoint_state(2))
    return next(folder.glob("checkpoint-*.pt"))


def _use_checkpoint(path: Path) -> None:
    Checkpoints(path.parent, 2).newest(settings_of(OPTIONS, [CONFIG], "data", {}), PARAMETERS)


def _losses(folder: Path) -> Path:
    (folder / "losses.jsonl").write_text("".join(json.dumps({"step": n, "loss": 0.5}) + "\n" for n in range(3)))
    return folder / "losses.jsonl"


def _storyboard(folder: Path) -> Path:
    shots = [{"start": 0, "end": 2, "prompt": "a cat"}, {"start": 2, "end": 4, "prompt": "a dog", "seed": 3}]
    (folder / "story.json").write_text(
        json.dumps({"version": 1, "shots": shots, "cast": [{"name": "Anna", "look": "a woman"}]})
    )
    return folder / "story.json"


def _use_storyboard(path: Path) -> None:
    read_storyboard(path.read_bytes().decode("utf-8", "replace"), section_seconds=2, fps=16)


def _captions(folder: Path) -> Path:
    (folder / "clips").mkdir()
    entries = {"a.mp4": "a cat", "b.mp4": {"shots": [{"start": 0, "prompt": "a dog"}]}}
    (folder / "clips" / "captions.json").write_text(json.dumps(entries))
    return folder / "clips" / "captions.json"


def _use_captions(path: Path) -> None:
    found = read_folder_captions(path.parent)
    for name in ("a.mp4", "b.mp4"):
        captions_of(name, found, 2, 16)


LOADERS = (
    Loader("encoder", _encoder, read_encoder, tensor_file),
    Loader("encoder's module", _encoder, load_encoder, tensor_file),
    Loader("encoder's config", _encoder, lambda path: (read_config(path), read_trained_on(path)), tensor_file),
    Loader("memory", _memory, _use_memory, tensor_file),
    Loader("memory of pictures", _keyframes, _use_memory, tensor_file),
    Loader("section", _section, lambda path: SectionStore(path.parent.parent, "film").get(KEY), tensor_file),
    Loader("manifest", _manifest, _use_film, json_text),
    Loader("dataset's head", _dataset, lambda path: _use_dataset(path.parent), json_text, (DatasetError,)),
    Loader("dataset's index", _database, lambda path: _use_dataset(path.parent), _changed_database, (DatasetError,)),
    Loader("shard", _shard, lambda path: _use_dataset(path.parent.parent), tensor_file, (DatasetError,)),
    Loader("clip's record", _record, _use_record, json_text, (DatasetError,)),
    Loader("lora", _lora, _use_lora, tensor_file),
    Loader("checkpoint", _checkpoint, _use_checkpoint, pickled, (ValueError, Unusable)),
    Loader("losses", _losses, read_losses, json_lines),
    Loader("storyboard", _storyboard, _use_storyboard, json_text, (StoryboardError,), of_file=False),
    Loader("captions", _captions, _use_captions, json_text, (DatasetError,)),
)
