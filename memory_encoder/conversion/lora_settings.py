"""What peft says of a LoRA: in the metadata of a safetensors file, or in an adapter_config.json beside the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .weights import ConversionError


def metadata_of(path: Path) -> dict[str, Any]:
    """The adapter's settings in a safetensors file's metadata, as peft, diffusers and others write them; {} without."""
    with safe_open(str(path), framework="pt") as file:
        metadata: dict[str, Any] = file.metadata() or {}
    for name in ("lora_adapter_metadata", "adapter_config"):
        found = _settings(metadata.get(name, ""))
        found = {key.removeprefix("transformer."): value for key, value in found.items()}
        if "lora_alpha" in found:
            return found
    return {}


def neighbour_of(path: Path) -> dict[str, Any]:
    """Those in an adapter_config.json beside the file; {} without one. Raises ConversionError for one that is none."""
    config = path.with_name("adapter_config.json")
    try:
        return _settings(config.read_text(encoding="utf-8"), config.name)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{config} cannot be read ({error}); download it again, or give --scale") from error


def setting(settings: Mapping[str, Any], field: str, pattern: str, name: str) -> float | None:
    """A number of peft's settings for a layer; patterns name layers that have one of their own."""
    value = settings.get(field)
    patterns = settings.get(pattern)
    for ending, own in patterns.items() if isinstance(patterns, Mapping) else ():
        if name == ending or name.endswith(f".{ending}"):
            value = own
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 < value < math.inf else None  # type: ignore[arg-type, operator]


def _settings(text: str, source: str = "") -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if source:
            raise ConversionError(f"{source} is no JSON ({error}); download it again") from error
        return {}
    return data if isinstance(data, dict) else {}
