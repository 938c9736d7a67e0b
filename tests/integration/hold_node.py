"""A ComfyUI node for tests alone: a SAMPLER that stops in one step until it is told otherwise or interrupted.

So a test acts in the section that it means, however fast the machine is. `hold.json` in ComfyUI's input folder says
where: `[section, step]`, both counted from 0, or "before", for a sampler that does not begin until the file says
something else or is gone. It is no part of the prompt, so that the sections keep their keys.
Every step is told as a message `test.step`, since ComfyUI's own messages of progress leave out some.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
from comfy.samplers import Sampler
from server import PromptServer


class Held(Sampler):
    def __init__(self, sampler: Any) -> None:
        self.sampler, self.sections = sampler, 0

    def sample(self, model: Any, sigmas: Any, extra_args: Any, callback: Any, *args: Any, **more: Any) -> Any:
        section = self.sections
        self.sections += 1

        def stepped(step: int, *state: Any) -> None:
            callback(step, *state)
            PromptServer.instance.send_sync("test.step", {"section": section, "step": step})
            # The run itself has to notice an interrupt.
            while [section, step] == place() and not comfy.model_management.processing_interrupted():
                time.sleep(0.01)

        return self.sampler.sample(model, sigmas, extra_args, stepped, *args, **more)


def place() -> list[int] | str | None:
    path = Path(folder_paths.get_input_directory(), "hold.json")
    return json.loads(path.read_text()) if path.is_file() else None


class TestHold:
    CATEGORY, FUNCTION, RETURN_TYPES = "test", "run", ("SAMPLER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"sampler": ("SAMPLER",)}}

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        return float("nan")  # sections are counted anew in each run

    def run(self, sampler: Any) -> tuple[Held]:
        while place() == "before":
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        return (Held(sampler),)


NODE_CLASS_MAPPINGS = {"TestHold": TestHold}
