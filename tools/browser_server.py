"""A ComfyUI for the browser: this pack, the tiny family, and what the shipped workflows name.

    python -m tools.browser_server                                  until Ctrl+C
    python -m tools.browser_server node --test tests/browser/x.mjs  a command, with the addresses in its environment

Full-size models are empty files here: their loaders list them, so that workflows load as on a machine that has them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from demo.tiny_family.install import install_models
from memory_encoder.phi.config import EncoderConfig
from tools.browser import BrowserTools, find
from tools.comfy_server import ComfyServer
from tools.environment import ROOT, Environment, prepare

WORKFLOWS = ROOT / "workflows"
TEST_NODES = ROOT / "tests" / "integration" / "hold_node.py"


@contextlib.contextmanager
def browser_server(work: Path, environment: Environment, custom_nodes: Sequence[Path] = ()) -> Iterator[ComfyServer]:
    """Runs ComfyUI in `work` with everything that the shipped workflows choose from, and further custom nodes."""
    server = ComfyServer(work, environment=environment, custom_nodes=custom_nodes)
    server.input_dir.mkdir(parents=True, exist_ok=True)
    install_models(server.models_dir)
    for model in declared_models():
        path = server.models_dir / model["directory"] / model["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (server.models_dir / "diffusion_models" / "framepack_f1_model.safetensors").touch()  # what convert makes
    write_settings(server.models_dir / "memory_encoders" / "framepack_f1_memory_encoder.safetensors")
    for name in ("my_memory", "my_film_memory"):  # what the workflows pretrain and finetune leave behind
        write_settings(server.models_dir / "memory_encoders" / f"{name}.safetensors")
        (server.models_dir / "loras").mkdir(exist_ok=True)
        (server.models_dir / "loras" / f"{name}.safetensors").touch()
    for name in ("high", "low"):  # what convert makes of StoryMem's files
        (server.models_dir / "loras" / f"storymem_mi2v_{name}_noise_lora.safetensors").touch()
    keyframes = EncoderConfig("wan", 5120, 16, variant="keyframes", clips="section", repeated_frames=1)
    write_settings(server.models_dir / "memory_encoders" / "storymem_mi2v_memory_encoder.safetensors", keyframes)
    with server:
        yield server


WAN_5B = EncoderConfig("wan", 3072, 48, memory_attention="cached", cross_blocks=30)


def write_settings(path: Path, config: EncoderConfig = WAN_5B) -> None:
    """The settings of an encoder without its weights: the Storyboard reads no more of it."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        save_file({}, path, config.to_metadata())


def declared_models() -> list[dict[str, Any]]:
    """The models that the shipped workflows declare on their loaders."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(WORKFLOWS.glob("*.json")):
        for node in json.loads(path.read_text()).get("nodes", []):
            found |= {model["name"]: model for model in node.get("properties", {}).get("models", [])}
    return list(found.values())


def variables(server: ComfyServer, tools: BrowserTools) -> dict[str, str]:
    """The environment of a program that drives the browser."""
    return tools.variables() | {"VIDEO_MEMORY_TEST_URL": server.url, "VIDEO_MEMORY_WORK": str(server.workdir)}


def main() -> int:
    tools, missing = find()
    if tools is None:
        sys.exit(f"{missing}; run python -m tools.browser")
    with tempfile.TemporaryDirectory() as work, browser_server(Path(work), prepare(), [TEST_NODES]) as server:
        if sys.argv[1:]:
            return subprocess.run(sys.argv[1:], env=variables(server, tools), check=False).returncode
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
