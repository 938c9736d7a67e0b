"""A dataset in large files is the dataset that was packed, to the bit, from a folder and from an address."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from memory_encoder.cli import main
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.training.dataset.cache import build_cache
from memory_encoder.training.dataset.dataset import CorruptShard, MemoryDataset
from memory_encoder.training.dataset.mixture import open_datasets
from memory_encoder.training.dataset.pack import pack
from memory_encoder.training.dataset.settings import DatasetError
from memory_encoder.training.dataset.text import TextEncoder
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.prefetch import Prefetch
from memory_encoder.training.source import DatasetBatches
from tests.unit.dataset_clips import SETTINGS, SPACE, CountingCodec, Words, counting

LESS = dataclasses.replace(SETTINGS, window_seconds=5.0)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    for number in range(4):
        counting(tmp_path / "clips" / f"{number}.mp4", 17 * (number + 1))
        (tmp_path / "clips" / f"{number}.txt").write_text("the same words" if number % 2 else f"clip {number}")
    build_cache(tmp_path / "clips", tmp_path / "data", SETTINGS, SPACE, CountingCodec().codec, TextEncoder("1", Words))
    return tmp_path / "data"


@pytest.fixture
def packed(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("litdata", reason="pip install litdata")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["pack", "--dataset", str(cached), "--out", str(tmp_path / "packed")]) == 0
    return tmp_path / "packed"


def batches(name: str) -> list[list[torch.Tensor]]:
    """A few batches of a run, made in threads as a run makes them."""
    config = EncoderConfig("wan", 64, 3, rate="2x2x2", variant="only_lr")
    data = open_datasets([name])
    source = DatasetBatches(data, config, TrainOptions(stage="retrieval", batch_size=3))
    ahead = Prefetch(lambda step: source.rows(step, 0, 3, "train", lambda frames, row: (0, frames)), 6)
    try:
        rows = [ahead(step) for step in range(6)]
    finally:
        ahead.close()
    return [[row.hr, *row.lr.values(), *map(torch.as_tensor, row.conditioning.values())] for row in rows]


class Storage(ThreadingHTTPServer):
    """A folder, as S3 answers for it; notes the names that it is asked for and how many bytes it gave."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.asked = folder, list[tuple[str, int]]()


class Answer(BaseHTTPRequestHandler):
    server: Storage

    def do_GET(self) -> None:
        path = self.server.folder / self.path.split("?")[0].removeprefix("/bucket/")
        if not path.is_file():
            return self.send_error(404)
        content = whole = path.read_bytes()
        if span := self.headers.get("Range"):
            first, last = span.removeprefix("bytes=").split("-")
            content = whole[int(first) : int(last or len(whole)) + 1]
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0"')
        self.end_headers()
        if self.command == "GET":
            self.server.asked.append((path.name, len(content)))
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def storage(packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    server = Storage(packed.parent)
    for name, value in (("ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def same(one: list[list[torch.Tensor]], two: list[list[torch.Tensor]]) -> bool:
    return all(torch.equal(a, b) for old, new in zip(one, two, strict=True) for a, b in zip(old, new, strict=True))


def test_batches_are_those_of_the_dataset_that_was_packed(cached: Path, packed: Path) -> None:
    assert same(batches(str(cached)), batches(str(packed)))
    first, second = (MemoryDataset.open(name).split("train") for name in (cached, packed))
    assert first.identity == second.identity and first.sources == second.sources
    assert first.content == second.content, "in other files"


def test_from_object_storage_they_are_the_same_and_only_their_own_bytes_are_fetched(
    cached: Path, packed: Path, storage: Storage
) -> None:
    assert same(batches(str(cached)), batches("s3://bucket/packed"))
    [chunk] = packed.glob("chunks/*.bin")
    fetched = [size for name, size in storage.asked if name == chunk.name]
    assert fetched and max(fetched) < chunk.stat().st_size / 2
    assert list(packed.parent.rglob("*.bin")) == [chunk]  # and nothing is kept
    tables = [name for name, _ in storage.asked if name.endswith(".sqlite")]
    batches("s3://bucket/packed:0.5")
    assert len(tables) == 1 and len([name for name, _ in storage.asked if name.endswith(".sqlite")]) == 1


def test_what_is_packed_anew_at_an_address_is_read_anew(packed: Path, storage: Storage, tmp_path: Path) -> None:
    address = "s3://bucket/packed"
    assert len(MemoryDataset.open(address)) == 10
    build_cache(tmp_path / "clips", tmp_path / "less", LESS, SPACE, CountingCodec().codec)
    shutil.rmtree(packed)
    pack(tmp_path / "less", packed)
    data = MemoryDataset.open(address)
    assert len(data) == 2 and all(
        torch.equal(a.hr, b.hr) for a, b in zip(data, MemoryDataset.open(packed), strict=True)
    )


def test_damage_is_named_and_what_cannot_be_reached_is_no_damage(packed: Path, storage: Storage) -> None:
    (chunk,) = packed.glob("chunks/*.bin")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(CorruptShard, match=r"chunks, item \d+, is corrupt .*; pack or copy"):
        list(MemoryDataset.open(packed))
    assert len([MemoryDataset.open(packed, "skip").sample(index) for index in range(10)]) == 10
    chunk.unlink()
    for source in (packed, "s3://bucket/packed"):
        data = MemoryDataset.open(source, "skip")
        with pytest.raises(DatasetError, match=r"item 0 of .*chunks cannot be read") as error:
            data.sample(0)
        assert not isinstance(error.value, CorruptShard)
    with pytest.raises(DatasetError, match=r"s3://bucket/no cannot be opened as a dataset .*; check address"):
        MemoryDataset.open("s3://bucket/no")
    with pytest.raises(DatasetError, match="s3://bucket/data is not packed"):
        MemoryDataset.open("s3://bucket/data")
    with pytest.raises(DatasetError, match="hf://me/data is no address of s3:// or gs://; give one, or mount it"):
        MemoryDataset.open("hf://me/data")


def test_a_pack_that_is_stopped_leaves_no_dataset_and_an_earlier_one_is_not_written_over(
    cached: Path, packed: Path, tmp_path: Path
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(cached, tmp_path / "other", watch=stop)
    with pytest.raises(DatasetError, match=r"holds no index\.json"):
        MemoryDataset.open(tmp_path / "other")
    for out, said in ((tmp_path / "other", "is not empty"), (packed, "is not empty")):
        with pytest.raises(DatasetError, match=said):
            pack(cached, out)
    with pytest.raises(DatasetError, match="is packed already"):
        pack(packed, tmp_path / "third")


def test_without_room_or_a_sound_file_nothing_is_packed(
    cached: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next((cached / "shards").iterdir()).write_bytes(b"other")
    with pytest.raises(CorruptShard, match="is corrupt"):
        pack(cached, tmp_path / "other")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10, free=1))
    with pytest.raises(OSError, match=r"packing .*data: it takes .* MiB, but .* are free"):
        pack(cached, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_without_the_library_it_is_named(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("litdata", "litdata.streaming.downloader", "litdata.streaming.cache"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DatasetError, match=r"need LitData .*; run: pip install 'litdata"):
        MemoryDataset.open("s3://bucket/data")
    with pytest.raises(DatasetError, match="need LitData"):
        pack(cached, tmp_path / "other")
