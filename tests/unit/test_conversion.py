"""`python -m memory_encoder convert`: what is written, and what is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from memory_encoder.cli import main
from memory_encoder.conversion import framepack, helios
from memory_encoder.conversion.names import Table
from memory_encoder.injection.hosts.encoder_file import load_encoder

WIDTH = 16


def weights(kind: Any = framepack, dtype: torch.dtype = torch.bfloat16, blocks: int = 2) -> dict[str, Tensor]:
    """A checkpoint of all names of a kind: square layers of WIDTH, vectors for norms, random."""
    g = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for table in kind.TABLES:
        for number in range(blocks if "{}" in table.source else 1):
            for name in names(table):
                plain = name.endswith("scale_shift_table")
                matrix = "norm_q" not in name and "norm_k" not in name and not plain
                prefix = table.source.format(number) + name
                found[prefix if plain else f"{prefix}.weight"] = torch.randn(
                    (WIDTH, WIDTH) if matrix else (WIDTH,), generator=g
                ).to(dtype)
                if matrix:
                    found[f"{prefix}.bias"] = torch.randn(WIDTH, generator=g)
    ends = dict.fromkeys(("proj", "proj_2x", "proj_4x"), "clean_x_embedder.") if kind is framepack else {}
    for size, (name, prefix) in enumerate(
        (ends or dict.fromkeys(("patch_short", "patch_mid", "patch_long"), "")).items()
    ):
        kernel = (2**size, 2 * 2**size, 2 * 2**size)
        found[f"{prefix}{name}.weight"] = torch.randn((WIDTH, 4, *kernel), generator=g).to(dtype)
        found[f"{prefix}{name}.bias"] = torch.randn(WIDTH, generator=g)
    if kind is framepack:
        for name, (rows, columns) in {"up": (3 * WIDTH, 6), "down": (WIDTH, 3 * WIDTH)}.items():
            found[f"image_projection.{name}.weight"] = torch.randn((rows, columns), generator=g).to(dtype)
            found[f"image_projection.{name}.bias"] = torch.randn(rows, generator=g)
    return found


def names(table: Table) -> list[str]:
    fused = [name for olds in (table.fused or {}).values() for name in olds]
    return [*table.simple, *fused, *(old for old, _ in (table.made or {}).values())]


def convert(tmp_path: Path, tensors: dict[str, Tensor], name: str = "framepack_f1") -> int:
    save_file(tensors, tmp_path / f"{name}.safetensors")
    return main(["convert", str(tmp_path / f"{name}.safetensors"), "--out", str(tmp_path / "out")])


def written(tmp_path: Path, name: str = "framepack_f1") -> tuple[dict[str, Tensor], Path]:
    return load_file(
        tmp_path / "out" / f"{name}_model.safetensors"
    ), tmp_path / "out" / f"{name}_memory_encoder.safetensors"


def test_queries_keys_and_values_are_one_layer_and_the_last_modulation_has_its_halves_in_cores_order(tmp_path: Path):
    given = weights()
    assert convert(tmp_path, given) == 0
    made, encoder = written(tmp_path)
    block = "single_transformer_blocks.1."
    rows = [given[f"{block}{name}.weight"] for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    assert torch.equal(made["single_blocks.1.linear1.weight"], torch.cat(rows))
    last, half = given["norm_out.linear.weight"], WIDTH // 2
    assert torch.equal(made["final_layer.adaLN_modulation.1.weight"], torch.cat([last[half:], last[:half]]))
    phi = load_encoder(encoder)
    assert phi.config.locked and phi.config.width == WIDTH and phi.config.picture_width == 6
    assert phi.recent is not None
    assert torch.equal(phi.recent.layers[0].layer.conv.weight, given["clean_x_embedder.proj_4x.weight"].float())


def test_plain_fp8_stays_in_the_model_and_the_encoder_computes_in_sixteen_bits(tmp_path: Path):
    given = weights(dtype=torch.float8_e4m3fn)
    assert convert(tmp_path, given) == 0
    made, encoder = written(tmp_path)
    assert made["double_blocks.0.img_attn.qkv.weight"].dtype == torch.float8_e4m3fn
    assert made["double_blocks.0.img_attn.qkv.bias"].dtype == torch.float32
    with safe_open(str(encoder), framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.bfloat16}  # noqa: SIM118 - not a dict


@pytest.mark.parametrize("scale", ["single_transformer_blocks.0.attn.to_q.scale_weight", "scaled_fp8"])
def test_scaled_fp8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: str):
    assert convert(tmp_path, weights() | {scale: torch.ones(1)}) == 2
    assert "fp8 with scales" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_key_of_an_unknown_name_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(tmp_path, weights() | {"camera.weight": torch.ones(1)}) == 2
    assert "1 tensors of unknown names such as camera.weight" in capsys.readouterr().err


def test_a_key_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = weights()
    del given["transformer_blocks.0.attn.to_k.weight"]
    assert convert(tmp_path, given) == 2
    assert "lacks transformer_blocks.0.attn.to_k.weight" in capsys.readouterr().err


def test_a_foreign_file_is_named_with_what_could_be_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(tmp_path, {"model.layer.weight": torch.ones(1)}, "other") == 2
    assert "other.safetensors is not of the kind framepack, helios" in capsys.readouterr().err
    (tmp_path / "text.safetensors").write_text("no weights")
    assert main(["convert", str(tmp_path / "text.safetensors"), "--out", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def shards(folder: Path, given: dict[str, Tensor], stem: str = "m") -> None:
    folder.mkdir()
    keys = sorted(given)
    parts = {f"{stem}-0000{i + 1}-of-00003.safetensors": keys[i::3] for i in range(3)}
    for name, part in parts.items():
        save_file({key: given[key] for key in part}, folder / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("which", ["", "m.safetensors.index.json", "m-00002-of-00003.safetensors"])
def test_shards_are_found_by_their_folder_their_index_or_one_of_them(tmp_path: Path, which: str):
    given = weights()
    assert convert(tmp_path, given) == 0
    whole = written(tmp_path)[0]
    shards(tmp_path / "f1", given)
    assert main(["convert", str(tmp_path / "f1" / which), "--out", str(tmp_path / "out"), "--name", "x"]) == 0
    made = written(tmp_path, "x")[0]
    assert made.keys() == whole.keys() and all(torch.equal(made[key], whole[key]) for key in whole)


@pytest.mark.parametrize("which", ["", "m.safetensors.index.json", "m-00002-of-00003.safetensors"])
def test_a_missing_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str):
    shards(tmp_path / "f1", weights())
    (tmp_path / "f1" / "m-00003-of-00003.safetensors").unlink()
    assert main(["convert", str(tmp_path / "f1" / which), "--out", str(tmp_path / "out")]) == 2
    assert "shard m-00003-of-00003.safetensors is missing" in capsys.readouterr().err


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=2**40, used=0, free=10))
    assert convert(tmp_path, weights()) == 2
    assert "MiB are free" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_what_breaks_off_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> Tensor:
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr("memory_encoder.conversion.weights.Made.tensor", broken)
    assert convert(tmp_path, weights()) == 2
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_conversion_left_is_removed_by_the_next_one_and_nothing_else(tmp_path: Path):
    """It may be as large as the model, in a folder that holds others."""
    assert convert(tmp_path, weights()) == 0
    made = sorted((tmp_path / "out").iterdir())
    for path in made:
        for end in ("tmp", "tmp.lock"):
            path.with_name(f".{path.name}.0123456789abcdef.{end}").write_text("{}")
    other = tmp_path / "out" / ".another.safetensors.0123456789abcdef.tmp"
    other.write_text("x")
    assert convert(tmp_path, weights()) == 0
    assert sorted((tmp_path / "out").iterdir()) == sorted([other, *made])


def test_one_tensor_at_a_time_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files are larger than the machine's memory: what was read before is gone when the next is read."""
    import gc
    import weakref

    from memory_encoder.conversion.weights import Checkpoint

    alive: list[Any] = []
    most, read = 0, Checkpoint.tensor

    def counted(self: Checkpoint, key: str) -> Tensor:
        nonlocal most
        tensor = read(self, key)
        alive.append(weakref.ref(tensor))
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
        return tensor

    monkeypatch.setattr(Checkpoint, "tensor", counted)
    gc.freeze()  # what was there before is not gone through each time
    try:
        assert convert(tmp_path, weights(blocks=4)) == 0
    finally:
        gc.unfreeze()
    assert most <= 5  # the four of linear1, and the one before


@pytest.mark.parametrize(("name", "warned"), [("FramePackI2V_HY_bf16", True), ("FramePack_F1_I2V_HY", False)])
def test_a_name_that_is_not_the_newer_models_is_pointed_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, warned: bool
):
    assert convert(tmp_path, weights(), name) == 0
    printed = capsys.readouterr().out
    assert ("backwards" in printed) == warned and "South Korea" in printed


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("FramePackI2V_HY/model.safetensors", "FramePackI2V_HY has no F1"),
        ("sdf1/FramePackI2V_HY/model.safetensors", "FramePackI2V_HY has no F1"),
        ("f1/FramePackI2V_HY_bf16.safetensors", "FramePackI2V_HY_bf16.safetensors has no F1"),
        ("FramePack_F1_I2V_HY_20250503/FramePackI2V_HY.safetensors", "FramePackI2V_HY.safetensors has no F1"),
        ("FramePackI2V_HY/transformer/diffusion_pytorch_model.safetensors", "FramePackI2V_HY has no F1"),
        ("sdf1/mine.safetensors", "no name"),
        ("f1ab20/f1cd.safetensors", "no name"),
        ("FramePack_F1_I2V_HY_20250503/diffusion_pytorch_model.safetensors", ""),
        ("FramePack_F1_I2V_HY_20250503/transformer/diffusion_pytorch_model.safetensors", ""),
        ("models--l--FramePack_F1_I2V_HY_20250503/snapshots/1a2b/model.safetensors", ""),
        ("i2v/FramePackF1I2V_bf16.safetensors", ""),
    ],
)
def test_first_framepack_is_told_by_the_nearest_name_that_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, told: str
):
    check_note(tmp_path, framepack, path, f"Check this is F1 ({told}" if told else "", capsys)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("base_models/Helios-Distilled/model.safetensors", "Helios-Distilled is the name of another"),
        ("Helios-Base/helios_mid_bf16.safetensors", "helios_mid_bf16.safetensors is the name of another"),
        ("base_models/HeliosMid/transformer/model.safetensors", "HeliosMid is the name of another"),
        ("base_models/pyramid.safetensors", "no name"),
        ("base/transformer/model.safetensors", "no name"),
        ("Helios-Base/transformer/diffusion_pytorch_model.safetensors", ""),
        ("models--b--Helios-Base/snapshots/1a2b/transformer/model.safetensors", ""),
        ("mid/distilled/helios_base.safetensors", ""),
    ],
)
def test_other_helios_are_told_by_the_nearest_name_that_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, told: str
):
    check_note(tmp_path, helios, path, f"Check this is Helios-Base ({told}" if told else "", capsys)


def check_note(tmp_path: Path, kind: Any, path: str, note: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is said of a checkpoint at a path, given as the file and as its folder."""
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    save_file(weights(kind, blocks=1), file)
    for given in (file, file.parent):
        assert main(["convert", str(given), "--out", str(tmp_path / "out"), "--name", "x"]) == 0
        printed = capsys.readouterr().out
        assert note in printed and ("Check this is" in printed) == bool(note), given


@pytest.mark.parametrize("end", ["", "-00001-of-00003.safetensors", ".safetensors.index.json"])
def test_published_layout_is_known_as_helios_base_however_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
):
    folder = tmp_path / "Helios-Base" / "transformer"
    folder.parent.mkdir()
    shards(folder, weights(helios, blocks=1), "diffusion_pytorch_model")
    given = folder / f"diffusion_pytorch_model{end}" if end else folder
    assert main(["convert", str(given), "--out", str(tmp_path / "out")]) == 0
    assert "Check this is" not in capsys.readouterr().out


def test_helios_old_name_of_its_last_modulation_is_known(tmp_path: Path):
    given = weights(helios)
    assert convert(tmp_path, given, "helios_base") == 0
    new = written(tmp_path, "helios_base")[0]
    given["scale_shift_table"] = given.pop("norm_out.scale_shift_table")
    assert convert(tmp_path, given, "helios_base") == 0
    assert new.keys() == written(tmp_path, "helios_base")[0].keys()
