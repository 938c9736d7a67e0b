"""Collects the pack's nodes; a topic or node that cannot be built is left out with a message, the others load."""

from __future__ import annotations

import importlib
import logging

from comfy_api.latest import ComfyExtension, io

log = logging.getLogger("video_memory")
OLDEST = "ComfyUI 0.14 is the oldest for Wan, 0.17 for HunyuanVideo: update ComfyUI"  # as in pyproject.toml
TOPICS = (
    "encoder_nodes",
    "history",
    "storyboard_node",
    "sampler",
    "retrieve_frames",
    "cache_clips",
    "train_node",
    "saving",
    "film_report",
    "cut_and_join",
    "history_clip",
    "demo_nodes",
)
CORE = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "latent_preview", "node_helpers", "nodes", "server"}


class VideoMemoryExtension(ComfyExtension):
    """The extension object that ComfyUI asks for nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .runtime.folders import register_folders

        register_folders()
        _register_routes()
        return [node for topic in TOPICS for node in _nodes_of(topic)]


def _register_routes() -> None:
    try:
        importlib.import_module(".routes", __package__).register_routes()
    except Exception:  # the nodes work without the editors
        log.exception("nothing can be served to the page; the editors on the nodes stay without answers")


def _nodes_of(topic: str) -> list[type[io.ComfyNode]]:
    try:
        module = importlib.import_module(f".{topic}", __package__)
    except AttributeError:
        log.exception("nodes of %s are not available; %s", topic, OLDEST)
        return []
    except ImportError as error:
        cures = {"cv2": "install an OpenCV, for example opencv-python-headless"}
        root = (error.name or "").partition(".")[0]
        cure = cures.get(root, OLDEST if root in CORE else "see requirements.txt")
        log.error("nodes of %s are not available: %s is missing; %s", topic, error.name or error, cure)
        return []
    return [node for node in module.NODES if _builds(node)]


def _builds(node: type[io.ComfyNode]) -> bool:
    try:
        node.GET_SCHEMA()
    except Exception:
        log.exception("node %s cannot be built and is left out; %s", node.__name__, OLDEST)
        return False
    return True


async def comfy_entrypoint() -> VideoMemoryExtension:
    """Called by ComfyUI when it loads the pack."""
    return VideoMemoryExtension()
