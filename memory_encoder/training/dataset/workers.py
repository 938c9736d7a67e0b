"""Goes through the clips of a cache, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from ...pictures.codec import Codec
from .clips import ClipRecord, ClipTask, Progress, Watch, cache_clip
from .settings import DatasetError
from .share import use_own_device


def records(
    tasks: list[ClipTask], codec: Callable[[], Codec], jobs: int, watch: Watch
) -> Iterator[tuple[ClipTask, ClipRecord]]:
    """Goes through the clips, in their order whatever the number of processes is."""
    if jobs <= 1:
        once = _Once(codec)
        for task in tasks:
            watch(Progress(task.name, task.number, task.total))
            record = cache_clip(task, once, watch)
            watch(_done(task, record))
            yield task, record
        return
    context = multiprocessing.get_context("spawn")  # a fork would share the accelerator's and the VAE's locks
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (codec, jobs, context.Value("i", 0)))
    try:
        for task, record in zip(tasks, pool.map(_work, tasks), strict=True):
            watch(_done(task, record))
            yield task, record
    except BrokenProcessPool as error:
        raise DatasetError(
            f"one of the {jobs} processes ended early, most likely for want of memory; start again with fewer jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Once:
    """Makes the codec at the first call and keeps it."""

    def __init__(self, make: Callable[[], Codec]) -> None:
        self.make, self.made = make, None

    def __call__(self) -> Codec:
        self.made = self.made or self.make()
        return self.made


_worker_codec: _Once | None = None  # of a worker process: the way the standard library's pools hand something to it


def _start_worker(codec: Callable[[], Codec], jobs: int, started: Any) -> None:
    """started: how many of the workers are, counted by themselves, so that each knows its number."""
    global _worker_codec
    _worker_codec = _Once(codec)
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    use_own_device(number)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback; shards are written whole
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed parent leaves no worker behind
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(task: ClipTask) -> ClipRecord:
    assert _worker_codec is not None  # set by _start_worker
    return cache_clip(task, _worker_codec, lambda progress: None)


def _done(task: ClipTask, record: ClipRecord) -> Progress:
    return Progress(
        task.name, task.number, task.total, record.seconds, record.seconds, len(record.windows), record.encoded, True
    )
