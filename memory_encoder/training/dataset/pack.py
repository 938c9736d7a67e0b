"""`python -m memory_encoder pack`: a cached dataset into large files, for datasets that outgrow one disk."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ...files import check_space, write_bytes
from .cache import PACKED_SCHEMA_VERSION, WINDOWS
from .dataset import MemoryDataset, Shards
from .packed import CHUNKS, litdata
from .settings import INDEX, DatasetError

CHUNK_MIB = 1024  # which is also what packing takes in RAM
TOLD = 1000  # files between lines
KEPT = ("format", "settings", "geometry", "space", "text_encoder", "counts", "buckets", "notes")  # of a head


def pack(
    source: Path, out: Path, chunk_mib: int = CHUNK_MIB, watch: Callable[[int, int], None] = lambda done, of: None
) -> tuple[int, int]:
    """Writes the windows and texts of a cached dataset into chunks of about `chunk_mib` in `out`, which train reads.

    watch: hears how many of how many are done. Returns their number and bytes. The head is written last: until then
    `out` is no dataset. Raises DatasetError for a folder that holds something already, CorruptShard for a file that is
    not what was cached, OSError where there is no room.
    """
    data = MemoryDataset.open(source)
    if not isinstance(data.store, Shards) or data.store.packed:
        raise DatasetError(f"{source} is packed already")
    if out.exists() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty; choose another folder, or empty it where an earlier pack was stopped")
    count, size = data.index.total()
    check_space(out, size, f"packing {source}")
    folder, shards, written = out / CHUNKS, data.store, 0
    folder.mkdir(parents=True)
    chunks = litdata("litdata.streaming.cache").Cache(str(folder), chunk_bytes=chunk_mib << 20)

    def numbered(file: str, sha256: str) -> str:
        nonlocal written
        number = written
        chunks[number] = shards.checked(file, sha256)
        written += 1
        watch(written, count)
        return str(number)

    table = data.index.with_other_files(out, WINDOWS, numbered)
    chunks.done()
    chunks.merge(1)
    head = json.loads((source / INDEX).read_text(encoding="utf-8"))
    own = {"schema_version": PACKED_SCHEMA_VERSION, "windows": table, "chunks": CHUNKS}
    head = {name: head[name] for name in KEPT if name in head} | own
    write_bytes(out / INDEX, json.dumps(head, indent=1).encode())
    return count, size


def run_pack(args: argparse.Namespace) -> None:
    """The command; raises ValueError or OSError with a message for people."""

    def tell(done: int, of: int) -> None:
        if done % TOLD == 0 or done == of:
            sys.stderr.write(f"{done} of {of} files\n")

    count, size = pack(args.dataset, args.out, args.chunk_mib, tell)
    print(
        f"{count} files, {size / 1e9:.3g} GB, in {args.out}: train --dataset {args.out}, or the address of a copy of "
        "that folder, such as s3://BUCKET/DATA"
    )
