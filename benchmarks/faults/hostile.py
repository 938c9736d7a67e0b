"""Texts that mean harm or are a stranger's mistake, and what a server's folder held before them."""

from __future__ import annotations

from pathlib import Path
from random import Random

SECRET = "the secret of the house"
OUTSIDE = "secret.txt"  # beside the server's folders
# As the whole text, or put behind or before a good one.
HOSTILE = (
    "", " ", ".", "..", "../secret", "../../secret.txt", "a/../../../secret.txt", "..\\..\\secret.txt",
    "/etc/passwd", "/proc/self/environ", "/dev/zero", "C:\\Windows\\win.ini", "C:x", "\\\\host\\share\\x",
    "//host/share", "~/x", "\x00", "a\x00b", "a\nb", "\x1b[31m", "\x7f", "\ud800", "\u202egnp.exe", "e\u0301",
    "\u00e9", "\ufeffx", "\U0001f600" * 60, "字" * 90, "x" * 256, "x" * 5000, "con", "NUL.txt", "aux", "a.",
    "a ", ".hidden", "a:b", "a?b*", "<script>alert(1)</script>", "%2e%2e%2f", "%00", "$(id)", "`id`", "{0}",
    "%s%n", "{{7*7}}", "${HOME}", "-rf", "--help", "0", "-1", "1e400", "nan", "9" * 400, "1-", "0-999999999999",
    "0-0-0", "1,,2", "[]", "{}", '{"version": 1}', '{"1": -1}', '{"1": 1e99}', "null", "[" * 5000,
    '{"a":' * 3000, "file:///etc/passwd", "http://127.0.0.1/", "a|b|c", "[0s: a]" * 2000,
)  # fmt: skip


def hostile_text(good: str, random: Random) -> str:
    """One of them, with or without what is good, or the good text with other characters."""
    text, kind = random.choice(HOSTILE), random.randrange(5)
    if kind == 0:
        return good + text
    if kind == 1:
        return f"{text}/{good}"
    if kind == 2 and good:
        place = random.randrange(len(good))
        return good[:place] + chr(random.choice((0, 9, 34, 47, 92, 123, 0x2028, 0xD83D))) + good[place + 1 :]
    return text


def holds(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a server's folder, but for its log: size and time of change."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".log" and "custom_nodes" not in path.parts:
            found[str(path.relative_to(folder))] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found
