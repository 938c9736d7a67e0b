"""What every section added to the memory, on disk, so that a later run decodes and encodes nothing of it again.

The key of such a state is a hash of all that made it: encoders, VAE, model, the memory before, and the latents
themselves. A film that branches off another one finds the states of that film. States can be made again at any time;
whatever is wrong with one is a reason to do so, never one to stop a film.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..damage import DAMAGE
from ..digests import section_key
from ..memory.delta import added, with_added
from ..memory.kept import DESCRIPTION
from ..memory.memory_file import Memory
from .sections import SectionStore, is_finite

FOLDER = "memory"
# Version of how a memory is made of what is in a state's key. Raise it with any change after which the same
# ingredients give another memory.
METHOD = 1

SPARE = 2**30  # bytes on the disk that are left to the sections

_LOG = logging.getLogger("video_memory")


class State(NamedTuple):
    """Tensors, JSON values, and the file in which they lie."""

    tensors: dict[str, Tensor]
    described: dict[str, Any]
    path: Path


class StateStore:
    """The states of one film in the folder `memory` beside its sections, and those of films that are only read.

    limit: bytes that they may take; those that this run has not used go first, the oldest before the others. When
    all are in use nothing more is kept: what is missing costs a later run the time to make it again.
    """

    def __init__(self, film: Path, limit: float = float("inf"), sources: Sequence[Path] = ()) -> None:
        self.limit = limit
        self._own, *self._others = (SectionStore(folder, FOLDER, move_aside=False) for folder in (film, *sources))
        self._used: set[str] = set()
        self._told = False

    @property
    def files(self) -> list[Path]:
        """Those of the film's own folder that this run has read or written; its memory reads them again."""
        return [self._own.folder / name for name in sorted(self._used)]

    def get(self, key: str) -> State | None:
        """A state, or None when there is none that is whole and finite."""
        for store in (self._own, *self._others):
            try:
                stored = store.get(key)
                if stored is None or not _all_finite(stored.tensors):
                    continue
                described = json.loads(stored.metadata[DESCRIPTION])
            except (OSError, *DAMAGE) as error:
                self._tell(f"a stored state of the memory cannot be used ({error}); it is made again")
                continue
            if store is self._own:
                self._used.add(stored.path.name)
            return State(stored.tensors, described, stored.path)
        return None

    def put(self, key: str, index: int, tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> Path | None:
        """Stores a state of the section `index` if it is finite and there is room for it, and returns its file."""
        path = self._own.path(key, index)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if not _all_finite(tensors) or not self._make_room(size):
            return None
        try:
            self._own.check_space(SPARE + size, "the sections of the film need the room")
            self._own.put(key, index, tensors, {DESCRIPTION: json.dumps(described)})
            self._used.add(path.name)
            return path
        except OSError as error:
            self._tell(f"the memory after section {index + 1} is not kept ({error})")
            return None

    def _make_room(self, size: int) -> bool:
        """Whether `size` more bytes stay within the limit, after older states have been removed for that."""
        found = []
        for path in self._own.folder.glob("section_*.safetensors"):
            try:
                status = path.stat()
            except OSError:
                continue  # removed meanwhile
            found.append((status.st_mtime_ns, status.st_size, path))
        total = size + sum(taken for _, taken, _ in found)
        for _, taken, path in sorted(found):
            if total <= self.limit:
                break
            if path.name not in self._used:
                try:
                    path.unlink()
                except OSError:
                    continue
                total -= taken
        if total > self.limit and self.limit:
            self._tell("the memory states of this film reach their limit on disk; later ones are not kept")
        return total <= self.limit

    def _tell(self, message: str) -> None:
        """One line a run."""
        (_LOG.debug if self._told else _LOG.warning)("film %s: %s", self._own.folder.parent.name, message)
        self._told = True


@dataclass
class KeptStates:
    """The states of a memory on its way through a film. key: hash of all that made the memory so far.

    Without a store everything is computed.
    """

    store: StateStore | None = None
    key: str = field(default="", repr=False)

    @classmethod
    def of(cls, store: StateStore | None, made_of: Mapping[str, Any]) -> KeptStates:
        """States of a memory that begins as `made_of` says: what makes it, and what is in it."""
        return cls(store, "" if store is None else section_key("", {"memory method": METHOD, **made_of}))

    def extended(self, memory: Memory, made_of: Mapping[str, Any], append: Callable[[], Memory]) -> Any:
        """The memory with one more section in it, which is made of this: from disk, else as `append` makes it.

        What is on disk is not held in RAM as well (see `with_added`).
        """
        if self.store is None:
            return append()
        self.key = section_key(self.key, made_of)
        state = self.store.get(self.key)
        if state is not None:
            try:
                return with_added(memory, *state)
            except DAMAGE as error:
                _LOG.warning("a stored state of the memory does not fit (%s); it is made again", error)
        after = append()
        more = added(memory, after)
        path = self.store.put(self.key, len(memory.sections), *more)
        return after if path is None else with_added(memory, *more, path)

    def tensor(self, made_of: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
        """A tensor that follows from the memory so far and from this: from disk, else made and kept."""
        if self.store is None:
            return make()
        key = section_key(self.key, made_of)
        state = self.store.get(key)
        if state is not None and "made" in state.tensors:
            return state.tensors["made"]
        made = make()
        self.store.put(key, 0, {"made": made}, {})
        return made


def appended_section(
    latents: Tensor, prompt: str, seed: int | None, repeated: int | None, marks: Any = None
) -> dict[str, Any]:
    """What a section adds to a memory follows from this. marks: what a person says of its pictures, if anything."""
    facts = {"latents": latents, "prompt": prompt, "seed": seed, "repeated": repeated, "marks": marks}
    return {name: value for name, value in facts.items() if value is not None}


def _all_finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(is_finite(tensor) for tensor in tensors.values() if tensor.is_floating_point())
