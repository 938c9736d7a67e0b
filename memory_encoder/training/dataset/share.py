"""The part of a cache that one of several processes makes, on one machine or on several that share a folder.

No process waits for another: each leaves what it has found, and whichever ends last puts all of it together.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...digests import section_key
from ...locks import BusyError, alone
from .index import Findings
from .settings import DatasetError

SHARES, LOCK = "shares", ".index.lock"


@dataclass(frozen=True)
class Share:
    """Share `number`, from 0, of `count`."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise DatasetError(f"share {self.number} of {self.count} cannot be; set RANK to 0 up to WORLD_SIZE - 1")

    @classmethod
    def of_this_process(cls) -> Share:
        """What `accelerate launch` (or torchrun, or a person by RANK and WORLD_SIZE) has said."""
        try:
            number, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        except ValueError as error:
            raise DatasetError(
                "RANK and WORLD_SIZE are no numbers; start by accelerate launch, or unset both"
            ) from error
        return cls(number, count)

    def of(self, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(number, name) of the clips of this share: neighbours, which are often alike, go to different ones."""
        return ((number, names[number]) for number in range(self.number, len(names), self.count))

    def begin(self, out: Path) -> None:
        """Removes what an earlier run of this share has left: another process would take it for that of this run."""
        if self.count > 1 and (out / SHARES).is_dir():
            with _alone_at_last(out / LOCK):  # nobody puts it together meanwhile
                for path in (out / SHARES).glob(f"*_{self.number}_of_*.sqlite"):
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def gathered(self, findings: Findings, out: Path, run: dict[str, Any]) -> Iterator[tuple[int, ...] | None]:
        """Adds what the other shares have found, and gives the numbers of those that are not done, one's own included
        where another process has put all together already; None when all is there.

        run: all that the shares have in common: what is different makes another dataset, and its shares are left alone.
        One process at a time is inside.
        """
        if self.count == 1:
            yield None
            _remove_all(out)
            return
        key = section_key("", run)[:12]
        paths = [out / SHARES / f"{key}_{number}_of_{self.count}.sqlite" for number in range(self.count)]
        findings.save(paths[self.number])
        with _alone_at_last(out / LOCK):
            missing = tuple(number for number, path in enumerate(paths) if not path.is_file())
            if missing:
                yield missing
                return
            for number, path in enumerate(paths):
                if number != self.number:
                    findings.add(path)
            findings.texts_as_they_are(out)
            yield None
            _remove_all(out)  # an error before this leaves them for the next run

    def of_other_runs(self, out: Path, missing: Iterable[int]) -> tuple[int, ...]:
        """Which of the missing shares are there, but of other clips, captions or settings."""
        return tuple(n for n in missing if any((out / SHARES).glob(f"*_{n}_of_{self.count}.sqlite")))


WHOLE = Share()


def use_own_device(worker: int = 0) -> None:
    """Makes each process of a machine compute on a card of its own, as `accelerate launch` numbers them.

    worker: number of a process that such a one, or a single one, has started: those of a single one share all cards.
    """
    number = int(os.environ.get("LOCAL_RANK", worker))
    if number and torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _remove_all(out: Path) -> None:
    """Nothing that any share has found is newer than the index that has just been written."""
    for path in (out / SHARES).glob("*.sqlite"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_at_last(lock: Path) -> Iterator[None]:
    """Holds a lock that others hold for moments only."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(alone(lock))
                break
            except BusyError:
                time.sleep(0.05)
        yield
