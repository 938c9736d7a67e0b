"""The commands that cache clips and train, at the size of the fixture `files`."""

from __future__ import annotations

from pathlib import Path

from memory_encoder.cli import main

TEXT_ENCODER = "demo.nodes.text_encoder:HashTextEncoder"
WIDTH, HEIGHT, FPS = 64, 48, 16


def cache_arguments(files: dict[str, Path], out: Path) -> list[str]:
    return [
        "cache", "--clips", str(files["clips"]), "--out", str(out), "--host", str(files["host"]),
        "--vae", str(files["vae"]), "--text-encoder", TEXT_ENCODER, "--fps", str(FPS), "--width", str(WIDTH),
        "--height", str(HEIGHT), "--window-seconds", "1.5", "--rates", "4x4x2,2x2x2", "--heldout", "0",
    ]  # fmt: skip


def train(files: dict[str, Path], cached: Path, out: Path, *more: str) -> int:
    fixed = ["train", "--dataset", str(cached), "--host", str(files["host"]), "--out", str(out)]
    fixed += [] if "--encoder" in more else ["--rate", "2x2x2"]
    small = ["--steps", "3", "--batch-size", "2", "--rank", "4", "--section", "2", "--checkpoint-every", "2"]
    return main([*fixed, *small, *more])
