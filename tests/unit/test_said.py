"""What the server says to a film-maker is translated: errors of the studio, and its plan."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from memory_encoder.budget import HOSTS, Plan, advice, describe, estimate

ROOT = Path(__file__).resolve().parents[2]
SAID = ROOT / "js" / "strings" / "said.mjs"
LIBRARY = ROOT / "memory_encoder"
# Where the errors come from that a person meets while writing, making, saving and branching a film.
STUDIO = [
    *sorted((LIBRARY / "storyboard").rglob("*.py")),
    *(LIBRARY / name for name in ("budget.py", "files.py", "film/plan.py", "film/takes.py", "film/opening.py")),
    *(
        ROOT / "nodes" / f"{name}.py"
        for name in ("film_beginning", "film_pictures", "shot_pictures", "routes", "saving", "sampler")
    ),
]


def translations(language: str) -> dict[str, str]:
    text = SAID.read_text(encoding="utf-8")
    found = re.search(rf"^const {language} = (\{{.*?^\}});$", text, re.DOTALL | re.MULTILINE)
    assert found, f"{SAID.name} has no {language}"
    return json.loads(found[1])


def raised(path: Path) -> Iterator[str]:
    """Texts of the errors that a module raises, as far as they are written out there."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            parts = list(_parts(node.exc.args[0]))
            if any(parts):
                numbers = iter(range(len(parts)))
                yield "".join(part or f"{{{next(numbers)}}}" for part in parts)


def _parts(node: ast.expr) -> Iterator[str]:
    """Pieces of a literal, an f-string or their sum; "" for a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield from _parts(value)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _parts(node.left)
        yield from _parts(node.right)
    else:
        yield ""


def test_every_error_of_the_studio_is_translated() -> None:
    texts = {text for path in STUDIO for text in raised(path)}
    assert len(texts) > 100
    for language in ("zh", "ja"):
        missing = sorted(texts - set(translations(language)))
        assert not missing, f"translate in {SAID.relative_to(ROOT)}, {language}: {missing}"


def test_every_line_of_a_budget_is_translated() -> None:
    """Plans that fit, closely or with streamed weights, that do not; a cache, pictures, a window, a horizon."""
    patterns = [
        re.compile("(.+)".join(re.escape(part) for part in re.split(r"\{\d+\}", text))) for text in translations("zh")
    ]
    seen = 0
    for card in (4, 8, 12, 80):
        plain = Plan(HOSTS["wan-14b"], 832, 480, 16.0, 20.0, card_gib=card)
        pictures = replace(plain, rates=(), pictures=8)
        long = replace(plain, history_seconds=600.0, sliding_window=3)
        for plan in (plain, replace(plain, cached=True), pictures, long, replace(plain, horizon=2000, fps=80.0)):
            for line in [*describe(plan, "wan-14b").splitlines(), *advice(plan, estimate(plan))]:
                seen += 1
                assert any(pattern.fullmatch(line) for pattern in patterns), line
    assert seen > 60
