"""Damage of files: bytes that flip, ends that are missing, and well-formed content that says something else."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from random import Random
from typing import Any

import torch

DEEP: Any = json.loads("[" * 200 + "]" * 200)
# What no reader expects in the place of something else.
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e400, float("nan"), 0.5, "", "x", "x" * 5000, "\x00", [], {}, [1] * 50,
    {"a": 1}, DEEP,
)  # fmt: skip
Mutation = Callable[[bytes, Random], bytes]


def any_bytes(content: bytes, random: Random) -> bytes:
    """Flipped bits, a missing end, zeros inside, something behind."""
    changed = bytearray(content)
    kind = random.randrange(4)
    if kind == 0:
        for _ in range(random.randint(1, 8)):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    elif kind == 1:
        del changed[random.randrange(len(changed)) :]
    elif kind == 2:
        start = random.randrange(len(changed))
        end = min(len(changed), start + random.randint(1, 4096))
        changed[start:end] = bytes(end - start)
    else:
        changed += bytes([random.randrange(256)]) * random.randint(1, 100)
    return bytes(changed)


def json_text(content: bytes, random: Random) -> bytes:
    """Another JSON, or other bytes."""
    return any_bytes(content, random) if random.randrange(3) == 0 else json_value(content, random)


def json_value(content: bytes, random: Random) -> bytes:
    """Another value, in JSON as it should be."""
    return json.dumps(_changed(json.loads(content), random)).encode()


def json_lines(content: bytes, random: Random) -> bytes:
    """One line of JSON lines is another JSON."""
    lines = content.splitlines(keepends=True)
    place = random.randrange(len(lines))
    lines[place] = json_text(lines[place], random) + b"\n"
    return b"".join(lines)


def tensor_file(content: bytes, random: Random) -> bytes:
    """A safetensors file with other bytes, another header or other metadata; half of the latter lose their checksum."""
    if random.randrange(4) == 0:
        return any_bytes(content, random)
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = header.get("__metadata__", {})
    if random.randrange(2):
        metadata.pop("digest", None)
    described = [name for name, text in metadata.items() if text[:1] in "{["]
    if described and random.randrange(4):
        name = random.choice(described)
        metadata[name] = json.dumps(_changed(json.loads(metadata[name]), random))
    else:
        header = _changed(header, random)
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + data


def pickled(content: bytes, random: Random) -> bytes:
    """A checkpoint of PyTorch with other bytes or other content."""
    if random.randrange(4) == 0:
        return any_bytes(content, random)
    state = torch.load(io.BytesIO(content), weights_only=True)
    file = io.BytesIO()
    torch.save(_changed(state, random), file)
    return file.getvalue()


def _changed(value: Any, random: Random) -> Any:
    """A copy in which one to three things, somewhere inside, are missing or something else."""
    holder = {"": copy.deepcopy(value)}
    for _ in range(random.randint(1, 3)):
        inside: Any = holder
        while True:
            places = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            place = random.choice(places)
            child = inside[place]
            if isinstance(child, (dict, list)) and child and random.randrange(5):
                inside = child
                continue
            break
        if inside is not holder and random.randrange(5) == 0:
            del inside[place]
            if not holder[""]:
                break
        else:
            inside[place] = _other(child, random)
    return holder[""]


def _other(value: Any, random: Random) -> Any:
    if isinstance(value, torch.Tensor) and random.randrange(2):
        return random.choice(
            [value[:0] if value.ndim else value[None], value.double() * float("nan"), value.flatten(), value.bool()]
        )
    if type(value) is int and random.randrange(2):
        return value + random.choice([-1, 1, 1000])
    return copy.deepcopy(random.choice(STRANGE))
