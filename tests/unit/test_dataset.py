"""The dataset cache with a stand-in VAE: what is found again, what a window is called, and what is drawn."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from memory_encoder.training.dataset.cache import build_cache, find_clips
from memory_encoder.training.dataset.clips import Progress
from memory_encoder.training.dataset.dataset import MemoryDataset, collate
from memory_encoder.training.dataset.in_memory import dataset_from_latents
from memory_encoder.training.dataset.rows import passes
from memory_encoder.training.dataset.same_vae import fingerprint
from memory_encoder.training.dataset.settings import DatasetError, heldout_names, parse_heldout
from memory_encoder.training.dataset.text import Conditioning, stack
from memory_encoder.training.dataset.windows import low_resolution_latents
from tests.unit.dataset_clips import (
    LATENTS,
    SETTINGS,
    SPACE,
    TEXT,
    CountingCodec,
    Words,
    cache,
    counting,
    picklable_codec,
    write_video,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    counting(tmp_path / "clips" / "a.mp4", 36)
    counting(tmp_path / "clips" / "deep" / "b.mkv", 17)
    return tmp_path / "clips"


def test_a_second_run_encodes_nothing_and_writes_the_sameindex_of(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("a caption")
    codec, words = CountingCodec(), Words()
    assert cache(clips, tmp_path / "out", codec, words).encoded == 3
    index, done, said = (tmp_path / "out" / "index.json").read_bytes(), codec.encoded, list(words.encoded)
    assert cache(clips, tmp_path / "out", codec, words).encoded == 0
    assert (codec.encoded, words.encoded) == (done, said) and said == ["", "a caption"]
    assert (tmp_path / "out" / "index.json").read_bytes() == index


def test_other_captions_encode_text_alone(clips: Path, tmp_path: Path) -> None:
    codec, words = CountingCodec(), Words()
    cache(clips, tmp_path / "out", codec, words)
    done = codec.encoded
    (clips / "a.txt").write_text("new words")
    cache(clips, tmp_path / "out", codec, words)
    assert codec.encoded == done and words.encoded == ["", "new words"]
    assert MemoryDataset.open(tmp_path / "out")[0].prompt == "new words"


@pytest.mark.parametrize("change", [{"fps": 7.0}, {"width": 48}, {"rates": ("2x2x4",)}, {"stride_seconds": 1.0}])
def test_other_settings_are_encoded_anew(clips: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    cache(clips, tmp_path / "out")
    assert cache(clips, tmp_path / "out", **change).encoded > 0


def test_another_clip_under_the_same_name_is_encoded_anew_and_others_are_not(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    write_video(clips / "deep" / "b.mkv", [30] * 17)
    assert cache(clips, tmp_path / "out").encoded == 1


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_killed_between_shards_goes_on_where_it_was_to_the_sameindex_of(
    clips: Path, tmp_path: Path, after: int
) -> None:
    codec = CountingCodec()

    def kill(progress: Progress) -> None:
        if codec.encoded >= after * 3:  # one window takes three calls of the VAE
            raise Killed

    with pytest.raises(Killed):
        cache(clips, tmp_path / "out", codec, watch=kill)
    assert not (tmp_path / "out" / "index.json").exists()
    (tmp_path / "out" / "shards" / ".half.tmp").write_bytes(b"half")
    assert cache(clips, tmp_path / "out").encoded == 3 - after
    assert not list((tmp_path / "out").rglob("*.tmp"))
    cache(clips, tmp_path / "whole")
    indexes = [(tmp_path / name / "index.json").read_bytes() for name in ("out", "whole")]
    assert indexes[0] == indexes[1]


def test_two_processes_make_the_index_of_one(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # For the processes: ComfyUI, which other tests put on the path, has a package `tests` too.
    monkeypatch.setattr(
        sys, "path", [str(ROOT), *(entry for entry in sys.path if not (Path(entry) / "comfy").is_dir())]
    )
    for name, jobs in (("one", 1), ("two", 2)):
        build_cache(clips, tmp_path / name, SETTINGS, SPACE, picklable_codec, jobs=jobs)
    assert (tmp_path / "one" / "index.json").read_bytes() == (tmp_path / "two" / "index.json").read_bytes()


def test_the_nearest_caption_in_time_is_the_prompt_of_a_window_and_of_a_section(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("[0s: early] [2.5s-3s: middle] [4s: late]")
    cache(clips, tmp_path / "out", words=Words())
    first, second = (MemoryDataset.open(tmp_path / "out")[i] for i in (0, 1))
    assert (first.prompt, second.prompt) == ("early", "middle")
    assert second.seconds_at(0) == 17 / 8 and second.seconds_at(1) == 18 / 8 and second.seconds_at(LATENTS) == 34 / 8
    assert [second.prompt_for(k, 1) for k in range(LATENTS)] == ["early", "middle", "middle", "late", "late"]
    assert [second.is_cut(k) for k in range(LATENTS)] == [False, True, False, True, False]
    going_on = [{"start": 0, "prompt": "early"}, {"start": 2.5, "prompt": "middle", "transition": "continue"}]
    (clips / "a.txt").unlink()
    (clips / "a.json").write_text(json.dumps({"version": 1, "shots": going_on}))
    cache(clips, tmp_path / "on", words=Words())
    assert not any(MemoryDataset.open(tmp_path / "on")[1].is_cut(k) for k in range(LATENTS))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.json", '{"a.mp4": "seen", "b.mkv": "seen"}'),
        ("captions.json", '[{"file": "a.mp4", "caption": "seen"}, {"file": "deep/b.mkv", "caption": "seen"}]'),
        ("captions.json", '{"a.mp4": [{"start": 0, "prompt": "seen"}], "deep/b.mkv": {"0": "seen"}}'),
        ("captions.jsonl", '{"file_name": "./a.mp4", "text": "seen"}\n\n{"video": "deep\\\\b.mkv", "prompt": "seen"}'),
    ],
)
def test_one_file_can_caption_the_whole_folder(clips: Path, tmp_path: Path, file: str, text: str) -> None:
    (clips / file).write_text(text)
    report = cache(clips, tmp_path / "out", words=Words())
    assert {s.prompt for s in MemoryDataset.open(tmp_path / "out")} == {"seen"} and not report.skipped


def test_a_file_beside_the_clip_wins_and_a_plain_text_may_hold_anything(clips: Path, tmp_path: Path) -> None:
    (clips / "captions.json").write_text('{"a.mp4": "folder", "c.mp4": "who"}')
    (clips / "a.txt").write_text("a | b {c} [d]\n")
    report = cache(clips, tmp_path / "out", words=Words())
    assert MemoryDataset.open(tmp_path / "out")[0].prompt == "a | b {c} [d]"
    assert [name for name, _ in report.skipped] == ["c.mp4"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("captions.json", "{", "captions.json cannot be read"),
        ("captions.jsonl", '{"file": "a.mp4", "text": "x"}\nx', "line 2"),
        ("captions.json", '[{"file": "a.mp4"}]', "entry 1: write"),
        ("captions.json", '[{"file": "a", "text": "x"}, {"file": "a", "text": "y"}]', "entry 2: a is named twice"),
    ],
)
def test_a_folder_file_that_cannot_be_read_whole_is_refused(
    clips: Path, tmp_path: Path, file: str, text: str, message: str
) -> None:
    (clips / file).write_text(text)
    with pytest.raises(DatasetError, match=message):
        cache(clips, tmp_path / "out")


def test_a_json_file_that_is_no_storyboard_is_not_taken_for_a_prompt(clips: Path, tmp_path: Path) -> None:
    (clips / "a.json").write_text("{shots: oh no}")
    assert "it is no storyboard" in cache(clips, tmp_path / "out").skipped[0][1]


def test_each_prompt_is_encoded_once_and_the_empty_one_is_there_for_dropout(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        (clips / f"{name}.txt").write_text("same")
    words = Words()
    cache(clips, tmp_path / "out", words=words)
    dataset = MemoryDataset.open(tmp_path / "out")
    assert words.encoded == ["", "same"]
    assert dataset.conditioning("same").cross_attn.mean() == 4 and dataset.conditioning("").cross_attn.mean() == 0
    assert list(dataset.conditioning("same").core()[0][1]) == []  # what is no tensor is not kept
    with pytest.raises(DatasetError, match="'other' is not in the dataset"):
        dataset.conditioning("other")


def test_without_a_text_encoder_every_prompt_is_empty_and_captions_are_kept(clips: Path, tmp_path: Path) -> None:
    (clips / "a.txt").write_text("kept")
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    assert dataset[0].prompt == "kept" and not dataset.has_text
    assert torch.equal(dataset.conditioning("kept").cross_attn, torch.zeros(1, 1, TEXT))


def test_a_text_encoder_of_another_model_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="texts of width 7, but wan reads 5"):
        cache(clips, tmp_path / "out", words=Words(7))


def test_prompts_of_several_lengths_share_a_batch_and_none_gets_words_that_it_does_not_have() -> None:
    pooled = {"pooled_output": torch.ones(1, 2)}
    texts = [
        Conditioning(torch.ones(1, 2, 3), pooled | {"attention_mask": torch.tensor([[1, 0]])}),
        Conditioning(torch.ones(1, 4, 3), pooled | {"attention_mask": torch.ones(1, 4)}),
        Conditioning(torch.full((1, 4, 3), 2.0), pooled),
    ]
    stacked = stack(texts)
    assert stacked["y"].shape == (3, 2)  # type: ignore[union-attr]
    assert [row.shape[1] for row in stacked["context"]] == [2, 4, 4]  # type: ignore[union-attr]
    runs = passes(stacked, 3)
    assert [rows for rows, _ in runs] == [[0], [1, 2]]
    assert set(runs[0][1]) == {"context", "y", "attention_mask"} and set(runs[1][1]) == {"context", "y"}
    assert runs[1][1]["context"][:, 0, 0].tolist() == [1, 2]
    assert [rows for rows, _ in passes(stacked, 3, single=True)] == [[0], [1], [2]]
    assert [rows for rows, _ in passes(stack(texts[:1] * 2), 2)] == [[0, 1]]


def test_whole_clips_are_held_out_by_name_or_share_and_stay_out_when_others_come(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out", heldout=("b.mkv",))
    dataset = MemoryDataset.open(tmp_path / "out")
    assert dataset.split("train").sources == ("a.mp4",) and dataset.split("heldout").sources == ("deep/b.mkv",)
    names = [f"clip {i}.mp4" for i in range(400)]
    out = heldout_names(names, 0.25)
    assert 60 < len(out) < 140 and heldout_names(names[:200], 0.25) == out & set(names[:200])
    assert parse_heldout(" 0.25 ") == 0.25 and parse_heldout("a.mp4, b.mkv") == ("a.mp4", "b.mkv")
    with pytest.raises(DatasetError, match=r"'c\.mp4', which is not among"):
        cache(clips, tmp_path / "out", heldout=("c.mp4",))


def test_what_is_drawn_follows_from_the_generator_and_no_window_comes_twice_too_early(
    clips: Path, tmp_path: Path
) -> None:
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    draws = [dataset.draw(7, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0][:3]) == sorted(draws[0][3:6]) == [0, 1, 2]
    hr, lr = collate([dataset[i] for i in draws[0]], ["2x2x2"])
    assert hr.shape == (7, 3, LATENTS, 6, 8) and lr["2x2x2"].shape == (7, 3, 3, 4, 4)
    with pytest.raises(DatasetError, match="no window of this split"):
        dataset.split("heldout").draw(1, torch.Generator())


def test_tensors_read_under_inference_mode_can_be_trained_on(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    with torch.inference_mode():
        dataset = MemoryDataset.open(tmp_path / "out")
        tensors = [dataset[0].hr, dataset[0].lr["2x2x2"], dataset.conditioning("").cross_attn]
    assert not any(tensor.is_inference() for tensor in tensors)


def test_an_encoder_that_does_not_fit_the_dataset_is_refused(clips: Path, tmp_path: Path) -> None:
    cache(clips, tmp_path / "out")
    dataset = MemoryDataset.open(tmp_path / "out")
    fits = SPACE.encoder_config("2x2x2", "ceil")
    dataset.check_encoder(fits)
    for change, message in (
        ({"rate": "4x4x2"}, "no LR latents at rate 4x4x2, only 2x2x2, 2x2x1"),
        ({"padding": "floor"}, "padding ceil"),
        ({"latent_channels": 16}, "with 3 channels, the encoder is for wan with 16"),
    ):
        with pytest.raises(DatasetError, match=message):
            dataset.check_encoder(dataclasses.replace(fits, **change))
    dataset.check_encoder(dataclasses.replace(fits, rate="4x4x2", variant="without_lr", channels=(8,)))


def test_fingerprints_tell_weights_apart_and_do_not_depend_on_their_order() -> None:
    weights = {"a": torch.randn(300, 5), "b": torch.arange(3), "c": torch.zeros(0)}
    same = {name: weights[name].clone() for name in reversed(weights)}
    assert fingerprint(weights) == fingerprint(same)
    assert fingerprint(weights | {"b": torch.arange(3) + 1}) != fingerprint(weights) != fingerprint({"a": weights["a"]})


def core_text(value: float) -> list[list[Any]]:
    return [[torch.full((1, 2, TEXT), value), {"pooled_output": None}]]


def test_latents_in_memory_make_a_dataset_with_their_own_texts() -> None:
    codec = CountingCodec().codec()
    first, second = torch.rand(1, 3, 5, 6, 8), torch.rand(2, 3, 3, 6, 8)
    texts = [core_text(1.0), [core_text(2.0)[0], core_text(3.0)[0]]]
    with torch.inference_mode():
        dataset = dataset_from_latents([first.clone(), second], texts, SPACE, codec, ("2x2x2",), 8.0)
    assert [s.hr.shape[1] for s in dataset] == [5, 3, 3] and not dataset[0].hr.is_inference()
    assert torch.equal(dataset[2].hr, second[1])
    assert [float(dataset.conditioning(s.prompt).cross_attn.mean()) for s in dataset] == [1, 2, 3]
    config = SPACE.encoder_config("2x2x2", "ceil")
    assert torch.equal(dataset[0].lr["2x2x2"], low_resolution_latents(codec.decode(first), 5, config, codec)[0])
    for seed in range(8):  # a batch is of one size
        assert len({dataset[i].hr.shape for i in dataset.draw(2, torch.Generator().manual_seed(seed))}) == 1


@pytest.mark.parametrize(
    ("latents", "texts", "message"),
    [
        ([torch.zeros(1, 3, 4, 4)], 1, "entry 0 has shape"),
        ([torch.zeros(1, 3, 1, 4, 4)], 1, "at least 2 frames"),
        ([torch.zeros(1, 16, 3, 4, 4)], 1, "VAE that belongs to the model"),
        ([torch.zeros(1, 3, 3, 4, 4)] * 3, 2, "2 entries for 3 latents"),
        ([], 1, "latents are empty"),
    ],
)
def test_latents_that_do_not_fit_are_refused(latents: list[torch.Tensor], texts: int, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        dataset_from_latents(latents, [core_text(0)] * texts, SPACE, CountingCodec().codec(), ("2x2x2",), 8.0)


def test_videos_are_found_below_the_folder_but_not_in_the_cache_or_hidden(clips: Path) -> None:
    counting(clips / ".hidden" / "c.mp4", 3)
    counting(clips / "cache" / "d.mp4", 3)
    (clips / "notes.txt").write_text("x")
    assert list(find_clips(clips, clips / "cache")) == ["a.mp4", "deep/b.mkv"]
