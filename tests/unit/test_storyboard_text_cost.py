"""The cost of reading what people paste: it grows with a text's length and no faster, whatever the text is made of."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memory_encoder import storyboard
from memory_encoder.storyboard import MAX_TEXT_BYTES, StoryboardError, importers, read_storyboard
from memory_encoder.storyboard.importers import guard
from memory_encoder.storyboard.importers.characters import read_characters


def read(text: str) -> None:
    read_storyboard(text, section_seconds=5.0, fps=16.0)


MODULES = [
    importlib.import_module(f"{room.__name__}.{module.name}")
    for room in (storyboard, importers)
    for module in pkgutil.iter_modules(room.__path__)
]
PIECES = [
    *(
        "[",
        "[0s",
        "[0s:",
        "[0s] ",
        "[0s: a]",
        "[0-",
        "【0秒",
        "0:",
        "0-",
        "0s ",
        "0:00 ",
        "00:00:00,000 --> ",
        '"0',
        '"0": ',
    ),
    *(
        '"0": "a", ',
        "\u201c0",
        "{",
        '{"a": ',
        '{"shots": [',
        "//",
        "/*",
        "#\n",
        "`",
        "```\n",
        "<think>",
        "<shot ",
        "|",
        "| ",
    ),
    *(
        "| a |\n",
        "time\tprompt\n",
        "Shot 1",
        "Shot 1: a\n",
        "Shot 1 (0-5s): a. ",
        "镜头1（0-",
        "1. a\n",
        "- ",
        "**",
        "(",
    ),
    *("clip_1:\n", "[shot cut] ", "--neg ", "time: 1\n", "text: \n", " ", "\n", "\\", "a,", "---\n"),
]


def repeats(pattern: Any) -> Iterator[tuple[int, int]]:
    """The longest run that each repeat of a parsed pattern may take, alone and with the repeats inside of it."""
    for operation, argument in pattern:
        name = str(operation)
        if name.endswith("REPEAT"):
            inner = list(repeats(argument[2]))
            yield argument[1], argument[1] * max((most for _, most in inner), default=1)
            yield from inner
        elif isinstance(argument, tuple):
            for part in argument:
                if hasattr(part, "data"):
                    yield from repeats(part)
                elif isinstance(part, list):
                    for branch in part:
                        yield from repeats(branch)


def test_no_pattern_can_run_on_without_a_bound() -> None:
    parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
    patterns = [value for module in MODULES for value in vars(module).values() if isinstance(value, re.Pattern)]
    patterns += [sign.pattern for sign in guard._SIGNS]
    assert len(patterns) > 40
    for pattern in patterns:
        for most, together in repeats(parser.parse(pattern.pattern, pattern.flags)):
            assert most <= 20_000 and together <= 20_000, pattern.pattern


def calls(read: Callable[[str], object], text: str) -> int:
    """How many functions run, Python's and the built-in ones, while a text is read or refused."""
    count = 0

    def event(frame: Any, kind: str, argument: Any) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(event)
    try:
        read(text)
    except StoryboardError:
        pass
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("reader", [read, read_characters])
def test_work_grows_with_the_length_of_a_text_and_no_faster(reader: Callable[[str], object], piece: str) -> None:
    count = 16_384 // len(piece)
    short, twice = calls(reader, piece * count), calls(reader, piece * (2 * count))
    assert twice <= 2.3 * short + 300


@pytest.mark.parametrize("piece", PIECES)
def test_the_longest_text_of_any_piece_is_read_or_refused(piece: str) -> None:
    text = (piece * MAX_TEXT_BYTES)[: MAX_TEXT_BYTES // len(piece.encode()) * len(piece) - 1]
    with pytest.raises(StoryboardError):
        read(text + "a" * 20_000 if len(text) < 200_000 else text)
