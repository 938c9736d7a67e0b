"""What a large dataset costs a run, and what batches made ahead save: `python -m benchmarks.data --out RESULT.json`.

The index of millions of clips is made without their files: time to open, time of a draw and of finding its windows,
and the memory of a process that does it. Batches: a small dataset of 20 s windows on disk, read beside a step that
only waits, as a CPU waits for a card. Packed: LitData's part of a dataset of millions of windows in large files, of
which only those are there that are drawn; where LitData is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from memory_encoder.files import save_tensors
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.training.dataset.cache import FORMAT, SCHEMA_VERSION
from memory_encoder.training.dataset.clips import file_hash
from memory_encoder.training.dataset.dataset import MemoryDataset
from memory_encoder.training.dataset.index import Findings
from memory_encoder.training.dataset.pack import CHUNK_MIB
from memory_encoder.training.dataset.packed import Chunks
from memory_encoder.training.dataset.settings import INDEX, LatentSpace
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.prefetch import Prefetch
from memory_encoder.training.source import DatasetBatches
from tools.machine import load_average, processor

SPACE = LatentSpace("wan", "Wan21", "none", 16, 4, 8, (1, 2, 2), 64, None)
SHAPES = ((100, 60, 104), (100, 104, 60), (100, 78, 78), (75, 60, 104), (50, 60, 104), (25, 60, 104))
_COUNT = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
CLIPS = f"""{_COUNT} INSERT INTO found_clips SELECT i, printf('part_%03d/clip_%08d.mp4', i % 1000, i),
    CASE WHEN i % 10 = 0 THEN 'heldout' ELSE 'train' END, 60.0, printf('{{"version": 1, "shots": [{{"start": 0,
    "prompt": "someone does thing number %d in a place described in words"}}]}}', i), 1.0, '[]', 2 FROM n"""
_SIZES = ", ".join(
    f"CASE (i * 7 + {{shift}}) % {len(SHAPES)} "
    + " ".join(f"WHEN {n} THEN {v[axis]}" for n, v in enumerate(SHAPES))
    + " END"
    for axis in range(3)
)
WINDOWS = f"""{_COUNT} INSERT INTO found_windows SELECT i, {{start}}, {_SIZES},
    printf('shards/%03d/clip_%08d_%d.safetensors', i % 1000, i, {{start}}), zeroblob(32), 1 FROM n"""
STEP_SECONDS = (0.2, 0.5, 1.0)
BATCH, BATCHES = 4, 12
WINDOW_BYTES = 24_000_000  # of 25 seconds at 832x480


def write_dataset(folder: Path, findings: Findings, rates: tuple[str, ...]) -> None:
    """The files of an index."""
    head = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "settings": {"rates": rates, "padding": "ceil", "fps": 16.0},
        "space": vars(SPACE),
        "text_encoder": "none",
        "windows": findings.write_index(folder, "index"),
    }
    (folder / INDEX).write_text(json.dumps(head))


def simulate(folder: Path, clips: int) -> dict[str, float]:
    """Writes the index of so many clips with two windows each."""
    started = time.perf_counter()
    findings = Findings()
    for statement in (CLIPS, *(WINDOWS.format(start=start, shift=shift) for shift, start in enumerate((0.0, 25.0)))):
        findings.connection.execute(statement, (clips,))
    findings.text("", "texts/empty.safetensors", "0" * 64)
    write_dataset(folder, findings, ())
    [table] = folder.glob("index-*.sqlite")
    return {"write_seconds": time.perf_counter() - started, "table_gb": table.stat().st_size / 1e9}


def use(folder: Path, draws: int = 200) -> dict[str, float]:
    """Opens a dataset and draws batches of 8; to be run in a process of its own, whose memory is measured."""
    before = _memory()
    started = time.perf_counter()
    dataset = MemoryDataset.open(folder)
    train = dataset.split("train")
    opened = time.perf_counter()
    names, _, _ = dataset.split("heldout").sources, train.clips, train.identity  # what a run asks before its first step
    started_run = time.perf_counter()
    times, finding = [], []
    for step in range(draws):
        begin = time.perf_counter()
        chosen = train.draw(8, torch.Generator().manual_seed(step))
        drawn = time.perf_counter()
        for index in chosen:
            first, bucket = train._bucket(index)
            train.index.window(bucket, index - first)
        times.append(drawn - begin)
        finding.append(time.perf_counter() - drawn)
    return {
        "windows": len(train),
        "held_out_clips": len(names),
        "open_ms": 1000 * (opened - started),
        "start_seconds": started_run - opened,
        "draw_ms": 1000 * statistics.median(times),
        "find_8_windows_ms": 1000 * statistics.median(finding),
        "memory_grown_mb": (_memory() - before) / 1e6,
    }


def _memory() -> int:
    """Bytes of RAM that this process has (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prefetch(folder: Path) -> list[dict[str, float]]:
    """Samples a second with batches made in turn and ahead, beside a step that waits."""
    findings, config = Findings(), EncoderConfig("wan", 64, 16, rate="4x4x2", variant="only_lr")
    for clip in range(2 * BATCH):
        generator = torch.Generator().manual_seed(clip)
        tensors = {"hr": torch.randn(16, 100, 60, 104, generator=generator).half()}
        tensors["lr.4x4x2"] = torch.randn(16, 51, 16, 26, generator=generator).half()
        path = folder / f"{clip}.safetensors"
        save_tensors(tensors, path, {})
        findings.clip(clip, path.name, "train", None)
        findings.window(clip, 0.0, (100, 60, 104), path.name, file_hash(path))
    text = folder / "empty.safetensors"
    save_tensors({"cross_attn": torch.zeros(1, 1, 64)}, text, {})
    findings.text("", text.name, file_hash(text))
    write_dataset(folder, findings, ("4x4x2",))
    source = DatasetBatches(MemoryDataset.open(folder), config, TrainOptions(stage="retrieval", batch_size=BATCH))

    def batch(step: int) -> Any:
        return source.rows(step, 0, BATCH, "train", lambda frames, row: (0, frames))

    results = []
    for seconds in STEP_SECONDS:
        ahead = Prefetch(batch, BATCHES)
        rates = {name: _rate(make, seconds) for name, make in (("in_turn", batch), ("ahead", ahead), ("again", batch))}
        ahead.close()
        in_turn = (rates["in_turn"] + rates["again"]) / 2
        result = {
            "step_seconds": seconds,
            "in_turn": in_turn,
            "ahead": rates["ahead"],
            "ratio": rates["ahead"] / in_turn,
        }
        results.append({name: round(value, 3) for name, value in result.items()})
    return results


def packed(folder: Path, clips: int, draws: int = 20) -> dict[str, float]:
    """Time to open the large files of so many clips with two windows of 24 MB, and to read one of them."""
    from litdata.streaming.cache import Cache

    windows, each = 2 * clips, CHUNK_MIB * 2**20 // WINDOW_BYTES
    writer = Cache(str(folder), chunk_bytes=CHUNK_MIB << 20)
    for number in range(each):
        writer[number] = bytes(WINDOW_BYTES)
    writer.done()
    writer.merge(1)
    index = json.loads((folder / INDEX).read_text())
    [chunk] = index["chunks"]
    index["chunks"] = [chunk | {"filename": f"chunk-0-{number}.bin"} for number in range(windows // each)]
    chosen = torch.randint(windows // each * each, (draws,), generator=torch.Generator().manual_seed(0)).tolist()
    for number in {0, *(place // each for place in chosen)}:
        path = folder / f"chunk-0-{number}.bin"
        if not path.exists():
            path.hardlink_to(folder / chunk["filename"])
    (folder / INDEX).write_text(json.dumps(index))
    command = [sys.executable, "-m", "benchmarks.data", "--read", str(folder), "--places", *map(str, chosen)]
    used = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"clips": clips, "chunks": windows // each, **{name: round(value, 3) for name, value in used.items()}}


def read(folder: Path, places: list[int]) -> dict[str, float]:
    """Reads windows of a packed dataset; to be run in a process of its own, whose memory is measured."""
    chunks, before = Chunks(str(folder)), _memory()
    started = time.perf_counter()
    chunks("0")
    opened, times = time.perf_counter(), []
    for place in places:
        begin = time.perf_counter()
        chunks(str(place))
        times.append(time.perf_counter() - begin)
    grown = (_memory() - before) / 1e6
    return {
        "open_ms": 1000 * (opened - started), "read_ms": 1000 * statistics.median(times), "memory_grown_mb": grown
    }  # fmt: skip


def _rate(make: Callable[[int], Any], seconds: float) -> float:
    started = time.perf_counter()
    for step in range(BATCHES):
        make(step)
        time.sleep(seconds)  # a card computes
    return BATCHES * BATCH / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    parser.add_argument("--clips", type=int, nargs="+", default=[50_000, 5_000_000], help="of the simulated datasets")
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)  # the process that is measured
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--places", type=int, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--only-packed", action="store_true", help="the rest of the result stays")
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, args.places)))
        return
    if args.use:
        print(json.dumps(use(args.use)))
        return
    machine = {**processor(), "load_average": load_average(), "torch": torch.__version__}
    large: dict[str, Any] = {}
    if find_spec("litdata"):
        with tempfile.TemporaryDirectory() as folder:
            large = {"packed": {"machine": machine, **packed(Path(folder), max(args.clips))}}
        print(large, flush=True)
    if args.only_packed:
        args.out.write_text(json.dumps(json.loads(args.out.read_text()) | large, indent=1) + "\n")
        return
    index = []
    for clips in args.clips:
        with tempfile.TemporaryDirectory() as folder:
            written = simulate(Path(folder), clips)
            command = [sys.executable, "-m", "benchmarks.data", "--use", folder]
            used = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        index.append({"clips": clips} | {name: round(value, 3) for name, value in (written | used).items()})
        print(index[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        batches = prefetch(Path(folder))
    print(batches, flush=True)
    result = {"machine": machine, "index": index, "samples_per_second": batches, **large}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
