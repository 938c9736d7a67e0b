"""Tables: Markdown with or without outer bars, cells with tabs between them as spreadsheets copy them, and CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from ..cleaning import AROUND
from ..model import Storyboard, StoryboardError
from ..times import ANY_RANGE, RANGE, Clock, is_code
from .reading import Entry, Reading, shots_of

# Words at the head of a column, in the order in which they are preferred.
_COLUMNS = {
    field: [word.strip() for word in words.split(",")]
    for field, words in {
        "start": "start, start time, begin, from, in, 开始, 開始, 开始时间",
        "end": "end, end time, to, out, 结束, 終了, 结束时间",
        "duration": "duration, length, 时长, 時長, 長さ, 尺",
        "time": "time, times, timestamp, timestamps, timecode, time code, timing, time range, seconds, second, sec, "
        "frame, frames, 时间, 時間, 时间码, 时间段, 秒, 秒数",
        "prompt": "prompt, video prompt, text prompt, 提示词, 提示詞, プロンプト, description, visual description, "
        "shot description, scene description, visual, visuals, text, caption, content, action, 画面描述, 画面, "
        "画面内容, 描述, 内容, 内容描述, 説明, 内容説明, scene, 场景, シーン",
    }.items()
}
_NUMBERING = {"#", "no", "no.", "nr", "number", "shot", "shots", "id", "index", "cut", "clip"} | {
    "镜头", "鏡頭", "镜号", "序号", "分镜", "编号", "カット", "番号", "ショット",
}  # fmt: skip
_UNIT = re.compile(r"\s{0,9}[(（\[]([^)）\]]{0,20})[)）\]]\s{0,9}")
_MINUTES = re.compile(r"min(?:ute)?s?\.?|minuten|minutos|мин|分钟?|分鐘|分間|분")
_NO_UNIT = re.compile(r"m(?:illi)?s(?:ec(?:ond)?s?)?|毫秒|ミリ秒|h|hrs?|hours?|小时|時間")
_RULE = re.compile(r"[|\s:+=\u2500\u2502\u253c-]{3,2000}")
_RANGE = re.compile(ANY_RANGE, re.IGNORECASE)
_TIME = re.compile(RANGE, re.IGNORECASE)
_FORM = "write a head such as | Time | Prompt | and rows such as | 0-5s | a kitchen |"


def looks_like(text: str) -> bool:
    """Whether lines are cells: bars with a rule, outer bars or times; tabs or commas below heads of columns."""
    lines = _lines(text)
    if len(lines) < 2:
        return False
    barred = [line for _, line in lines if "|" in line.replace("\\|", "")]
    if len(barred) >= 2:
        rule = any(_RULE.fullmatch(line) and "-" in line and "|" in line for line in barred)
        outer = all(line.startswith("|") for line in barred)
        timed = sum(any(_TIME.fullmatch(cell.strip("* ")) for cell in _cells(line, "|")) for line in barred)
        return rule or outer or timed >= 2 or _columns(_cells(barred[0], "|")) is not None
    return any(_columns(_cells(lines[0][1], sign)) is not None for sign in "\t,;")


def parse(text: str, clock: Clock) -> Reading:
    """Reads the rows below the head; columns without a use here are left out and said to be."""
    lines = _lines(text)
    sign = _sign(lines)
    barred = [number for number, (_, line) in enumerate(lines) if sign in line]
    rows = [(number, line) for number, line in lines[barred[0] : barred[-1] + 1]]
    around = len(rows) < len(lines)
    heads = _cells(rows[0][1], sign)
    columns = _columns(heads)
    if columns is None:
        raise StoryboardError(
            f"line {rows[0][0]}: the text is a table, but its head {rows[0][1][:60]!r} does not name a column of times "
            f"and one of prompts; {_FORM}"
        )
    entries = []
    for number, line in rows[1:]:
        if sign == "|" and _RULE.fullmatch(line):
            continue
        cells = _cells(line, sign)
        if len(cells) != len(heads):
            raise StoryboardError(
                f"line {number}: the table's row has {len(cells)} cells, its head {len(heads)}; {_FORM}"
            )
        entries.append(_entry(cells, columns, f"shot {len(entries) + 1} (line {number} of the table)"))
    if not entries:
        raise StoryboardError(f"line {rows[0][0]}: the table has a head and no row; {_FORM}")
    storyboard = Storyboard(
        shots_of(
            entries,
            clock,
            _unit(heads[next(columns[field] for field in ("time", "start", "duration") if field in columns)]),
        )
    )
    used = set(columns.values())
    others = any(at not in used and _plain(head) not in _NUMBERING for at, head in enumerate(heads))
    remarks = (("columns",) if others else ()) + (("left_out",) if around else ())
    return Reading(storyboard, "table", remarks + (("codes",) if any(is_code(e.first) for e in entries) else ()))


def _entry(cells: Sequence[str], columns: dict[str, int], where: str) -> Entry:
    prompt = cells[columns["prompt"]]
    length = cells[columns["duration"]] if "duration" in columns else ""
    if "time" in columns:
        match = _RANGE.fullmatch(cells[columns["time"]])
        if match is None:
            raise StoryboardError(f"{where}: the time is {cells[columns['time']][:30]!r}; write 0-5s")
        return Entry(match[1], match[2], prompt, where, length="" if match[2] else length)
    if "start" in columns:
        end = cells[columns["end"]] if "end" in columns else ""
        return Entry(cells[columns["start"]], end or None, prompt, where, length="" if end else length)
    return Entry("", None, prompt, where, length=length or "?")


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that are not empty, by their number."""
    return [(number, line.strip(AROUND)) for number, line in enumerate(text.split("\n"), 1) if line.strip(AROUND)]


def _sign(lines: Sequence[tuple[int, str]]) -> str:
    """What stands between cells: bars, else the sign with which the head names columns."""
    often = [sign for sign in "|\t,;" if sum(sign in line for _, line in lines) >= 2]
    if "|" in often:
        return "|"
    named = (sign for sign in often if _columns(_cells(lines[0][1], sign)) is not None)
    return next(named, often[0] if often else "|")


def _cells(line: str, sign: str) -> list[str]:
    if sign == "|":
        cells = re.split(r"(?<!\\)\|", line)
        cells = cells[bool(not cells[0].strip()) : len(cells) - bool(len(cells) > 1 and not cells[-1].strip())]
    else:
        try:
            cells = next(csv.reader([line], delimiter=sign, skipinitialspace=sign != "\t"), [])
        except csv.Error:
            return []
    return [
        re.sub(r"<br ?/?>", " ", cell.replace("\\|", "|")).strip(AROUND).strip("*`").strip(AROUND) for cell in cells
    ]


def _plain(head: str) -> str:
    return _UNIT.sub("", head).strip().lower()


def _unit(head: str) -> str:
    """The unit that the head of a column names; raises StoryboardError for one that no time has."""
    named = [part.strip().lower() for part in _UNIT.findall(head)]
    if any(_NO_UNIT.fullmatch(part) for part in named):
        raise StoryboardError(
            f"the table's column {head[:40]!r} is in a unit that is not read; write its times in seconds"
        )
    if any(_MINUTES.fullmatch(part) for part in named):
        return "m"
    return "f" if re.search(r"frame|帧|幀|フレーム", head.lower()) else ""


def _columns(heads: Sequence[str]) -> dict[str, int] | None:
    """Where times and prompts stand, when both have a column."""
    plain = [_plain(head) for head in heads]
    found = {}
    for field, words in _COLUMNS.items():
        at = next((plain.index(word) for word in words if word in plain), None)
        if at is not None:
            found[field] = at
    timed = any(field in found for field in ("time", "start", "duration"))
    return found if timed and "prompt" in found and len(heads) > 1 else None
