"""Which VAE latents were made with, in whatever type its weights are loaded: core takes bf16 on one card, fp16 or
float32 on another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...damage import DAMAGE
from ...files import read_plain

_PROBED_VALUES = 64  # per weight
_SIGNS = "signs-"  # what an identity begins with; that of 0.1.0 is a `fingerprint`, which rounding changes


def vae_identity(weights: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes and the signs of some values, which no rounding changes; training flips many of them."""
    return _SIGNS + _hash(weights, lambda values: torch.signbit(values).to(torch.uint8))


def fingerprint(weights: Mapping[str, Tensor], rounded: torch.dtype = torch.float32) -> str:
    """Hash of names, shapes and some values of each weight: other weights, other hash, whatever device they lie on.

    rounded: as if they had been loaded in that type.
    """
    return _hash(weights, lambda values: values.to(rounded).to(torch.float32))


def is_vae(identity: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether an identity is of these weights; one of 0.1.0 where it was taken in this type, or in a half one."""
    if identity.startswith(_SIGNS):
        return identity == vae_identity(weights)
    return any(identity == fingerprint(weights, kind) for kind in (torch.float32, torch.bfloat16, torch.float16))


def identity_in(head: Path, weights: Mapping[str, Tensor]) -> str:
    """The identity of a VAE as the head of a dataset has it, so that one that was begun earlier goes on."""
    try:
        known = str(json.loads(read_plain(head))["space"]["vae"])
    except (OSError, *DAMAGE):  # there is none yet, or who opens it will say what is wrong
        return vae_identity(weights)
    return known if is_vae(known, weights) else vae_identity(weights)


def may_be_one_vae(one: str, other: str) -> bool:
    """Whether two identities may be of one VAE; one of 0.1.0 says nothing of one of today."""
    return one == other or one.startswith(_SIGNS) != other.startswith(_SIGNS)


def _hash(weights: Mapping[str, Tensor], of: Callable[[Tensor], Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name].detach()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        if weight.numel() and not weight.is_meta:
            step = max(1, weight.numel() // _PROBED_VALUES)
            values = weight.flatten()[::step][:_PROBED_VALUES].to(device="cpu", dtype=torch.float32)
            digest.update(of(values).contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
