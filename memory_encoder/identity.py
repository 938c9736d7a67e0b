"""Who made a section: the part of an API prompt upstream of a node, with the files it names, and conditioning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

FileStamp = Callable[[str], Any]


def upstream(prompt: Mapping[str, Any] | None, node_id: str | None, inputs: Iterable[str], stamp: FileStamp) -> Any:
    """Everything in an API prompt that feeds the named inputs of a node, in a form that can be hashed.

    `stamp` says what is known of a file that a widget names (its size and time) or None when it is no file.
    Node numbers do not enter, so that moving a node does not make a new film. None when there is no prompt.
    """
    if prompt is None or node_id is None or str(node_id) not in prompt:
        return None
    start = prompt[str(node_id)].get("inputs", {})
    return {name: _source(prompt, start.get(name), stamp, ()) for name in inputs}


def _source(prompt: Mapping[str, Any], value: Any, stamp: FileStamp, path: tuple[str, ...]) -> Any:
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt:
        node_id = str(value[0])
        if node_id in path:
            return "loop"
        node = prompt[node_id]
        given = {
            name: _source(prompt, item, stamp, (*path, node_id))
            for name, item in sorted(node.get("inputs", {}).items())
        }
        return {"class": node.get("class_type"), "output": value[1], "inputs": given}
    if isinstance(value, str):
        return [value, stamp(value)]
    if isinstance(value, Mapping):
        return {str(name): _source(prompt, item, stamp, path) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_source(prompt, item, stamp, path) for item in value]
    return value


def conditioning(value: Any) -> Any:
    """Tensors, numbers and names of a CONDITIONING in a form that can be hashed; other objects count by their type."""
    if isinstance(value, (Tensor, str, int, float, bool, bytes)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): conditioning(item) for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [conditioning(item) for item in value]
    return type(value).__qualname__
