"""The rooms of the library and what each imports, read from the code: `python -m tools.rooms` prints the table of
docs/architecture.md, `--write` puts it there.

A room is a folder of memory_encoder/, one of the files beside them, or a folder of WITHIN. It stands one floor above
the highest room that it imports.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "memory_encoder"
PAGE = ROOT / "docs" / "architecture.md"
# Folders in a room that are rooms themselves.
WITHIN = ("injection.hosts", "training.dataset", "training.distributed", "evaluation.judge")
BEGIN, END = "<!-- rooms: made by python -m tools.rooms --write -->", "<!-- /rooms -->"


def files(root: Path = ROOT) -> dict[str, Path]:
    """All modules of the library by dotted name."""
    found = {}
    for path in sorted((root / LIBRARY).rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the library that a module imports, within functions and for type checkers too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{target}.{alias.name}"
                if name in known or target in known:
                    yield name if name in known else target


def room_of(module: str) -> str:
    """Folder of a module below the library; a file beside the folders is a room of its own."""
    parts = module.split(".")[1:]
    within = ".".join(parts[:2])
    return within if within in WITHIN else ".".join(parts[:1])


def rooms(root: Path = ROOT) -> dict[str, set[str]]:
    """For every room the rooms that it imports. The package itself is no room."""
    known = files(root)
    result: dict[str, set[str]] = {}
    for module, path in known.items():
        room = room_of(module)
        if not room or room == "__main__":
            continue
        others = {room_of(other) for other in imports(module, path, known)}
        result.setdefault(room, set()).update(others - {room, ""})
    return result


def floors(imported: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of every room; raises ValueError that names a circle."""
    found: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"circle of imports: {' -> '.join([*above[above.index(room) :], room])}")
        if room not in found:
            found[room] = max((1 + floor(other, (*above, room)) for other in sorted(imported[room])), default=0)
        return found[room]

    for room in sorted(imported):
        floor(room, ())
    return found


def circles(root: Path = ROOT) -> None:
    """Raises ValueError that names a circle of imports between files."""
    known = files(root)
    floors({module: set(imports(module, path, known)) - {module} for module, path in known.items()})


def table(root: Path = ROOT) -> str:
    """Markdown: the rooms from the top floor down, what each is for and what it imports."""
    imported, known = rooms(root), files(root)
    heights = floors(imported)
    lines = ["| floor | room | what it is for | imports |", "|---|---|---|---|"]
    for room in sorted(imported, key=lambda name: (-heights[name], name)):
        below = ", ".join(sorted(imported[room], key=lambda name: (-heights[name], name)))
        lines.append(f"| {heights[room]} | `{room}` | {_purpose(known[f'{LIBRARY}.{room}'])} | {below} |")
    return "\n".join(lines)


def _purpose(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def page(text: str, made: str) -> str:
    """The page with the table in its place."""
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.split(END, 1)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/architecture.md")
    options = parser.parse_args(arguments)
    circles()
    if options.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
    else:
        sys.stdout.write(table() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
