"""A real ComfyUI as a server, small files to train with, and trained runs; ComfyUI in this process is in
`tests/conftest.py`."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from demo.clip import write_frames
from demo.tiny_family.make_host import HostConfig, write_host
from demo.tiny_family.procedural import make_film
from demo.tiny_family.wan_vae import build_vae
from memory_encoder.cli import main
from tools.comfy_server import ComfyServer
from tools.environment import Environment

from .commands import FPS, cache_arguments

FRAMES = 48  # of the clip in `files`


@pytest.fixture(scope="session")
def comfy_server(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running headless ComfyUI with this pack as it is after an installation: no models, no files of a user."""
    with ComfyServer(tmp_path_factory.mktemp("comfy_server"), environment=comfy_environment) as server:
        yield server


@pytest.fixture(scope="module")
def made(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`made(folder, **options)` lays a short training run there; those of the same options are trained once."""
    from .runs import run

    known: dict[str, Path] = {}

    def copied(folder: Path, **options: Any) -> None:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = tmp_path_factory.mktemp("run")
            run(known[key], **options)
        shutil.copytree(known[key], folder, dirs_exist_ok=True)

    return copied


@pytest.fixture(scope="module")
def words(comfy: Any) -> ModuleType:
    """The demo's text encoder, which lies beside its node and so needs ComfyUI."""
    return importlib.import_module("demo.nodes.text_encoder")


@pytest.fixture(scope="module")
def files(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A host, a VAE and a folder with one captioned clip of three seconds and one broken one."""
    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in build_vae(8).state_dict().items()}, folder / "vae.safetensors")
    write_host(folder / "host.safetensors", HostConfig(dim=128, heads=2, layers=2, ffn_dim=128))
    clips = folder / "clips"
    clips.mkdir()
    with av.open(str(clips / "clip.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 100, 60, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((60, 100, 3), 5 * i, np.uint8)
            picture[20:40, i : i + 40] = 255 - 5 * i if i else 0  # it begins with a black frame
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    (clips / "clip.json").write_text(
        '{"shots": [{"start": 0, "prompt": "Mira waves"}, {"start": 1.9, "prompt": "rain"}]}'
    )
    (clips / "empty.mp4").touch()
    return {"host": folder / "host.safetensors", "vae": folder / "vae.safetensors", "clips": clips}


@pytest.fixture(scope="module")
def cached_clip(files: dict[str, Path], words: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of the clip in `files`."""
    out = tmp_path_factory.mktemp("cached_clip")
    assert main(cache_arguments(files, out)) == 0
    return out


@pytest.fixture(scope="module")
def cached_clips(files: dict[str, Path], words: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of a landscape and a 9:16 clip to train on, and a landscape one that is held out."""
    folder = tmp_path_factory.mktemp("cached_clips")
    (folder / "clips").mkdir()
    for name in ("seen", "unseen"):
        (folder / "clips" / f"{name}.mp4").write_bytes((files["clips"] / "clip.mp4").read_bytes())
    tall = make_film(0, shots=2, width=64, height=96).frames[:21, :, :54]  # 9:16
    write_frames(folder / "clips" / "tall.mp4", tall, FPS)
    given = cache_arguments(files | {"clips": folder / "clips"}, folder / "data")
    assert main([*given, "--heldout", "unseen.mp4"]) == 0
    return folder / "data"
