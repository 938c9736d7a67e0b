"""Write `locales/`, and the tables of translated help pages, from the nodes' own texts:
python tools/environment.py run -m tools.translations"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tools.comfy_server import ComfyServer
from tools.environment import prepare

from .build import LANGUAGES, LOCALES, english, main_texts, node_texts, texts_of, translations
from .pages import write_tables


def main() -> int:
    with tempfile.TemporaryDirectory() as work, ComfyServer(Path(work), environment=prepare()) as server:
        definitions = english(server.get("/object_info"))
    missing = False
    for language in LANGUAGES:
        words = translations(language)
        needed = texts_of(definitions)
        lacking = [text for text in needed if text not in words]
        unused = sorted(set(words) - set(needed))
        for label, texts in (("has no", lacking), ("no longer needs", unused)):
            for text in texts:
                print(f"{language} {label} {json.dumps(text)}", file=sys.stderr)
        missing = missing or bool(lacking)
        if not lacking:
            folder = LOCALES / language
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / "nodeDefs.json", node_texts(definitions, words))
            write(folder / "main.json", main_texts(words))
    write_tables()
    return 1 if missing else 0


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
