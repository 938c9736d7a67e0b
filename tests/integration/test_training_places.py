"""Where training and evaluation run, what they take, and what their files may replace."""

from __future__ import annotations

import argparse
import errno
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.evaluation.score import KINDS
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.pictures.codec import Codec
from memory_encoder.training import evaluate_command
from memory_encoder.training.evaluate_command import Judge
from memory_encoder.training.run_files import BEST, LORA, encoder_file, encoder_name, facts_of, run_of

from .models import TinyModel, wan_t2v

PACK = "video_memory_places_test"


@pytest.fixture(scope="module")
def pack(comfy: Any, load_pack: Callable[..., ModuleType]) -> ModuleType:
    return load_pack(PACK)


@pytest.fixture(scope="module")
def runtime(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{PACK}.nodes.runtime.training")


def encoder_for(model: TinyModel) -> MemoryEncoder:
    made = MemoryEncoder(EncoderConfig(model.host.name, model.host.width, 16, channels=(8, 8, 8, 8)))
    made.reset_parameters(torch.Generator().manual_seed(0))
    return made


def test_evaluation_runs_where_the_host_lies(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for a card: on it every mix of devices fails as on one."""
    model = wan_t2v(comfy)
    device, decoded = torch.device("meta"), []

    def load_on_device(patcher: Any) -> torch.device:
        patcher.model.diffusion_model.to(device)
        return device

    def decode(latents: Tensor) -> Tensor:
        decoded.append(latents.device.type)
        return torch.zeros(latents.shape[0], 1 + 4 * (latents.shape[2] - 1), 64, 96, 3)

    def encode(pictures: Tensor) -> Tensor:
        return torch.zeros(1, 16, 1 + (pictures.shape[1] - 1) // 4, *(side // 8 for side in pictures.shape[2:4]))

    codec = Codec(encode=encode, decode=decode, embed=model.host.embed, temporal=4, spatial=8)
    monkeypatch.setattr(evaluate_command, "load_on_device", load_on_device, raising=False)
    monkeypatch.setattr(evaluate_command, "codec", lambda patcher, vae: codec)
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape))  # nothing comes back from `meta`
    args = argparse.Namespace(seed=0, steps=2, guidance=6.0, horizon=0, history_guidance=2.5, whole_history=True)
    judge = Judge(model.patcher, None, [encoder_for(model)], None, args)
    monkeypatch.setattr(judge, "_pictures", lambda path: torch.zeros(9, 64, 96, 3))
    score = judge.score("clip", Path("clip.mp4"))
    assert set(score.psnr) == set(KINDS) and decoded == ["cpu"] * 7


def make_run(folder: Path, run: str | None, encoders: int = 1, steps: int = 0) -> Path:
    facts = {} if run is None else {"run": run, "steps": steps}
    made = MemoryEncoder(EncoderConfig("wan", 16, 4, channels=(8, 8, 8, 8)))
    for number in range(1, encoders + 1):
        encoder_file(made, facts).write(folder / encoder_name(number))
    encoder_file(made, facts).write(folder / LORA)
    return folder


@pytest.fixture
def output(comfy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "output"
    monkeypatch.setattr(comfy.folder_paths, "get_output_directory", lambda: str(folder))
    return folder


def test_publishing_replaces_files_of_the_same_run_and_of_no_other(
    runtime: ModuleType, output: Path, tmp_path: Path
) -> None:
    first, second = make_run(tmp_path / "a2", "one"), make_run(tmp_path / "a", "two", encoders=2)
    assert runtime.publish_run(first, "a_2", 1) == "a_2"
    assert runtime.publish_run(second, "a", 2) == "a-2"  # its second encoder would have been a_2
    places = output / "memory_encoders"
    assert run_of(places / "a_2.safetensors") == "one"
    assert {p.name for p in places.iterdir()} == {"a_2.safetensors", "a-2.safetensors", "a-2_2.safetensors"}
    assert {p.name for p in (output / "loras").iterdir()} == {"a_2.safetensors", "a-2.safetensors"}
    assert runtime.publish_run(second, "a", 2) == "a-2"  # again, in place
    assert len(list(places.iterdir())) == 3


def test_the_best_ones_are_published_beside_the_last_ones_and_have_names_of_their_own(
    runtime: ModuleType, output: Path, tmp_path: Path
) -> None:
    make_run(make_run(tmp_path / "a", "one", 2, 9) / BEST, "one", 2, 4)
    assert runtime.publish_run(tmp_path / "a", "mine", 2) == "mine"
    stems = {"mine": 9, "mine_2": 9, "mine_best": 4, "mine_best_2": 4}
    found = {path.stem: facts_of(path)["steps"] for path in (output / "memory_encoders").iterdir()}
    assert found == stems
    loras = {path.stem: facts_of(path)["steps"] for path in (output / "loras").iterdir()}
    assert loras == {"mine": 9, "mine_best": 4}
    make_run(tmp_path / "a" / BEST, "of an earlier run of this folder", 2)
    make_run(tmp_path / "a", "two", 2)
    assert runtime.publish_run(tmp_path / "a", "other", 2) == "other"
    assert not list(output.rglob("other_best*"))


def test_a_publishing_that_ends_half_way_leaves_the_files_of_before(
    runtime: ModuleType, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as on a full disk, or killed: no LoRA of one step stands beside an encoder of another."""
    make_run(tmp_path / "a", "one", steps=1)
    runtime.publish_run(tmp_path / "a", "mine", 1)
    before = {path: path.read_bytes() for path in output.rglob("*.safetensors")}
    make_run(make_run(tmp_path / "a", "one", steps=2) / BEST, "one", steps=2)
    real, left = shutil.copyfile, [3]

    def copy(source: Path, target: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(OSError, match="free space on the disk"):
        runtime.publish_run(tmp_path / "a", "mine", 1)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_what_a_killed_publishing_left_is_removed_by_the_next_one(
    runtime: ModuleType, output: Path, tmp_path: Path
) -> None:
    make_run(tmp_path / "a", "one", steps=1)
    runtime.publish_run(tmp_path / "a", "mine", 1)
    made = {path for path in output.rglob("*") if path.is_file()}
    for path in made:
        path.with_name(f".{path.name}.0123456789abcdef.tmp").write_text("half")
    runtime.publish_run(tmp_path / "a", "mine", 1)
    assert {path for path in output.rglob("*") if path.is_file()} == made


def test_an_encoder_and_a_lora_of_two_runs_or_steps_are_told_when_they_are_loaded(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = importlib.import_module(f"{PACK}.nodes.encoder_nodes")
    for run, steps in (("one", 1), ("one", 2), ("two", 2), (None, 0)):
        make_run(tmp_path / f"{run}{steps}", run, steps=steps)
    monkeypatch.setattr(
        nodes.folder_paths, "get_full_path_or_raise",
        lambda kind, name: str(tmp_path / name / (LORA if kind == "loras" else encoder_name(1))),
    )  # fmt: skip
    loaded = SimpleNamespace(trained_on=None, decoding_by=lambda lr_vae: None)
    monkeypatch.setattr(nodes, "encoder_and_lora", lambda *_: (None, loaded))

    def said(encoder: str, lora: str, strength: float = 1.0) -> str:
        caplog.clear()
        shown = nodes.VideoMemoryEncoderLoader.execute(None, encoder, lora, strength).ui["text"][0]
        assert all(record.getMessage() in shown for record in caplog.records if record.levelname == "WARNING")
        return shown

    assert "two training runs" in said("one2", "two2")
    assert "is of step 2 of its run and lora.safetensors of step 1" in said("one2", "one1")
    assert said("one2", "two2", 0.0) == nodes.UNTOLD
    for fine in (("one2", "one2"), ("one2", "none"), ("None0", "one2"), ("one2", "None0")):
        assert said(*fine) == nodes.UNTOLD


@pytest.mark.parametrize("own", ["one", None])
def test_a_lora_of_somebody_else_stays(runtime: ModuleType, output: Path, tmp_path: Path, own: str | None) -> None:
    (output / "loras").mkdir(parents=True)
    (output / "loras" / "mine.safetensors").write_bytes(b"theirs")
    assert runtime.publish_run(make_run(tmp_path / "run", own), "mine", 1) == "mine-2"
    assert (output / "loras" / "mine.safetensors").read_bytes() == b"theirs"


def test_a_file_that_is_open_elsewhere_makes_the_next_name(
    runtime: ModuleType, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows refuses to replace a file that another program holds open."""
    folder = make_run(tmp_path / "run", "one")
    real: Callable[[Any], None] = runtime.write_together
    held = {"mine"}

    def write(copies: dict[Path, Path]) -> None:
        if any(path.stem in held and path.parent.name == "memory_encoders" for path in copies):
            raise PermissionError(13, f"cannot write {min(copies)}")
        real(copies)

    monkeypatch.setattr(runtime, "write_together", write)
    assert runtime.publish_run(folder, "mine", 1) == "mine-2"
    assert run_of(output / "memory_encoders" / "mine-2.safetensors") == "one"
    held |= {"other", *(f"other-{number}" for number in range(2, runtime.MOST_NAMES + 1))}
    with pytest.raises(PermissionError):
        runtime.publish_run(folder, "other", 1)


class Packed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4, 8, dtype=torch.uint8), requires_grad=False)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {"weight": torch.empty(4, 8, device="meta")}


def test_a_gguf_model_is_refused_for_training_with_what_to_load(
    comfy: Any, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wan_t2v(comfy).patcher

    def no_copy(**_: Any) -> Any:
        raise RuntimeError("Cannot create non-dynamic delegate: cached_patcher_init is not initialized.")

    monkeypatch.setattr(model, "clone", no_copy)
    with pytest.raises(ValueError, match=r"GGUF.*load a bf16, fp16 or fp8 file"):
        runtime.model_for_training(model)
    packed = SimpleNamespace(model=SimpleNamespace(named_parameters=Packed().named_parameters))
    monkeypatch.setattr(runtime, "host_of", lambda model: packed)
    with pytest.raises(ValueError, match=r"packed \(weight\).*load a bf16, fp16 or fp8 file"):
        runtime.model_for_training(model)


def test_a_gguf_text_encoder_is_told_by_its_packed_weights(pack: ModuleType) -> None:
    dataset = importlib.import_module(f"{PACK}.nodes.cache_clips")
    one, two = Packed(), Packed()
    with torch.no_grad():
        two.weight.add_(1)
    identities = [dataset.text_encoder(SimpleNamespace(cond_stage_model=stage)).identity for stage in (one, two, one)]
    assert identities[0] == identities[2] != identities[1]


def test_a_bad_name_is_called_by_its_input(pack: ModuleType, runtime: ModuleType) -> None:
    folders = importlib.import_module(f"{PACK}.nodes.runtime.folders")
    files = importlib.import_module(f"{PACK}.memory_encoder.files")
    for name in ("", "../up", "con", ".hidden", "x" * 300):
        with pytest.raises(ValueError, match=r"^run: the name"):
            files.named_folder(folders.training_root(), name, "run")
