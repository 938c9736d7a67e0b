"""What comes out of kills: what is on disk afterwards, beside what an undisturbed run leaves there."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

WRITING = 0.3  # share of the kills that wait for a temporary file
PATIENCE = 5.0  # seconds that such a kill waits
TIMED = ("pace.jsonl", "tensorboard")  # of a training: what took how long
RUN = re.compile(rb'(\\?"run\\?": \\?")[0-9a-f]{16}')  # its name, by chance
NUMBER = re.compile(r"_\d{5}(?=_?\.)")  # of saved files: a second run saves a second one
NOT_COUNTED = ("seed", "wrong")


@dataclass
class Tally:
    """What came out so far. whole: what an undisturbed run leaves."""

    whole: dict[str, set[str]]
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    written: set[Path] = field(default_factory=set)  # temporary files that the last kill left

    def wrong(self, what: str, text: str) -> None:
        """Counts it and keeps a few of the texts."""
        self.counts[what] += 1
        self.examples = [*self.examples, f"{what}: {text[:300]}"][:5]

    def killed(self, folder: Path) -> None:
        """Counts a kill, and whether a file was being written."""
        self.counts["kills"] += 1
        self.counts["kills while a file was written"] += bool(being_written(folder) - self.written)
        self.written = being_written(folder)

    def compare(self, folder: Path) -> None:
        """Counts what is done after it was killed, and what is different or left."""
        self.counts["finished"] += 1
        found = content(folder)
        different = sorted(name for name in found.keys() | self.whole.keys() if found.get(name) != self.whole.get(name))
        if different:
            self.wrong("different", ", ".join(different))
        left = temporary(folder) + [path for path in folder.rglob("*.damaged*")]
        if left:
            self.wrong("with files left", ", ".join(path.name for path in left))

    @classmethod
    def begun(cls, whole: dict[str, set[str]], earlier: dict[str, Any]) -> Tally:
        """Counts on from an earlier result, of which {} is none."""
        counts = {name: value for name, value in earlier.items() if isinstance(value, int) and name not in NOT_COUNTED}
        return cls(whole, Counter(counts), examples=list(earlier.get("examples", ())))

    def told(self) -> dict[str, Any]:
        """For the results."""
        names = ("kills", "kills while a file was written", "finished", "different", "with files left", "sections lost")
        counts = {name: self.counts[name] for name in names} | dict(self.counts)
        seconds = {"seconds to go on and finish": round(median(self.seconds), 2)} if self.seconds else {}
        return counts | seconds | {"wrong": len(self.examples), "examples": self.examples}


def content(folder: Path) -> dict[str, set[str]]:
    """Digests by relative name, without hidden files and the numbers of saved ones.

    How a section came to be there does not count, nor what a training calls itself and how long it took.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.name[0] == "." or not path.is_file() or {*TIMED} & {*path.relative_to(folder).parts}:
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            data = re.sub(rb'"(status|kept)": [\w"]+', b"", data)
        elif path.suffix == ".safetensors":
            data = RUN.sub(rb"\1", in_order(data))
        elif path.suffix == ".pt":
            data = state(torch.load(path, weights_only=True))
        elif path.suffix == ".mp4":
            data = frames(path)
        name = NUMBER.sub("", str(path.relative_to(folder)))
        found.setdefault(name, set()).add(hashlib.sha256(data).hexdigest())
    return found


def in_order(content: bytes) -> bytes:
    """A safetensors file with its header sorted, whose metadata lie there in any order."""
    size = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:size]), sort_keys=True).encode() + content[size:]


def state(value: Any) -> bytes:
    """A checkpoint's content in one order, without the run's name."""
    if isinstance(value, dict):
        return b"".join(repr(name).encode() + state(value[name]) for name in sorted(value, key=str) if name != "run")
    if isinstance(value, (list, tuple)):
        return b"".join(state(one) for one in value) + b"."
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    return (
        f"{value.dtype}{tuple(value.shape)}".encode()
        + value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    )


def frames(path: Path) -> bytes:
    """How many pictures a movie has, and their size, when all can be decoded.

    Not their values: x264's threads make other files of the same pictures from one time to the next on a busy machine.
    """
    import av

    with av.open(str(path)) as container:
        return repr([(frame.width, frame.height) for frame in container.decode(video=0)]).encode()


def temporary(folder: Path) -> list[Path]:
    """Hidden files: temporary ones and locks."""
    return [path for path in folder.rglob(".*") if path.is_file()]


def moment(random: Random, seconds: float, folder: Path, ended: Callable[[], bool]) -> bool:
    """Waits for a random moment of so many seconds, or, now and then, for the next file that is being written; then
    says whether what is to be killed still runs."""
    time.sleep(random.uniform(0, seconds))
    if random.random() < WRITING:
        end, known = time.monotonic() + PATIENCE, being_written(folder)
        while time.monotonic() < end:
            if being_written(folder) - known:
                return True
            time.sleep(0.001)
    return not ended()


def being_written(folder: Path) -> set[Path]:
    """Temporary files: not whole yet, or not in their place."""
    return {path for path in temporary(folder) if path.suffix == ".tmp"}
