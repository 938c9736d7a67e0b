"""ViCLIP in core's parts: the same numbers as plain tensor operations, taken by the node and by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from demo.clip import write_frames
from memory_encoder.cli import main
from memory_encoder.evaluation.judge import judge_command
from memory_encoder.evaluation.judge.instruments import VICLIP
from memory_encoder.evaluation.judge.report import REPORT_JSON
from memory_encoder.evaluation.judge.viclip import ViClip
from tests.unit.judged_films import FPS, drawn_film, embed, pictures_of

WIDTH, WORDS_WIDTH, FRAMES, PATCH, GRID, WORDS = 128, 64, 8, 8, 2, 12
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BEGIN, END = 49406, 49407
TEXTS = {  # as OpenAI's own tokenizer reads them
    "A red door": (320, 736, 2489),
    "the red door opens on a green field, and rain falls on it all day": (
        518, 736, 2489, 4801, 525, 320, 1901, 1570, 267, 537, 2443, 4778, 525, 585, 615, 575,
    ),
}  # fmt: skip


def published() -> dict[str, Tensor]:
    """A tiny ViCLIP of random numbers under the names of the published file; what half precision holds."""
    generator = torch.Generator().manual_seed(0)

    def random(*size: int, std: float = 0.1) -> Tensor:
        return (std * torch.randn(size, generator=generator)).half().float()

    state = {
        "temp": torch.tensor(0.01),
        "vision_encoder.class_embedding": random(WIDTH),
        "vision_encoder.positional_embedding": random(GRID**2 + 1, WIDTH),
        "vision_encoder.temporal_positional_embedding": random(1, FRAMES, WIDTH),
        "vision_encoder.conv1.weight": random(WIDTH, 3, 1, PATCH, PATCH),
        "vision_encoder.proj": random(WIDTH, WORDS_WIDTH),
        "text_encoder.positional_embedding": random(WORDS, WORDS_WIDTH),
        "text_encoder.token_embedding.weight": random(END + 1, WORDS_WIDTH),
        "text_encoder.text_projection": random(WORDS_WIDTH, WORDS_WIDTH),
    }
    for tower, width, norms in (("vision", WIDTH, ("ln_pre", "ln_post")), ("text", WORDS_WIDTH, ("ln_final",))):
        blocks = [f"{tower}_encoder.transformer.resblocks.{number}" for number in range(2)]
        for norm in (*(f"{tower}_encoder.{name}" for name in norms), *(f"{b}.ln_{n}" for b in blocks for n in (1, 2))):
            state |= {f"{norm}.weight": (1 + random(width)).half().float(), f"{norm}.bias": random(width)}
        for block in blocks:
            state |= {f"{block}.attn.in_proj_weight": random(3 * width, width)}
            state |= {f"{block}.attn.in_proj_bias": random(3 * width)}
            for name, rows, columns in (
                ("attn.out_proj", width, width), ("mlp.c_fc", 4 * width, width), ("mlp.c_proj", width, 4 * width),
            ):  # fmt: skip
                state |= {f"{block}.{name}.weight": random(rows, columns), f"{block}.{name}.bias": random(rows)}
    return state


def normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def transformed(state: dict[str, Tensor], tower: str, x: Tensor, causal: bool) -> Tensor:
    """Tokens [L,D] after the blocks of a tower, as its authors have it, in plain operations."""
    for number in range(2):
        block = f"{tower}.transformer.resblocks.{number}"
        y = normed(state, f"{block}.ln_1", x)
        qkv = y @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
        q, k, v = (part.view(len(x), -1, 64).movedim(1, 0) for part in qkv.chunk(3, dim=-1))
        scores = q @ k.mT / 8
        if causal:
            scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
        x = x + linear(state, f"{block}.attn.out_proj", (scores.softmax(-1) @ v).movedim(0, 1).flatten(1))
        y = linear(state, f"{block}.mlp.c_fc", normed(state, f"{block}.ln_2", x))
        x = x + linear(state, f"{block}.mlp.c_proj", y * torch.sigmoid(1.702 * y))
    return x


def video_of(state: dict[str, Tensor], pictures: np.ndarray) -> Tensor:
    tower = "vision_encoder"
    patches = []
    for frame, time in zip(pictures, state[f"{tower}.temporal_positional_embedding"][0], strict=True):
        pixels = (torch.from_numpy(frame).float() / 255 - MEAN) / STD
        places = iter(state[f"{tower}.positional_embedding"][1:])
        for row in range(GRID):
            for column in range(GRID):
                patch = pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH].movedim(-1, 0)
                seen = (state[f"{tower}.conv1.weight"][:, :, 0] * patch).sum(dim=(1, 2, 3))
                patches.append(seen + next(places) + time)
    first = state[f"{tower}.class_embedding"] + state[f"{tower}.positional_embedding"][0]
    x = transformed(state, tower, normed(state, f"{tower}.ln_pre", torch.stack([first, *patches])), causal=False)
    return normed(state, f"{tower}.ln_post", x[0]) @ state[f"{tower}.proj"]


def text_of(state: dict[str, Tensor], tokens: tuple[int, ...]) -> Tensor:
    tower = "text_encoder"
    read = [BEGIN, *tokens[: WORDS - 2], END]
    x = state[f"{tower}.token_embedding.weight"][read] + state[f"{tower}.positional_embedding"][: len(read)]
    return (
        normed(state, f"{tower}.ln_final", transformed(state, tower, x, causal=True))[-1]
        @ state[f"{tower}.text_projection"]
    )


@pytest.fixture(scope="module")
def models(comfy: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of models with the file as it is published."""
    folder = tmp_path_factory.mktemp("models")
    torch.save({"model": published()}, folder / VICLIP)
    yield folder


@pytest.mark.parametrize("kind", ["published", "safetensors"])
def test_videos_and_texts_become_the_numbers_of_plain_operations(models: Path, kind: str, tmp_path: Path) -> None:
    path, state = models / VICLIP, published()
    if kind == "safetensors":
        path = tmp_path / "ViCLIP-tiny.safetensors"
        save_file(state, path)
    viclip = ViClip.load(path)
    pictures = np.random.default_rng(0).integers(0, 256, (FRAMES, GRID * PATCH, GRID * PATCH, 3)).astype(np.uint8)
    torch.testing.assert_close(viclip.video(pictures), video_of(state, pictures), atol=2e-5, rtol=2e-5)
    assert not torch.allclose(viclip.video(pictures), viclip.video(pictures[::-1]), atol=1e-2)  # time counts
    for said, tokens in TEXTS.items():
        torch.testing.assert_close(viclip.text(said), text_of(state, tokens), atol=2e-5, rtol=2e-5)


def test_a_file_that_is_no_viclip_is_named(models: Path, tmp_path: Path) -> None:
    state = published()
    less = {name: tensor for name, tensor in state.items() if "text_encoder.ln_final" not in name}
    more = state | {"vision_encoder.transformer.resblocks.0.more.weight": torch.zeros(2)}
    for content in ({"model": less}, {"model": more}, {"model": {}}, {"weights": [1]}, less):
        torch.save(content, tmp_path / VICLIP)
        with pytest.raises(ValueError, match=rf"ViCLIP weights {VICLIP} is damaged or not one .*fetch them again"):
            ViClip.load(tmp_path / VICLIP)
    (tmp_path / VICLIP).write_bytes(b"no weights")
    with pytest.raises(ValueError, match="ViCLIP weights"):
        ViClip.load(tmp_path / VICLIP)


class Vision:
    """In the place of core's CLIP_VISION, whose smallest is too large for a test: knows colours alone."""

    def encode_image(self, pictures: Tensor) -> dict[str, Tensor]:
        return {"image_embeds": embed(pictures)}


class Text:
    """In the place of core's CLIP: the colour that a text names first, else grey."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens(self, tokens: str, return_pooled: bool) -> tuple[None, Tensor]:
        from memory_encoder.evaluation.judge.likeness import COLOURS

        colour = next((colour for name, colour in COLOURS.items() if name in tokens), (127, 127, 127))
        return None, embed(torch.tensor(colour).expand(1, 8, 8, 3).float() / 255) + 1e-6


def test_the_command_takes_viclip_from_models_and_clip_from_files(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = drawn_film(19)
    write_frames(tmp_path / "film.mp4", np.concatenate(pictures_of(film)), FPS, quality=18)
    (tmp_path / "storyboard.txt").write_text(" ".join(f"[{s.start / FPS:g}s: {s.prompt}]" for s in film.shots), "utf-8")
    seen: list[Path] = []
    monkeypatch.setattr(judge_command, "load_clip_vision", lambda path: seen.append(path) or Vision())
    given = ["judge", str(tmp_path / "film.mp4"), "--storyboard", str(tmp_path / "storyboard.txt")]
    clip = ["--clip-vision", "vision.safetensors", "--clip", f"{__name__}:Text"]

    def measured(*options: str) -> dict[str, str]:
        assert main([*given, *options, "--out", str(tmp_path)]) == 0
        found = json.loads((tmp_path / REPORT_JSON).read_text("utf-8"))
        assert {name for shot in found["shots"] for name in shot["measures"]} == {*found["measures"]} - {"seams"}
        return {name: measure["with"] for name, measure in found["measures"].items()}

    assert measured("--models", str(models))["semantic"] == "ViCLIP"
    tools = measured(*clip)
    assert tools["semantic"] == "CLIP" and "CLIP similarity" in tools["objects"] and seen == [Path(clip[1])]


def test_a_clip_vision_that_is_none_is_named(comfy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "film.mp4").touch()
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, said in (("none", "does not exist; give the path"), ("other", "core does not know this model")):
        path = tmp_path / f"{name}.safetensors"
        assert main(["judge", str(tmp_path / "film.mp4"), "--clip-vision", str(path)]) == 2
        assert f"CLIP vision {path}" in (shown := capsys.readouterr().err) and said in shown
