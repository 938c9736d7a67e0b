"""Core's dynamic VRAM on a processor: its own patcher over stand-ins for the library that hands out a card's pages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

CARD = torch.device("cpu", 0)  # stands for the card: another device than `cpu` to core, with real values


class _Buffer:
    """comfy_aimdo's pinned RAM; none is ever taken."""

    size = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def truncate(self, *_: Any, **__: Any) -> None: ...


class _Pages:
    """comfy_aimdo's pages of a card, which hold nothing; the driver reserves no room of no bytes."""

    def __init__(self, size: int, *_: Any, **__: Any) -> None:
        if not size:
            raise MemoryError("VBAR allocation failed")

    def prioritize(self) -> None: ...

    def alloc(self, size: int) -> tuple[Any, int, int]:
        return self, 0, size

    def loaded_size(self) -> int:
        return 0

    def free_memory(self, size: int) -> int:
        return 0


def use_card(comfy: Any, monkeypatch: pytest.MonkeyPatch, device: torch.device = CARD, free: float = 16e9) -> None:
    """Core takes `device` for a card of which so many bytes are free, its models loaded as by its ordinary patcher."""

    def free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        return (free, 0) if torch_free_too else free

    management = comfy.model_management
    monkeypatch.setattr(management, "get_torch_device", lambda: device)
    monkeypatch.setattr(management, "is_device_cpu", lambda _: False)
    monkeypatch.setattr(management, "current_loaded_models", [])
    monkeypatch.setattr(management, "get_free_memory", free_memory)


def use_dynamic_vram(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What core loads from now on it loads with its dynamic VRAM. Skips where core has none."""
    pytest.importorskip("comfy_aimdo")
    patcher, utils = comfy.module("comfy.model_patcher"), comfy.module("comfy.utils")
    if not hasattr(patcher, "ModelPatcherDynamic"):
        pytest.skip("this ComfyUI has no dynamic VRAM")
    monkeypatch.setattr(comfy.module("comfy_aimdo.host_buffer"), "HostBuffer", _Buffer)
    pages = comfy.module("comfy_aimdo.model_vbar")
    monkeypatch.setattr(pages, "ModelVBAR", _Pages)
    monkeypatch.setattr(pages, "vbar_unpin", lambda _: None)
    monkeypatch.setattr(pages, "vbars_analyze", lambda *_: 0)
    read = utils.load_torch_file

    def read_plainly(*args: Any, **kwargs: Any) -> Any:
        """Not mapped by the library."""
        with monkeypatch.context() as plain:
            plain.setattr(comfy.module("comfy.memory_management"), "aimdo_enabled", False)
            return read(*args, **kwargs)

    monkeypatch.setattr(utils, "load_torch_file", read_plainly)
    monkeypatch.setattr(patcher, "CoreModelPatcher", patcher.ModelPatcherDynamic)
    monkeypatch.setattr(comfy.module("comfy.memory_management"), "aimdo_enabled", True)
