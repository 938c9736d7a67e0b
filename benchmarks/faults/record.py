"""What came out, in one JSON file: benchmarks/results/faults.json, by kind of fault and case."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory_encoder.files import write_bytes
from memory_encoder.locks import BusyError, alone
from tools.machine import load_average, processor

RESULTS = Path(__file__).resolve().parent.parent / "results" / "faults.json"
log = logging.getLogger("faults")


def results(path: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Everything so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@contextlib.contextmanager
def its_turn(lock: Path) -> Iterator[None]:
    """Several commands may run at once."""
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone(lock))
            except BusyError:
                time.sleep(0.05)
                continue
            yield
            return


def add_result(kind: str, case: str, result: dict[str, Any], path: Path = RESULTS) -> None:
    """Adds or replaces one case."""
    with its_turn(path.with_name(f".{path.name}.lock")):
        found = results(path)
        found.setdefault(kind, {})[case] = result
        found["machine"] = {**processor(), "load": load_average()}
        write_bytes(path, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    log.info("%s, %s: %s", kind, case, {name: value for name, value in result.items() if name != "examples"})
