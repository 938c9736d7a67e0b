"""What the film report finds in drawn films with one planted fault, and what it says of films as they were meant.

    python tools/environment.py run -m benchmarks.judged_faults [--films 60] [--report]

Films, faults and the stand-ins for face, CLIP and language models are those of the tests (tests/unit/judged_films.py):
drawn, 128x96, five shots of a second, the third one spoilt. `--report` writes the table of the numbers that are there.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memory_encoder.files import write_bytes
from tests.unit.judged_films import FAULTS, ODD, SHOTS, Fault, falls_out, judged_in_sections, pictures_of

RESULTS = Path(__file__).resolve().parent / "results" / "judged_faults"
Named = dict[str, list[int]]  # numbers of shots by measure


def measured(seeds: Iterable[int], names: Sequence[str] = tuple(FAULTS)) -> dict[str, Any]:
    """Of each fault how often its measure names the shot, any measure does, and others are named that are not in the
    film as meant; of films as meant which shots are named all the same."""
    tried = {name: FAULTS[name] for name in names}
    faults = {name: {"measure": fault.measure, "named": 0, "by_any": 0, "others": 0} for name, fault in tried.items()}
    alarms: Counter[str] = Counter()
    films = clean = 0
    for seed in seeds:
        meant = as_meant(seed, tried)
        named = meant[False] | {one: shots for one, shots in meant.get(True, {}).items() if one == "objects"}
        alarms.update({one: len(shots) for one, shots in named.items()})
        films, clean = films + 1, clean + (not named)
        for name, fault in tried.items():
            found = falls_out(fault.judged(fault.film(seed)))
            new = {one: set(shots) - set(meant[fault.asked].get(one, ())) for one, shots in found.items()}
            result = faults[name]
            result["named"] += ODD + 1 in found.get(fault.measure, ())
            result["by_any"] += any(ODD + 1 in shots for shots in found.values())
            result["others"] += any(shots - {ODD + 1} for shots in new.values())
        print(f"film {films}: " + ", ".join(f"{name} {one['named']}" for name, one in faults.items()), flush=True)
    return {"films": films, "shots": films * SHOTS, "clean_films": clean, "alarms": dict(alarms), "faults": faults}


def as_meant(seed: int, tried: Mapping[str, Fault]) -> dict[bool, Named]:
    """What is named in the films without a fault: the usual one, and the one in one room where someone is asked."""
    films = {fault.asked: fault.film(seed) for fault in tried.values()}
    return {asked: falls_out(judged_in_sections(film, pictures_of(film), asked)) for asked, film in films.items()}


def said(result: dict[str, Any]) -> str:
    """The numbers as docs/judging.md has them."""
    found = ", ".join(f"{one['named']} ({name})" for name, one in result["faults"].items())
    alarms = ", ".join(f"{count} by {name.replace('_', ' ')}" for name, count in result["alarms"].items())
    return (
        f"In {result['films']} drawn films of five shots of a second the planted fault was named by its own measure in "
        f"{found}. Of the {result['shots']} shots that were as meant these fell out: {alarms or 'none'}; "
        f"{result['clean_films']} of the {result['films']} films had no such shot."
    )


def report(result: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = [
        "# Planted faults",
        "",
        f"{result['films']} drawn films of five shots of a second, 128x96, the third shot spoilt; stand-ins for face "
        "and CLIP models that know colours alone, and one who is asked about things, in films that stay in one room, "
        "and answers one question of ten wrongly. `others`: films in which another shot is named that is not named in "
        "the film as meant.",
        "",
        "| fault | its measure | named by it | by any measure | others |",
        "|---|---|---:|---:|---:|",
    ]
    for name, one in result["faults"].items():
        measure = one["measure"].replace("_", " ")
        lines.append(f"| {name} | {measure} | {one['named']} | {one['by_any']} | {one['others']} |")
    return "\n".join([*lines, "", said(result)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=60)
    parser.add_argument("--report", action="store_true", help="judge nothing")
    args = parser.parse_args()
    path = RESULTS.with_suffix(".json")
    if not args.report:
        write_bytes(path, (json.dumps(measured(range(args.films)), indent=1) + "\n").encode())
    text = report(json.loads(path.read_text(encoding="utf-8")))
    RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, flush=True)


if __name__ == "__main__":
    main()
