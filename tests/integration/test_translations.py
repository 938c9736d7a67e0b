"""The shipped locales say in three languages what the nodes say in English."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tools.comfy_server import ComfyServer
from tools.translations.build import (
    CATEGORIES,
    LANGUAGES,
    LOCALES,
    english,
    main_texts,
    node_texts,
    texts_of,
    translations,
)

AGAIN = "translate it in tools/translations, then: python tools/environment.py run -m tools.translations"
# Scripts of a language; names of models and files stay as they are.
LETTERS = {"zh": re.compile(r"[\u4e00-\u9fff]"), "ja": re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")}
SAME = {"vae": "VAE", "clip": "CLIP", "cfg": "CFG", "crf": "CRF", "lora": "LoRA", "sigmas": "Sigmas",
        "VAE": "VAE", "CLIP": "CLIP"}  # fmt: skip


@pytest.fixture(scope="module")
def definitions(comfy_server: ComfyServer) -> dict[str, dict[str, Any]]:
    return english(comfy_server.get("/object_info"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_output_and_tooltip_is_there(language: str, definitions: dict[str, dict[str, Any]]) -> None:
    words = translations(language)
    missing = [text for text in texts_of(definitions) if text not in words]
    assert not missing, f"{language}: {missing}; {AGAIN}"
    shipped = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert shipped == node_texts(definitions, words), AGAIN
    assert json.loads((LOCALES / language / "main.json").read_text(encoding="utf-8")) == main_texts(words), AGAIN


def test_every_input_and_output_has_a_tooltip_and_every_node_a_description(
    definitions: dict[str, dict[str, Any]],
) -> None:
    for name, node in definitions.items():
        assert node["description"], name
        silent = [key for part in ("inputs", "outputs") for key, entry in node[part].items() if not entry["tooltip"]]
        assert not silent, f"{name}: {silent}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_cut_into_plural_forms_by_the_front_end(language: str) -> None:
    """ComfyUI's page takes "a | b | c" for the singular, dual and plural of one text and shows one of them."""
    shipped = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert [text for text in texts_of(shipped) if "|" in text] == []


@pytest.mark.parametrize("language", LETTERS)
def test_translations_are_in_the_language_and_keep_the_marks_a_reader_types(language: str) -> None:
    words = translations(language)
    assert set(CATEGORIES) <= set(words)
    for text, translated in words.items():
        assert LETTERS[language].search(translated) or translated == SAME.get(text), f"{language}: {text}"
        marks = re.findall(r"output/\w+|models/\w+|\d+x\d+x\d+|\b0\.\d+|\{.*\}|\[0s", text)
        assert [m for m in marks if m not in translated] == [], f"{language}: {text}"
