"""What a clip's score has in RAM and on a card: long clips of full-size models must leave room."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from memory_encoder.evaluation import identification, score
from memory_encoder.evaluation.identification import asked
from memory_encoder.evaluation.score import FULL, MEMORY, ClipScore, lineup_of, score_clip, summary

from .sharded import decode
from .training import OneClip, tiny_module, tiny_options

pytestmark = pytest.mark.usefixtures("comfy")
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory")


def scored(**settings: Any) -> ClipScore:
    module, batch = tiny_module(tiny_options()), OneClip().rows(0, 0, 1, "train", None)
    pictures = decode(batch.hr)[0].detach()
    return score_clip("clip", pictures, batch.hr, batch.lr, module, batch.conditioning, decode, 0, 2, **settings)


def test_of_each_kind_the_frames_to_keep_are_left_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "ASKED", 2)
    whole = scored()
    frames = whole.pictures["original"]
    keep = sorted({0, *asked(frames)})
    assert len(keep) < len(frames)
    some = scored(keep=keep)
    assert some.values == whole.values and some.facts == whole.facts
    assert torch.equal(some.pictures["original"], frames)
    for kind in some.psnr:
        assert torch.equal(some.pictures[kind], whole.pictures[kind][keep])
    assert lineup_of([some, some]).rates() == lineup_of([whole, whole]).rates()


def test_one_kind_is_there_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, earlier = score.means_of, []

    def spy(pictures: Tensor, shown: Tensor, *rest: Any) -> dict[str, float]:
        assert not [one for one in earlier if one() is not None]
        earlier.append(weakref.ref(shown))
        return measure(pictures, shown, *rest)

    monkeypatch.setattr(score, "means_of", spy)
    found = scored(keep=[0, 1])
    assert len(earlier) == len(found.psnr)


def test_the_whole_history_is_left_out_where_it_is_not_asked_for_or_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, without = scored(), scored(whole_history=False)
    assert FULL in whole.psnr and FULL not in without.psnr
    draw, most = score.draw_history, max(whole.facts["numbers"].values())
    assert most > 0

    def on_a_small_card(predict: Any, memory: Any, *rest: Any) -> Tensor:
        if memory is not None and memory.tokens.shape[1] > whole.facts["tokens"]:
            raise OUT_OF_MEMORY
        return draw(predict, memory, *rest)

    monkeypatch.setattr(score, "draw_history", on_a_small_card)
    assert scored().values == without.values
    both = summary([whole, without], {})
    assert FULL not in both["psnr"] and FULL not in both["numbers"] and FULL not in both["identified"]
    assert [FULL in clip["psnr"] for clip in both["clips"]] == [True, False] and MEMORY in both["psnr"]


def test_a_card_without_room_for_the_memory_ends_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Tensor:
        raise OUT_OF_MEMORY

    monkeypatch.setattr(score, "draw_history", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        scored()
