"""What a result must say about the machine, without naming it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

GIB = 1024**3


def cpu_model() -> str:
    """The processor's name as the system gives it, or its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no such file outside of Linux
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> dict[str, Any]:
    """Its name and the cores that this process may use."""
    return {"cpu": cpu_model(), "cores": cores()}


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, for judging how quiet the machine was."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def describe(device: torch.device, total_ram: int, comfy_version: str) -> dict[str, Any]:
    """Processor, cores, memory and versions; total_ram in bytes."""
    graphics = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        graphics = {"name": properties.name, "memory_gib": round(properties.total_memory / GIB, 1)}
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "ram_gib": round(total_ram / GIB, 1),
        "gpu": graphics,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "comfyui": comfy_version,
    }


def short_name(machine: dict[str, Any]) -> str:
    """A file name's worth of it: the GPU, or cores and processor."""
    cpu = re.sub(r"\(\w+\)|\bCPU\b|\bProcessor\b|@", " ", machine["cpu"])
    name = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cores']}-core {cpu}"
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
