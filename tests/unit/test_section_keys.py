"""Names of films and keys of sections: what is one film, and what is one section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_encoder.digests import section_key
from memory_encoder.files import FolderNameError, named_folder
from memory_encoder.film.sections import SectionStore

KEY, OTHER = section_key("", {"n": 1}), section_key("", {"n": 2})

# Film names

BAD_NAMES = [
    *("", "  ", ".", "..", "../film", "a/../b", "/tmp/film", "a/b", "a\\b", "C:film", "~/film/x"),
    *("a\x00b", "a\nb", "\x7f", "\ud800", "a?", "a*", "a|b", 'a"b', "<a>", "x" * 101, "字" * 90),
    *(".hidden", "film.", "film ", " film", "CON", "nul.txt", "Com1", "lpt9.tar.gz", "CONIN$"),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_name_that_is_no_plain_folder_is_refused_before_anything_is_created(tmp_path: Path, name: str) -> None:
    with pytest.raises(FolderNameError, match="film: the name"):
        SectionStore(tmp_path / "films", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["film", "My film 2", "映画", "a..b", "x" * 100, "console", "com10", "v1.2-final_3"])
def test_a_plain_name_is_a_folder_below_the_root_and_nothing_is_created_yet(tmp_path: Path, name: str) -> None:
    assert named_folder(tmp_path, name, "film") == tmp_path / name
    SectionStore(tmp_path, name).get(KEY)
    assert SectionStore(tmp_path, name).manifest() == []
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_one_folder_however_its_accents_are_composed(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert named_folder(tmp_path, composed, "film") == named_folder(tmp_path, apart, "film") == tmp_path / composed
    (tmp_path / apart).mkdir()  # of an earlier version, or copied from a Mac
    assert named_folder(tmp_path, composed, "film") == named_folder(tmp_path, apart, "film") == tmp_path / apart


# Keys

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equal with type: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


@given(VALUES, VALUES)
def test_keys_are_equal_exactly_when_the_ingredients_are(a: Any, b: Any) -> None:
    assert (section_key("", {"x": a}) == section_key("", {"x": b})) == same(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": ["a", "b"]}, {"x": ["ab"]}),
        ({"x": ["a"], "y": []}, {"x": [], "y": ["a"]}),
        ({"x": {"a": 1}}, {"x": {"a": 1.0}}),
        ({"x": b"a"}, {"x": "a"}),
        ({"x": None}, {}),
        ({"x": 0.1 + 0.2}, {"x": 0.3}),
        ({"x": torch.zeros(4)}, {"x": torch.zeros(2, 2)}),
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2, dtype=torch.int32)}),
        ({"x": torch.zeros(2)}, {"x": torch.tensor([0.0, -0.0])}),
        ({"x": torch.ones(2, dtype=torch.bfloat16)}, {"x": torch.ones(2, dtype=torch.float16)}),
        ({"x": torch.ones(2, dtype=torch.bfloat16)}, {"x": torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)}),
        ({"x": np.zeros(2, "<f4")}, {"x": np.zeros(2, "<f8")}),
    ],
)
def test_different_ingredients_have_different_keys(a: dict, b: dict) -> None:
    assert section_key("", a) != section_key("", b)


def test_the_key_depends_on_the_previous_one_and_not_on_order_or_layout() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    a = {"a": 1, "b": (1, {"c": tensor}), "n": np.float64(0.5)}
    b = {"n": 0.5, "b": [1, {"c": tensor.t().contiguous().t()}], "a": np.int64(1)}
    assert section_key(KEY, a) == section_key(KEY, b) != section_key(OTHER, a)
    assert section_key("", {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 3)}) != section_key("", {})


def test_the_key_stays_the_same_between_runs_and_versions() -> None:
    # Written down once: a changed form would silently make every film on every disk new.
    value = {"a": [None, True, 1, 0.5, "ä", b"b"], "t": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}
    assert section_key("", value) == "a6d2f727c56a2220222d917709d15015e3d94f23b5645ec84ce1ebd0aa9d4062"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": [1, object()]}}, r"ingredients\.a\.b\[1\] is of type object"),
        ({"a": {1: 2}}, r"ingredients\.a has the key 1 of type int"),
        ({"a": {"b"}}, r"ingredients\.a is of type set"),
        ({"a": 1j}, r"ingredients\.a is of type complex"),
        ({"a": np.array([object()])}, r"ingredients\.a is of type ndarray"),
        ({"a": torch.zeros(2, 2).to_sparse()}, r"ingredients\.a is a sparse"),
        ({"a": torch.zeros(2, device="meta")}, r"ingredients\.a is a .*meta"),
    ],
)
def test_an_ingredient_without_a_stable_form_is_refused_by_its_place(value: dict, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        section_key("", value)


def test_ingredients_that_contain_themselves_are_refused() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(TypeError, match="contain themselves"):
        section_key("", value)
