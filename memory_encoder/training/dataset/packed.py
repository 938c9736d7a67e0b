"""Windows of a dataset that lies in large files, in a folder or in object storage; LitData reads them one by one.

Which windows a step takes is drawn as from any other dataset, from the step alone, so that a run goes on to the same
losses with any number of processes. LitData gives what that asks for: any item by its number, and from object storage
the bytes of that item alone, so that nothing of it has to be kept on this machine.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

from ...files import remove_abandoned_of, write_atomically, write_bytes
from .index import inside
from .settings import INDEX, DatasetError

CHUNKS = "chunks"  # folder of the large files
STORAGES = ("s3://", "gs://")  # of which LitData fetches parts of a file; of others it would fetch whole ones
INSTALL = "pip install 'litdata>=0.2.76'"


def is_address(source: str | Path) -> bool:
    """Whether a dataset lies in object storage, such as s3://bucket/data. Raises DatasetError for a kind of address
    that cannot be read from."""
    if "://" in str(source) and not str(source).startswith(STORAGES):
        raise DatasetError(f"{source} is no address of {' or '.join(STORAGES)}; give one, or mount it as a folder")
    return "://" in str(source)


def litdata(module: str = "litdata") -> Any:
    """LitData, or a part of it. Raises DatasetError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DatasetError(f"datasets in large files need LitData ({error}); run: {INSTALL}") from error


class Chunks:
    """Items of LitData's chunks by their numbers, for any number of threads."""

    def __init__(self, source: str) -> None:
        """source: folder or address."""
        self.source, self._library = source, litdata()
        self._own, self._opening = threading.local(), threading.Lock()
        # LitData's copy of the chunks' own index; processes that share one remove it beneath each other.
        self._place = tempfile.TemporaryDirectory(prefix="video_memory_") if is_address(source) else None

    def __call__(self, file: str) -> bytes:
        """Raises DatasetError for what cannot be read now: unlike a damaged file, it may be read another time."""
        try:
            if not hasattr(self._own, "items"):  # one for each thread, as it holds a file open
                with self._opening:
                    place = None if self._place is None else self._place.name
                    self._own.items = self._library.StreamingDataset(self.source, cache_dir=place)
            return bytes(self._own.items[int(file)])
        except Exception as error:  # of whichever storage
            raise DatasetError(f"item {file} of {self.source} cannot be read ({error}); run the same again") from error


def fetched(address: str) -> Path:
    """A folder on this machine with head and table of a dataset in object storage; the table is fetched once.

    Raises DatasetError that names the address.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "video_memory" / "datasets"
    downloads = litdata("litdata.streaming.downloader")
    try:
        storage, arriving = downloads.get_downloader(address, str(root), []), BytesIO()
        storage.download_fileobj(f"{address}/{INDEX}", arriving)
        head = arriving.getvalue()
        folder = root / hashlib.sha256(address.encode() + head).hexdigest()[:16] / address.rpartition("/")[2]
        name = json.loads(head)["windows"]

        def fetch(temporary: Path) -> None:
            with temporary.open("wb") as file:
                storage.download_fileobj(f"{address}/{name}", file)

        if not inside(folder, name).is_file():
            remove_abandoned_of(inside(folder, name))
            write_atomically(inside(folder, name), fetch)
        write_bytes(folder / INDEX, head)
    except Exception as error:  # of whichever storage
        raise DatasetError(f"{address} cannot be opened as a dataset ({error}); check address and rights") from error
    return folder
