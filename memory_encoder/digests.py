"""Hashes of plain data and tensors: the same between runs, machines and versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def section_key(previous_key: str, ingredients: Mapping[str, Any]) -> str:
    """Hash (64 hex digits) of the previous section's key and of all that this section is made of.

    Takes nested mappings with text keys (in any order), lists and tuples (alike), None, bool, int, float, str, bytes,
    and tensors and arrays, which count with type, shape and bytes, not with their device or strides.
    Raises TypeError that names the place of anything else.
    """
    digest = hashlib.sha256()
    _feed(digest, previous_key, "previous_key")
    try:
        _feed(digest, ingredients, "ingredients")
    except RecursionError as error:
        raise TypeError("ingredients are nested too deeply or contain themselves; give plain nested data") from error
    return digest.hexdigest()


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash of a file's tensors and of what it says of them."""
    return section_key("", {"tensors": tensors, "metadata": metadata})


def _feed(digest: hashlib._Hash, value: Any, where: str) -> None:
    """Adds a value in a form that no other value has: a tag for the type, then the length, then the content."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        _add(digest, "none")
    elif isinstance(value, bool):
        _add(digest, "bool", str(value).encode())
    elif isinstance(value, int):
        _add(digest, "int", hex(value).encode())
    elif isinstance(value, float):
        _add(digest, "float", float.__repr__(value).encode())
    elif isinstance(value, str):
        _add(digest, "str", str.encode(value, "utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray)):
        _add(digest, "bytes", bytes(value))
    elif isinstance(value, (list, tuple)):
        _add(digest, "list", str(len(value)).encode())
        for number, item in enumerate(value):
            _feed(digest, item, f"{where}[{number}]")
    elif isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{where} has the key {name!r} of type {type(name).__name__}; use text keys")
        _add(digest, "dict", str(len(value)).encode())
        for name in sorted(value):
            _feed(digest, name, where)
            _feed(digest, value[name], f"{where}.{name}")
    elif isinstance(value, Tensor):
        _feed_tensor(digest, value, where)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufcSU":
        _add(digest, "array", f"{value.dtype.str} {value.shape}".encode())
        _add(digest, "data", np.ascontiguousarray(value).tobytes())
    else:
        raise TypeError(
            f"{where} is of type {type(value).__name__}, which has no stable form; give numbers, text or tensors"
        )


def _feed_tensor(digest: hashlib._Hash, tensor: Tensor, where: str) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(f"{where} is a sparse, quantized or meta tensor; give a dense one with data")
    _add(digest, "tensor", f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    data = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8)
    numbers: Any = data.numpy()
    _add(digest, "data", memoryview(numbers))


def _add(digest: hashlib._Hash, tag: str, content: bytes | memoryview = b"") -> None:
    digest.update(f"{tag}:{len(content)}:".encode())
    digest.update(content)
