"""`python -m memory_encoder convert` of LoRAs: whose scale is used, what is recognised, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from memory_encoder.cli import main
from memory_encoder.injection.hosts.encoder_file import read_config, read_encoder

WIDTH = 16
LAYERS = ("self_attn.q", "cross_attn.o", "ffn.0")


def pairs(
    rank: int = 4, blocks: int = 2, ends: tuple[str, str] = ("lora_A.weight", "lora_B.weight")
) -> dict[str, Tensor]:
    """A LoRA in peft's names, of random weights."""
    g = torch.Generator().manual_seed(1)
    found = {}
    for name in (f"base_model.model.blocks.{i}.{layer}" for i in range(blocks) for layer in LAYERS):
        found[f"{name}.{ends[0]}"] = torch.randn(rank, WIDTH, generator=g)
        found[f"{name}.{ends[1]}"] = torch.randn(WIDTH, rank, generator=g)
    return found


def put(path: Path, tensors: Any, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata or None)
    else:
        torch.save(tensors, path)
    return path


def convert(out: Path, *inputs: Path, **options: Any) -> int:
    extra = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return main(["convert", *map(str, inputs), "--out", str(out), *extra])


def scale_in(path: Path) -> set[float]:
    """What core multiplies B A by."""
    tensors = load_file(path)
    names = [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]
    return {round(float(tensors[f"{name}.alpha"]) / tensors[f"{name}.lora_down.weight"].shape[0], 4) for name in names}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("end", ["weight", "default.weight"])
def test_pairs_get_cores_names_and_keep_their_bits(tmp_path: Path, suffix: str, end: str) -> None:
    given = pairs(ends=(f"lora_A.{end}", f"lora_B.{end}"))
    source = put(tmp_path / f"mine{suffix}", given)
    assert convert(tmp_path / "out", source, scale=2) == 0
    made = load_file(tmp_path / "out" / "mine_lora.safetensors")
    assert len(made) == len(given) // 2 * 3
    for name in (f"blocks.{i}.{layer}" for i in range(2) for layer in LAYERS):
        assert torch.equal(
            made[f"diffusion_model.{name}.lora_down.weight"], given[f"base_model.model.{name}.lora_A.{end}"]
        )
        assert torch.equal(
            made[f"diffusion_model.{name}.lora_up.weight"], given[f"base_model.model.{name}.lora_B.{end}"]
        )
        assert float(made[f"diffusion_model.{name}.alpha"]) == 8


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"r": 4, "lora_alpha": 4, "use_rslora": True}, 2),
        ({"r": 4, "lora_alpha": 4}, 1),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4),
        ({"r": 4, "lora_alpha": 8, "use_rslora": False, "alpha_pattern": {"nothing": 3}}, 2),
    ],
)
@pytest.mark.parametrize("place", ["beside", "peft", "diffusers"])
def test_scale_comes_from_the_adapters_settings(
    tmp_path: Path, settings: dict[str, Any], scale: float, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = {}
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    elif place == "peft":
        metadata = {"adapter_config": json.dumps(settings)}
    else:
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": one for key, one in settings.items()})}
    assert convert(tmp_path / "out", put(tmp_path / "mine.safetensors", pairs(), **metadata)) == 0
    assert scale_in(tmp_path / "out" / "mine_lora.safetensors") == {scale}
    said = capsys.readouterr().out
    assert (
        f"scale {scale:g} (" in said and "from its settings" in said and "Licence: that of the file's authors" in said
    )


def test_layers_may_have_an_alpha_of_their_own(tmp_path: Path) -> None:
    settings = {"lora_alpha": 4, "alpha_pattern": {"self_attn.q": 8}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert convert(tmp_path / "out", put(tmp_path / "mine.safetensors", pairs())) == 0
    made = load_file(tmp_path / "out" / "mine_lora.safetensors")
    alphas = [float(made[f"diffusion_model.blocks.0.{layer}.alpha"]) for layer in LAYERS]
    assert alphas == [8, 4, 4]


def test_scale_that_cannot_be_known_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "mine.pth", pairs())
    assert convert(tmp_path / "out", source) == 2
    assert "does not say with which scale its LoRA of rank 4" in (said := capsys.readouterr().err)
    assert "--scale" in said and "1 and 2 where alpha is the rank" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folder", "repeated", "step", "licence"),
    [
        ("StoryMem/Wan2.2-MI2V-A14B", 1, 0, "non-commercial"),
        ("StoryMem/Wan2.2-MM2V-A14B", 5, 0, "non-commercial"),
        ("Memento", 1, 5, "Apache-2.0"),
    ],
)
def test_pair_of_a_known_kind_gets_its_own_scale_and_its_memory_encoder(
    tmp_path: Path, folder: str, repeated: int, step: int, licence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for noise in ("high", "low"):
        put(tmp_path / folder / f"backbone_{noise}_noise.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", tmp_path / folder) == 0
    name = Path(folder).name
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"{name}_{one}.safetensors" for one in ("high_noise_lora", "low_noise_lora", "memory_encoder")]
    for noise in ("high", "low"):
        assert scale_in(tmp_path / "out" / f"{name}_{noise}_noise_lora.safetensors") == {round(math.sqrt(128), 4)}
    config, weights = read_encoder(tmp_path / "out" / f"{name}_memory_encoder.safetensors")
    assert config.variant == "keyframes" and config.clips == "section" and not weights
    assert (config.width, config.repeated_frames, config.picture_step) == (WIDTH, repeated, step)
    assert config.film_times == (name == "Memento")
    said = capsys.readouterr().out
    assert "scale 11.31 (rsLoRA: 128 / sqrt(128)" in said and licence in said


QUERY = {"keyframe_query.queries": torch.ones(3, WIDTH), "keyframe_query.layers.0.q.weight": torch.ones(4, 4)}


def trained_by_memento(noise: str = "low", prefix: str = "{}_noise_model.base_model.model.") -> dict[str, Tensor]:
    """All parameters that Memento trains, in the names that its training gives them."""
    given = pairs(rank=128, blocks=1, ends=("lora_A.default.weight", "lora_B.default.weight"))
    named = {key.removeprefix("base_model.model."): value for key, value in (given | QUERY).items()}
    return {prefix.format(noise) + key: value for key, value in named.items()}


@pytest.mark.parametrize("prefix", ["{}_noise_model.base_model.model.", "base_model.model."])
@pytest.mark.parametrize("wrapper", ["", "trainable_state_dict", "lora_state_dict", ".safetensors"])
def test_memento_is_converted_in_every_form_its_authors_describe_and_what_is_left_out_is_said(
    tmp_path: Path, prefix: str, wrapper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for noise in ("high", "low"):
        given: Any = trained_by_memento(noise, prefix)
        suffix = wrapper if wrapper == ".safetensors" else ".pth"
        if wrapper and suffix == ".pth":
            given = {"epoch": 1, wrapper: given, "optimizer_state_dict": {"state": {}}, "config": {"use_sp": True}}
        put(tmp_path / "memento_lora" / f"backbone_{noise}_noise{suffix}", given)
    assert convert(tmp_path / "out", tmp_path / "memento_lora") == 0
    for noise in ("high", "low"):
        made = tmp_path / "out" / f"memento_lora_{noise}_noise_lora.safetensors"
        ends = ("lora_down.weight", "lora_up.weight", "alpha")
        names = {f"diffusion_model.blocks.0.{layer}.{end}" for layer in LAYERS for end in ends}
        assert set(load_file(made)) == names and scale_in(made) == {round(math.sqrt(128), 4)}
    assert read_config(tmp_path / "out" / "memento_lora_memory_encoder.safetensors").picture_step == 5
    assert "Left out: 4 tensors of keyframe_query" in capsys.readouterr().out


def test_nothing_is_said_to_be_left_out_where_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "memento" / "backbone_low_noise.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", source) == 0
    assert "Left out" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["auto", "lora", "storymem"])
def test_keyframe_queries_are_left_out_for_their_own_kind_alone(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = put(tmp_path / "trainable_step100.pth", trained_by_memento())
    assert convert(tmp_path / "out", source, kind=kind) == 2
    said = capsys.readouterr().err
    assert "keyframe_query.queries, which is no part of a plain LoRA" in said and "say --kind memento" in said
    assert not (tmp_path / "out").exists()
    assert convert(tmp_path / "out", source, kind="memento") == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (trained_by_memento() | {"low_noise_model.patch.weight": torch.ones(2, 2)}, "no part of a plain LoRA"),
        (trained_by_memento("low") | trained_by_memento("high"), "the LoRAs of both experts; save the tensors"),
        (QUERY, "holds no LoRA; give the LoRA's own file"),
    ],
)
def test_of_memento_too_what_is_no_lora_or_two_is_refused(
    tmp_path: Path, given: dict[str, Tensor], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = put(tmp_path / "memento.pth", given)
    assert convert(tmp_path / "out", source) == 2
    assert words in (said := capsys.readouterr().err) and "memento.pth" in said
    assert not (tmp_path / "out").exists()


def test_pairs_of_both_modes_are_converted_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "mm2v_and_mi2v" / f"Wan2.2-{mode}-A14B" for mode in ("MI2V", "MM2V")]
    for folder in folders:
        put(folder / "backbone_high_noise.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", *folders) == 2
    assert "convert one pair at a time" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert convert(tmp_path / "out", folders[0]) == 0
    assert read_config(tmp_path / "out" / "Wan2.2-MI2V-A14B_memory_encoder.safetensors").repeated_frames == 1


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", ["x/y/other/style.safetensors", "Memento/backbone_high_noise.pth"])
def test_no_file_gets_the_scale_and_licence_of_another_kind(
    tmp_path: Path, order: int, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [tmp_path / "StoryMem" / "a" / "backbone_low_noise.pth", tmp_path / other]
    for path in inputs:
        put(path, pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", *inputs[::order]) == 2
    said = capsys.readouterr().err
    assert "backbone_low_noise.pth of storymem" in said and f"{inputs[1].name} of " in said
    assert "convert one kind at a time, or say with --kind" in said and not (tmp_path / "out").exists()
    assert convert(tmp_path / "out", *inputs[::order], kind="storymem") == 0


def test_kind_is_that_of_the_nearest_name(tmp_path: Path) -> None:
    source = put(tmp_path / "storymem" / "Memento" / "backbone_low_noise.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", source) == 0
    assert read_config(tmp_path / "out" / "Memento_memory_encoder.safetensors").picture_step == 5


def test_kind_can_be_said_where_no_name_tells_it(tmp_path: Path) -> None:
    source = put(tmp_path / "backbone_high_noise.safetensors", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "out", source, kind="storymem", name="mine") == 0
    assert scale_in(tmp_path / "out" / "mine_high_noise_lora.safetensors") == {round(math.sqrt(128), 4)}
    assert read_config(tmp_path / "out" / "mine_memory_encoder.safetensors").repeated_frames == 1


def test_file_in_cores_format_is_recognised_by_its_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "storymem_high.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "first", source) == 0
    first = tmp_path / "first" / "storymem_high_lora.safetensors"
    assert convert(tmp_path / "second", first) == 0
    second = tmp_path / "second" / "storymem_high_lora.safetensors"
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert "it was in core's format already" in capsys.readouterr().out


def test_converted_file_whose_scale_is_not_the_trained_one_is_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a tool leaves it that writes alpha = rank: core would then show next to nothing of it."""
    source = put(tmp_path / "renamed.pth", pairs(rank=128, blocks=1))
    assert convert(tmp_path / "first", source, scale=1) == 0
    first = tmp_path / "first" / "renamed_lora.safetensors"
    assert convert(tmp_path / "second", first, kind="storymem") == 2
    assert "scale 1, but storymem was trained with 11.31" in capsys.readouterr().err
    assert convert(tmp_path / "second", first, kind="storymem", scale=11.3137085) == 0
    assert scale_in(tmp_path / "second" / "renamed_lora.safetensors") == {11.3137}


@pytest.mark.parametrize("name", ["core.safetensors", "storymem.safetensors"])
def test_core_names_without_alpha_are_no_reason_to_guess(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever renamed the file may have multiplied its weights by the scale."""
    plain = {key.replace("base_model.model", "diffusion_model"): value for key, value in pairs(rank=128).items()}
    assert convert(tmp_path / "out", put(tmp_path / name, plain)) == 2
    assert "does not say with which scale" in (said := capsys.readouterr().err) and "1 and 11.31" in said
    assert "multiplied the weights" in said


@pytest.mark.parametrize(
    ("alpha", "found"),
    [
        ([math.nan], "nan"),
        ([math.inf], "inf"),
        ([0.0], "0"),
        ([-4.0], "-4"),
        ([4.0, 4.0], "2 values"),
        ([], "0 values"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_alpha_that_is_not_one_number_above_0_is_named_with_its_layer(
    tmp_path: Path, alpha: list[float], found: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = pairs()
    for name in {key.rsplit(".lora_", 1)[0] for key in given}:
        given[f"{name}.alpha"] = torch.tensor(4.0)
    given["base_model.model.blocks.1.ffn.0.alpha"] = torch.tensor(alpha)
    source = put(tmp_path / f"mine{suffix}", given)
    assert convert(tmp_path / "out", source) == 2
    said = capsys.readouterr().err
    assert f"mine{suffix}: blocks.1.ffn.0 has an alpha of {found}, where" in said and "--scale" in said
    assert not (tmp_path / "out").exists()
    assert convert(tmp_path / "out", source, scale=2) == 0
    assert scale_in(tmp_path / "out" / "mine_lora.safetensors") == {2}


@pytest.mark.parametrize("scale", ["1e39", "1e-60"])
def test_scale_that_the_file_cannot_hold_is_refused(
    tmp_path: Path, scale: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path / "out", put(tmp_path / "mine.pth", pairs()), scale=scale) == 2
    assert "mine.pth: blocks.0.self_attn.q would have scale 1e" in (said := capsys.readouterr().err)
    assert "--scale" in said and not (tmp_path / "out").exists()


def test_alpha_may_be_a_number_or_a_list_of_one(tmp_path: Path) -> None:
    given = pairs()
    for i, name in enumerate(sorted({key.rsplit(".lora_", 1)[0] for key in given})):
        given[f"{name}.alpha"] = torch.tensor([8.0] if i % 2 else 8.0, dtype=torch.bfloat16)
    assert convert(tmp_path / "out", put(tmp_path / "mine.safetensors", given)) == 0
    assert scale_in(tmp_path / "out" / "mine_lora.safetensors") == {2}


@pytest.mark.parametrize("kind", ["lora", "storymem", "memento"])
def test_width_is_asked_for_only_by_a_kind_with_a_memory_encoder(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {key: value for key, value in pairs(rank=128).items() if "self_attn" not in key}
    source = put(tmp_path / "mine.safetensors", given)
    if kind == "lora":
        assert convert(tmp_path / "out", source, kind=kind, scale=1) == 0
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine_lora.safetensors"]
        return
    assert convert(tmp_path / "out", source, kind=kind) == 2
    said = capsys.readouterr().err
    assert "mine.safetensors has no LoRA for self_attn.q" in said and "say --kind lora" in said
    assert not (tmp_path / "out").exists()


def test_loras_without_a_memory_may_lie_in_folders_of_both_modes(tmp_path: Path) -> None:
    files = [put(tmp_path / mode / f"{name}.pth", pairs()) for mode, name in (("MI2V", "a"), ("MM2V", "b"))]
    assert convert(tmp_path / "out", *files, kind="lora", scale=1) == 0


class Harmful:
    """What a pickle can do when it is read without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


def broken(change: str) -> Any:
    given: Any = pairs()
    key = "base_model.model.blocks.1.ffn.0.lora_B.weight"
    if change == "half":
        del given[key]
    elif change == "shape":
        given[key] = given[key][:, :3].contiguous()
    elif change == "nan":
        given[key][0, 0] = float("nan")
    elif change == "more":
        given["base_model.model.blocks.1.ffn.0.base_layer.weight"] = torch.ones(4, 4)
    elif change == "dora":
        given["base_model.model.blocks.1.ffn.0.lora_magnitude_vector"] = torch.ones(4)
    elif change == "two":
        given["base_model.model.blocks.1.ffn.0.lora_B.other.weight"] = given[key].clone()
    elif change == "foreign":
        given = {key.replace("self_attn.q", "attn1.to_q"): value for key, value in given.items()}
    elif change == "whole model":
        given = {"blocks.0.self_attn.q.weight": torch.ones(4, 4)}
    elif change == "numbers":
        given = {name: value.to(torch.int32) for name, value in given.items()}
    elif change == "no tensors":
        given = {"epoch": 3}
    elif change == "harmful":
        given = Harmful()
    return given


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("half", "B of nothing; the file is not whole"),
        ("shape", r"A of the shape \[4, 16\] and B of \[16, 3\]"),
        ("nan", "holds NaN or infinite"),
        ("more", "is no part of a plain LoRA"),
        ("dora", "is no part of a plain LoRA"),
        ("two", "more than one LoRA"),
        ("foreign", "no layer of Wan as core names them"),
        ("whole model", "is no part of a plain LoRA"),
        ("numbers", "as torch.int32; give a file of floats"),
        ("no tensors", "is no list of tensors by name"),
        ("harmful", "cannot be read as weights alone"),
    ],
)
def test_what_is_no_whole_plain_lora_is_refused_and_nothing_is_written(
    tmp_path: Path, change: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = put(tmp_path / "good.pth", pairs())
    bad = put(tmp_path / "bad.pth", broken(change))
    assert convert(tmp_path / "out", good, bad, scale=1) == 2
    assert (words in (said := capsys.readouterr().err) or __import__("re").search(words, said)) and "bad.pth" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "harmed").exists()


def test_damaged_files_and_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cut.pth", "cut.safetensors"):
        path = put(tmp_path / name, pairs())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert convert(tmp_path / "out", path, kind="lora", scale=1) == 2
        assert name in (said := capsys.readouterr().err) and "download it again" in said
    assert convert(tmp_path / "out", tmp_path / "none.pth", scale=1) == 2
    assert "is not there" in capsys.readouterr().err
    (tmp_path / "adapter_config.json").write_text("{")
    assert convert(tmp_path / "out", put(tmp_path / "mine.pth", pairs())) == 2
    assert "adapter_config.json is no JSON" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scale_belongs_to_a_lora_and_is_a_number_above_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "mine.pth", pairs())
    for scale in ("0", "nan", "-1"):
        assert convert(tmp_path / "out", source, scale=scale) == 2
        assert "give a number above 0" in capsys.readouterr().err
    model = put(tmp_path / "model.safetensors", {"blocks.0.self_attn.q.weight": torch.ones(4, 4)})
    assert convert(tmp_path / "out", model, scale=1) == 2
    assert "--scale is that of a LoRA" in capsys.readouterr().err


def test_input_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / "mine_lora.safetensors", pairs())
    before = source.read_bytes()
    assert convert(tmp_path, source, scale=1) == 2
    assert "written over itself" in capsys.readouterr().err and source.read_bytes() == before
