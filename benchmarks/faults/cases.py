"""What is interrupted at every file operation: film, memory, checkpoint, dataset, movie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory_encoder.digests import content_digest
from memory_encoder.files import remove_abandoned
from memory_encoder.film.loop import Film, render_film
from memory_encoder.film.sections import SectionStore
from memory_encoder.memory.compressor import append_history
from memory_encoder.memory.memory_file import load_memory
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.pictures.movie import write_movie
from memory_encoder.storyboard import Section, parse_storyboard, plan_sections
from memory_encoder.training.checkpoints import Checkpoints
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.run_files import ENCODER, LOSSES, LossLog, encoder_file, read_losses
from tests.unit.dataset_clips import cache, counting

from .loaders import PARAMETERS, checkpoint_state
from .watching import Case

CONFIG = EncoderConfig("wan", 16, 4, variant="without_lr", channels=(8, 8, 8, 8), heads=2)


class World:
    """Samples noise that follows from the seed, and counts it; stop_at: a section at which it is cancelled."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.encoder = MemoryEncoder(CONFIG, dtype=torch.float32).requires_grad_(False)
        self.encoder.reset_parameters(torch.Generator().manual_seed(0))
        self.stop_at, self.sampled = stop_at, []

    def sample(self, section: Section, seed: int, memory: VideoMemory) -> Tensor:
        if section.index == self.stop_at:
            raise KeyboardInterrupt
        self.sampled.append(section.index)
        generator = torch.Generator().manual_seed(seed % 2**31)
        return torch.randn(1, 4, section.latents, 4, 4, generator=generator) + memory.all_tokens().sum() * 1e-3

    def append(self, memory: VideoMemory, latents: Tensor, section: Section, seed: int) -> VideoMemory:
        return append_history(self.encoder, None, memory, latents, section.prompt, seed)  # type: ignore[arg-type]

    def section_done(self, section: Section, latents: Tensor, reused: bool) -> None:
        pass


def plan(sections: int) -> tuple[Section, ...]:
    shots = [{"start": n, "end": n + 1, "prompt": f"shot {n}"} for n in range(sections)]
    text = json.dumps({"version": 1, "shots": shots})
    return plan_sections(parse_storyboard(text, section_seconds=1), fps=8, section_seconds=1)


def film(folder: Path, world: World | None = None, sections: int = 2, name: str = "film") -> Film:
    memory = VideoMemory.empty(CONFIG)
    return render_film(plan(sections), SectionStore(folder, name), memory, {"cfg": 1.0}, 7, world or World())


def _film_after(folder: Path, sections: int = 2) -> Any:
    there = {int(path.name[8:12]) for path in folder.glob("film/section_*.safetensors")}
    world = World()
    made = film(folder, world, sections)
    assert not there & set(world.sampled), f"sections {there} were there, and {world.sampled} were made anew"
    keys = [entry.key for entry in made.sections]
    manifest = [record["key"] for record in SectionStore(folder, "film").manifest()]
    assert keys == manifest, "the manifest does not name them"
    return keys, content_digest({str(n): one for n, one in enumerate(made.latents)}, {}), contents(made.memory)


def contents(memory: VideoMemory) -> str:
    return content_digest({"tokens": memory.all_tokens(), "places": memory.all_coordinates()}, {})


def memory_of(seed: int) -> VideoMemory:
    generator = torch.Generator().manual_seed(seed)
    memory = VideoMemory.empty(CONFIG)
    return append_history(World().encoder, None, memory, torch.randn(1, 4, 3, 4, 4, generator=generator))  # type: ignore[arg-type]


def _memory_after(folder: Path) -> Any:
    found = contents(load_memory(folder / "film.safetensors"))  # type: ignore[arg-type]
    assert found in (contents(memory_of(1)), contents(memory_of(2))), "neither the old one nor the new one"
    memory_of(2).save(folder / "film.safetensors")
    return contents(load_memory(folder / "film.safetensors"))  # type: ignore[arg-type]


def _train(folder: Path) -> int:
    """A run of four steps as the trainer leaves it on disk; goes on from what is there, and returns from where."""
    folder.mkdir(exist_ok=True)
    remove_abandoned(folder)
    checkpoints = Checkpoints(folder, 2)
    state = checkpoints.newest(checkpoint_state(0), PARAMETERS)
    first = 0 if state is None else state["step"]
    log = LossLog(folder / LOSSES, first)
    for step in range(first, 4):
        log.add(step=step, loss=1 / (step + 1))
        if step % 2:
            checkpoints.save(checkpoint_state(step + 1))
            encoder_file(World().encoder, {"run": "a", "steps": step + 1}).write(folder / ENCODER)
    return first


def _train_after(folder: Path) -> Any:
    saved = [int(path.stem[-6:]) for path in folder.glob("run/checkpoint-*.pt")]
    assert _train(folder / "run") == max(saved, default=0), "it went on from an earlier step than it could"
    return [entry["loss"] for entry in read_losses(folder / "run" / LOSSES)], (folder / "run" / ENCODER).stat().st_size


def _clips(folder: Path) -> None:
    counting(folder / "clips" / "a.mp4", 17)
    (folder / "clips" / "a.txt").write_text("a caption")


def _dataset(folder: Path) -> Any:
    return cache(folder / "clips", folder / "out")


def _dataset_after(folder: Path) -> Any:
    _dataset(folder)
    dataset = MemoryDataset.open(folder / "out")
    sample = dataset[0]
    digest = content_digest({"hr": sample.hr} | {f"lr {rate}": value for rate, value in sample.lr.items()}, {})
    return len(dataset), digest, sample.prompt


def _movie(folder: Path) -> None:
    write_movie(folder / "film.mp4", iter([torch.zeros(2, 32, 32, 3)]), 8, 23)


def _movie_after(folder: Path) -> bool:
    there = folder / "film.mp4"
    assert not there.exists() or b"moov" in there.read_bytes(), "half a movie under its name"
    _movie(folder)
    return b"moov" in there.read_bytes()


CASES = (
    Case("film", film, _film_after),
    Case(
        "memory saved over an older one",
        lambda folder: memory_of(2).save(folder / "film.safetensors"),
        _memory_after,
        lambda folder: memory_of(1).save(folder / "film.safetensors"),
    ),
    Case("checkpoint, losses and encoder", lambda folder: _train(folder / "run"), _train_after),
    Case("dataset", _dataset, _dataset_after, _clips),
    Case("movie", _movie, _movie_after),
)
LONGER = (  # for the command alone
    Case(
        "film of five sections",
        lambda folder: film(folder, sections=5),
        lambda folder: _film_after(folder, sections=5),
    ),
)
