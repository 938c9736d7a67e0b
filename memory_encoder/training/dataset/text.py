"""Text conditioning: encoded once per distinct prompt, in core's form and in the form that a host's forward takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...digests import section_key
from ...files import load_tensors, save_tensors
from .clips import digest_of, file_hash, is_whole
from .rows import MASK, Rows, together
from .settings import DatasetError, LatentSpace

TEXTS = "texts"
TEXT_FORMAT = "video_memory_text"
NO_ENCODER = "none"
EMPTY = ""  # the prompt of caption dropout
# Arguments of core's models by the names that its texts have.
FORWARD_NAMES = {"pooled_output": "y", MASK: MASK, "conditioning_byt5small": "txt_byt5"}


@dataclass(frozen=True)
class TextEncoder:
    """Core's CLIP object, loaded when the first prompt has to be encoded. identity: changes with its weights."""

    identity: str
    load: Callable[[], Any]


@dataclass(frozen=True)
class Conditioning:
    """One encoded prompt: cross_attn [1,L,D], and tensors such as pooled_output [1,P] or attention_mask [1,L]."""

    cross_attn: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)

    def core(self) -> list[list[Any]]:
        """Core's CONDITIONING."""
        return [[self.cross_attn, dict(self.extras)]]

    def arguments(self) -> dict[str, Tensor]:
        """Keyword arguments of a host's forward, one row each: context, and what else the text encoder has."""
        found = {FORWARD_NAMES[name]: value for name, value in self.extras.items() if name in FORWARD_NAMES}
        if MASK in found and bool(found[MASK].all()):
            del found[MASK]  # it masks nothing
        return {"context": self.cross_attn} | found

    @classmethod
    def from_core(cls, entry: Sequence[Any], where: str = "conditioning") -> Conditioning:
        """From one [tensor, dict] of core's CONDITIONING; everything in the dict that is no tensor is left out."""
        if len(entry) != 2 or not isinstance(entry[0], Tensor) or not isinstance(entry[1], dict):
            raise DatasetError(f"{where} is no CONDITIONING of core; connect a text encoder's output")
        with torch.inference_mode(False):  # a copy that training may use
            extras = {name: _plain(value) for name, value in entry[1].items() if isinstance(value, Tensor)}
            return cls(_plain(entry[0]), extras)

    @classmethod
    def nothing(cls, space: LatentSpace) -> Conditioning:
        """The conditioning of no text where there is no text encoder: zeros of the host's sizes."""
        extras = {} if space.pooled_width is None else {"pooled_output": torch.zeros(1, space.pooled_width)}
        return cls(torch.zeros(1, 1, space.text_width), extras)

    def check(self, host: str, text_width: int, pooled_width: int | None) -> None:
        """Raises DatasetError when this text does not fit the host of that name, which reads texts of these widths."""
        pooled = self.extras.get("pooled_output")
        found = [(self.cross_attn.shape[-1], text_width)]
        if pooled_width is not None:
            found.append((0 if pooled is None else pooled.shape[-1], pooled_width))
        for width, wanted in found:
            if width != wanted:
                raise DatasetError(
                    f"the text encoder writes texts of width {width}, but {host} reads {wanted}; "
                    "load the text encoder that belongs to the model"
                )


def stack(texts: Sequence[Conditioning]) -> dict[str, Rows]:
    """Arguments of a host's forward for a batch of prompts. Nothing is padded: a word of zeros is a word too."""
    rows = [text.arguments() for text in texts]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: together([row.get(name) for row in rows]) for name in names}


def encode_prompts(
    prompts: Iterable[str], out: Path, encoder: TextEncoder | None, space: LatentSpace, before: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Encodes the prompts that are not in the cache yet; the empty prompt is always among them.

    Returns `{"prompt", "file", "sha256", "bytes"}` for each. Without a text encoder only the empty prompt is kept, as
    zeros. before: called before each prompt that is encoded; may raise to stop.
    """
    wanted = dict.fromkeys([EMPTY, *sorted(set(prompts))]) if encoder else [EMPTY]
    identity = encoder.identity if encoder else f"{NO_ENCODER} {space.text_width} {space.pooled_width}"
    entries, clip = [], None
    for prompt in wanted:
        key = section_key("", {"prompt": prompt, "encoder": identity, "schema": 1})
        path = out / TEXTS / f"{key[:32]}.safetensors"
        if not _is_text(path, key):
            before(prompt)
            if encoder is None:
                made = Conditioning.nothing(space)
            else:
                clip = clip or encoder.load()
                with torch.no_grad():
                    made = _encoded(clip, prompt)
            made.check(space.host, space.text_width, space.pooled_width)
            _save(made, path, key, prompt)
        entries.append(
            {
                "prompt": prompt,
                "file": path.relative_to(out).as_posix(),
                "sha256": file_hash(path),
                "bytes": path.stat().st_size,
            }
        )
    return entries


def parse_text(content: bytes) -> Conditioning:
    """Conditioning from the bytes of a text file; tensors are float32 where they are floats."""
    tensors, entries = load_tensors(content)
    lengths = json.loads(entries.get(TEXT_FORMAT, "{}")).get("lengths", {})
    whole = {name: lengthened(value, lengths.get(name)) for name, value in tensors.items()}
    plain = {name: value.float() if value.is_floating_point() else value for name, value in whole.items()}
    return Conditioning(plain.pop("cross_attn"), plain)


def shortened(value: Tensor) -> Tensor:
    """Tokens [1,L,...] without the copies of the last one: padding, as umT5's to 512, takes one token on disk."""
    if value.ndim < 2 or value.shape[1] < 2:
        return value
    differs = (value != value[:, -1:]).flatten(2).any(-1).any(0) if value.ndim > 2 else (value != value[:, -1:]).any(0)
    own = int(differs.nonzero().max()) + 1 if bool(differs.any()) else 0
    return value[:, : own + 1]


def lengthened(value: Tensor, length: int | None) -> Tensor:
    """The tokens that `shortened` was given, of which there were `length`."""
    if length is None or length <= value.shape[1]:
        return value
    return torch.cat([value, value[:, -1:].expand(-1, length - value.shape[1], *value.shape[2:])], dim=1)


def _encoded(clip: Any, prompt: str) -> Conditioning:
    made = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    if len(made) != 1:
        raise DatasetError(f"the text encoder makes {len(made)} schedules of one prompt; take its hooks off")
    return Conditioning.from_core(made[0], "what the text encoder makes")


def _save(made: Conditioning, path: Path, key: str, prompt: str) -> None:
    whole = {name: _halved(value) for name, value in ({"cross_attn": made.cross_attn} | made.extras).items()}
    tensors = {name: shortened(value) for name, value in whole.items()}
    lengths = {name: value.shape[1] for name, value in whole.items() if tensors[name].shape != value.shape}
    metadata = {"schema_version": 1, "key": key, "digest": digest_of(tensors), "prompt": prompt, "lengths": lengths}
    save_tensors(tensors, path, {TEXT_FORMAT: json.dumps(metadata)})


def _halved(value: Tensor) -> Tensor:
    """float16, or the value as it is when it would overflow."""
    half = value.half() if value.is_floating_point() else value
    return half if not half.is_floating_point() or torch.isfinite(half).all() else value


def _is_text(path: Path, key: str) -> bool:
    try:
        return is_whole(path.read_bytes(), TEXT_FORMAT, key)
    except OSError:
        return False


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().clone()
