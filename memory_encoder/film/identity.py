"""Who made a section: the part of an API prompt upstream of a node, with the files it names, and conditioning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

FileStamp = Callable[[str], Any]
_PLAIN = (Tensor, str, int, float, bool, bytes)


class _Unknown(Exception):
    """Something feeds the node of which the graph does not say where it comes from."""


def upstream(
    prompt: Mapping[str, Any] | None,
    node_id: str | None,
    inputs: Iterable[str],
    stamp: FileStamp,
    parent: Callable[[str], str | None] = lambda node_id: None,
) -> dict[str, str] | None:
    """A digest of everything in an API prompt that feeds each of the named inputs of a node.

    `stamp` says what is known of a file that a widget names (its size and time) or None when it is no file. `parent`
    names the node that made another one while the graph ran; an object that such a node was handed counts as what
    its maker is made of. Node numbers do not enter, so that moving a node does not make a new film. None when there is
    no prompt or the prompt does not tell.
    """
    if prompt is None or node_id is None or str(node_id) not in prompt:
        return None
    start = prompt[str(node_id)].get("inputs", {})
    graph = _Graph(prompt, stamp, parent)
    try:
        return {name: graph.digest(graph.source(start.get(name), str(node_id))) for name in inputs}
    except (_Unknown, RecursionError):
        return None


class _Graph:
    """Walks a prompt; every node is described once, however many links lead to it."""

    def __init__(self, prompt: Mapping[str, Any], stamp: FileStamp, parent: Callable[[str], str | None]) -> None:
        self.prompt, self.stamp, self.parent = prompt, stamp, parent
        self.known: dict[str, str] = {}

    def source(self, value: Any, of: str) -> Any:
        """A widget's value on the node `of`, or the digest of the node that a link comes from."""
        if self._is_link(value):
            return ["link", self.node(str(value[0])), value[1]]
        if isinstance(value, str):
            return [value, self.stamp(value)]
        if isinstance(value, (int, float)) or value is None:
            return value
        if isinstance(value, Mapping):
            return {str(name): self.source(item, of) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.source(item, of) for item in value]
        maker = self.parent(of)
        if maker is None or maker not in self.prompt:
            raise _Unknown(f"{type(value).__name__} on node {of}")
        return ["handed over by", self.node(maker)]

    def _is_link(self, value: Any) -> bool:
        link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int))
        return link and str(value[0]) in self.prompt

    def node(self, node_id: str) -> str:
        if node_id not in self.known:
            self.known[node_id] = "loop"  # what a node that feeds itself would see
            node = self.prompt[node_id]
            given = {name: self.source(item, node_id) for name, item in node.get("inputs", {}).items()}
            self.known[node_id] = self.digest([node.get("class_type"), given])
        return self.known[node_id]

    @staticmethod
    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def conditioning(value: Any) -> Any:
    """Tensors, numbers and names of a CONDITIONING in a form that can be hashed; other objects count by their type.

    What such objects hold (`has_objects`) is known only from the graph that made them.
    """
    if isinstance(value, _PLAIN) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): conditioning(item) for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [conditioning(item) for item in value]
    return type(value).__qualname__


def has_objects(value: Any) -> bool:
    """Whether `conditioning` counts some of it by its type alone: ControlNets, hooks and the like."""
    if isinstance(value, Mapping):
        return any(has_objects(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_objects(item) for item in value)
    return not (isinstance(value, _PLAIN) or value is None)
