"""Who made a section: the part of an API prompt upstream of a node, with the files it names, and conditioning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

FileStamp = Callable[[str], Any]


def upstream(
    prompt: Mapping[str, Any] | None, node_id: str | None, inputs: Iterable[str], stamp: FileStamp
) -> dict[str, str] | None:
    """A digest of everything in an API prompt that feeds each of the named inputs of a node.

    `stamp` says what is known of a file that a widget names (its size and time) or None when it is no file.
    Node numbers do not enter, so that moving a node does not make a new film. None when there is no prompt.
    """
    if prompt is None or node_id is None or str(node_id) not in prompt:
        return None
    start = prompt[str(node_id)].get("inputs", {})
    graph = _Graph(prompt, stamp)
    return {name: graph.digest(graph.source(start.get(name))) for name in inputs}


class _Graph:
    """Walks a prompt; every node is described once, however many links lead to it."""

    def __init__(self, prompt: Mapping[str, Any], stamp: FileStamp) -> None:
        self.prompt, self.stamp = prompt, stamp
        self.known: dict[str, str] = {}

    def source(self, value: Any) -> Any:
        """A widget's value, or the digest of the node that a link comes from."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self.prompt:
            return ["link", self.node(str(value[0])), value[1]]
        if isinstance(value, str):
            return [value, self.stamp(value)]
        if isinstance(value, Mapping):
            return {str(name): self.source(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.source(item) for item in value]
        return value

    def node(self, node_id: str) -> str:
        if node_id not in self.known:
            self.known[node_id] = "loop"  # what a node that feeds itself would see
            node = self.prompt[node_id]
            given = {name: self.source(item) for name, item in node.get("inputs", {}).items()}
            self.known[node_id] = self.digest([node.get("class_type"), given])
        return self.known[node_id]

    @staticmethod
    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def conditioning(value: Any) -> Any:
    """Tensors, numbers and names of a CONDITIONING in a form that can be hashed; other objects count by their type."""
    if isinstance(value, (Tensor, str, int, float, bool, bytes)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): conditioning(item) for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [conditioning(item) for item in value]
    return type(value).__qualname__
