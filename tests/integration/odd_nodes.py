"""Nodes that ComfyUI loads for tests: a graph that grows while it runs, a glitch, a ControlNet of nothing."""

from __future__ import annotations

from typing import Any

import comfy.controlnet
from comfy_execution.graph_utils import GraphBuilder

SAMPLER = {
    "model": ("MODEL",),
    "memory_encoder": ("MEMORY_ENCODER",),
    "vae": ("VAE",),
    "storyboard": ("STORYBOARD",),
    "negative": ("CONDITIONING",),
    "sampler": ("SAMPLER",),
    "sigmas": ("SIGMAS",),
    "film": ("STRING", {"default": "film"}),
}


class TestLoop:
    """Makes the sampler while the graph runs, and hands it objects instead of links."""

    FUNCTION, CATEGORY, RETURN_TYPES = "grow", "test", ("STRING",)
    RAW = False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raw = {"redo": ("STRING",)} | {
            name: (*kind, {"rawLink": True}) if len(kind) == 1 else kind for name, kind in SAMPLER.items()
        }
        return {"required": raw if cls.RAW else SAMPLER}

    @classmethod
    def IS_CHANGED(cls, **values: Any) -> float:
        return float("nan")  # always: the film is to be made again though no input has changed

    def grow(self, **values: Any) -> dict[str, Any]:
        graph = GraphBuilder()
        node = graph.node("VideoMemorySampler", cfg=2.0, seed=7, width=64, height=48, **values)
        return {"result": (node.out(2),), "expand": graph.finalize()}


class TestLoopOfLinks(TestLoop):
    """The same with links."""

    RAW = True


class TestGlitch:
    """The model gives NaN in one of its calls, once."""

    FUNCTION, CATEGORY, RETURN_TYPES = "patch", "test", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "call": ("INT", {"default": 0})}}

    def patch(self, model: Any, call: int) -> tuple[Any]:
        calls = 0

        def run(apply: Any, given: dict[str, Any]) -> Any:
            nonlocal calls
            calls += 1
            result = apply(given["input"], given["timestep"], **given["c"])
            return result * float("nan") if calls == call else result

        patched = model.clone()
        patched.set_model_unet_function_wrapper(run)
        return (patched,)


class _Nothing(comfy.controlnet.ControlBase):
    """Core's ControlNet without a net: it controls nothing, but is in the conditioning like any other."""

    def copy(self) -> Any:
        copied = _Nothing()
        self.copy_to(copied)
        return copied

    def get_control(self, *args: Any, **values: Any) -> None:
        return None


class TestControlNet:
    FUNCTION, CATEGORY, RETURN_TYPES = "load", "test", ("CONTROL_NET",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Any]:
        return (_Nothing(),)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (TestLoop, TestLoopOfLinks, TestGlitch, TestControlNet)}
