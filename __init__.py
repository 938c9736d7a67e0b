"""ComfyUI-VideoMemory: entry point for ComfyUI."""

from .nodes.extension import comfy_entrypoint

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
