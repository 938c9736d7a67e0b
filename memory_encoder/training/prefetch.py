"""Batches made ahead of the step that needs them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

from torch import Tensor

_LOG = logging.getLogger("video_memory")
Made = TypeVar("Made")
AHEAD = 2  # batches; each worker makes one


class Prefetch(Generic[Made]):
    """Calls `make` for the numbers that follow, in threads: reading, hashing and converting leave Python free.

    make: a pure function of its number, so that what comes out does not depend on how far ahead it was made. last: the
    first number that is not made ahead. An error is raised when its number is asked for.
    """

    def __init__(self, make: Callable[[int], Made], last: int, ahead: int = AHEAD) -> None:
        self.make, self.last, self.ahead = make, last, ahead
        self.pool: ThreadPoolExecutor | None = None
        self.made: dict[int, Future[Made]] = {}

    def __call__(self, number: int) -> Made:
        """What belongs to this number; usually asked for in ascending order."""
        if not self.ahead:
            return self.make(number)
        self.pool = self.pool or ThreadPoolExecutor(self.ahead, "video-memory-batches")
        wanted = range(number, max(number + 1, min(number + 1 + self.ahead, self.last)))
        for other in [other for other in self.made if other not in wanted]:
            self.made.pop(other).cancel()
        for each in wanted:
            if each not in self.made:
                self.made[each] = self.pool.submit(self.make, each)
        return self.made.pop(number).result()

    def close(self) -> None:
        """Ends the threads; what they are making is dropped."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool, self.made = None, {}


def pinned(value: Any) -> Any:
    """A batch, or what is drawn for it, in memory that a card reads by itself: tensors in dataclasses, mappings, lists
    and tuples. Where there is no such memory left, as they are: the copy takes longer."""
    if isinstance(value, Tensor):
        try:
            return value.pin_memory()
        except RuntimeError as error:
            _LOG.debug("a batch is not pinned: %s", error)
            return value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: pinned(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, Mapping):
        return {name: pinned(each) for name, each in value.items()}
    return type(value)(map(pinned, value)) if isinstance(value, (list, tuple)) else value
