"""What looks timed or structured and no importer reads is refused: one shot of raw text would be a wrong film."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from ..cleaning import Lines
from ..model import Shot, StoryboardError
from ..times import BETWEEN, RATIOS, SPAN, TIME, UNIT

_FORM = "write each shot as [0s-5s: text]; when all of it is one shot, write [0s: text] around it"
_WORD = r"(?:shot|scene|clip|cut|segment|分镜|镜头|鏡頭|场景|カット|ショット|シーン)"
_FIELD = r"(?:start|end|time|duration|timestamp|start_time|end_time|时间|时长|時間|尺)"
_LIST = r"(?:shots|scenes|prompts|prompt|text|description|version|storyboard)"
_LINE = r"^[ \t]{0,40}(?:[-*+][ \t]{1,4})?(?:\*\*)?[\"']?"
_AROUND = " \t[](){}【】（）"
_NAMED = rf"(?:{_LIST}|{_FIELD})"
_SPACE, _SPACES, _COLON = r"[ \t]{0,3}", r"[ \t]{0,9}", "[:：]"
_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_NO_WORD = r"(?<![\w.:])"
_ZERO = r"(?:0{1,2}:00|0{1,2}\s?(?:s|secs?|seconds?|秒))(?![a-z\d])"


@dataclass(frozen=True)
class _Sign:
    """What is found, how often it takes in a whole text and in one shot's text (0: any number), what it is called."""

    name: str
    pattern: re.Pattern[str]
    least: int
    inside: int


def _sign(name: str, *parts: str, least: int = 1, inside: int = 1) -> _Sign:
    return _Sign(name, re.compile("".join(parts), re.IGNORECASE | re.MULTILINE), least, inside)


# fmt: off
_SIGNS = (
    _sign("a code block", r"^[ \t]{0,20}(?:`{3}|~{3})"),
    _sign("a model's thinking", r"</?(?:think|thinking|reasoning)>"),
    _sign("JSON, but it is no storyboard (names and texts need double quotes)",
          rf"\{{\s{{0,40}}[\"']?{_NAMED}[\"']?\s{{0,9}}:"),
    _sign("JSON", rf"[\"'\u201c]{_FIELD}[\"'\u201d]\s{{0,9}}{_COLON}"),
    _sign("keyframes whose times are not in double quotes",
          r"\{\s{0,40}'?\d{1,6}[^'\":\n]{0,20}'?\s{0,9}:\s{0,9}[\"'\u201c]"),
    _sign("keyframes", rf"[\"'\u201c]{_NUMBER}[^\"'\u201d\n]{{0,12}}[\"'\u201d]\s{{0,9}}{_COLON}"),
    _sign("subtitles", rf"\d{_SPACES}-->{_SPACES}\d"),
    _sign("a table", rf"^[ \t|]{{0,20}}:?-{{3,40}}:?{_SPACES}\|"),
    _sign("XML", r"</?(?:shots?|scenes?|clips?|storyboard|timeline|segments?)_?\d{0,4}\b[^>\n]{0,200}>"),
    _sign("fields with times", rf"{_LINE}{_FIELD}[\"']?(?:\*\*)?{_SPACES}[:=：](?:\*\*)?{_SPACES}[\"']?\d", least=2),
    _sign("fields with times", rf"{_LINE}{_LIST}{_SPACES}[:=：][^\n]{{0,400}}\n", rf"{_LINE}{_FIELD}{_SPACES}[:=：]"),
    _sign("fields with times", rf"{_LINE}{_FIELD}{_SPACES}[:=：][^\n]{{0,400}}\n", rf"{_LINE}{_LIST}{_SPACES}[:=：]"),
    _sign("times in brackets", rf"[\[(【（]{_SPACE}{SPAN}{_SPACE}[\])】）]", least=2),
    _sign("numbers in brackets (write their unit: [5s])",
          rf"^{_SPACES}[\[【]{_SPACE}{_NUMBER}{_SPACE}[\]】]", least=2, inside=0),
    _sign("times in brackets with an unknown unit",
          rf"[\[【]\s{{0,3}}{_NUMBER}\s?[a-z]{{1,7}}\s{{0,3}}{_COLON}", least=2, inside=0),
    _sign("times", rf"{_NO_WORD}{SPAN}{_SPACE}{_COLON}(?!\d)", least=2),
    _sign("times", rf"(?:^|[.,;。，；]){_SPACES}{SPAN}[ \t]{{1,3}}[=\u2013\u2014\u2192-][ \t]", least=2),
    _sign("ranges of times without a unit",
          rf"^{_SPACES}0(?:\.0{{1,6}})?{_SPACE}{BETWEEN}{_SPACE}({_NUMBER})\s[^\n]{{0,2000}}\n\s{{0,9}}\1{_SPACE}{BETWEEN}",
          inside=0),
    _sign("rows that begin with numbers", rf"^{_SPACES}{_NUMBER}{_SPACE}[\t,;=]", least=2, inside=0),
    _sign("pairs of times and texts", rf"[\[(]{_SPACE}{_NUMBER}{_SPACE},{_SPACE}[\"'\u2018\u201c]", least=2),
    _sign("times", rf"^{_SPACES}t{_SPACE}[=+]{_SPACE}{_NUMBER}", least=2),
    _sign("several prompts", rf"{_LINE}(?:prompt|提示词|プロンプト)(?:\*\*)?{_SPACES}[:=：]", least=2, inside=2),
    _sign("cuts", r"\S\s{0,9}[\[【](?:(?:hard |jump |scene )?cut(?: to)?|next shot|scene change|转场|切换)[\]】]"),
    _sign("ranges of times", rf"{_NO_WORD}{_NUMBER}\s?{UNIT}?{_SPACE}{BETWEEN}{_SPACE}{TIME}", least=2, inside=2),
    _sign("times", rf"{_NO_WORD}{_ZERO}[\s\S]{{1,2000}}?{_NO_WORD}{TIME}"),
    _sign("a list of shots",
          rf"(?<![a-z]){_WORD}[ \t_#]{{0,2}}(?:\d{{1,4}}|[一二三四五]|[a-h]){_SPACE}[:：(（\u2013\u2014\]】-]",
          least=2),
    _sign("times with an unknown unit",
          rf"^{_SPACES}{_NUMBER}\s?[^\W\d_]{{1,12}}\.?{_SPACE}{_COLON}", least=2, inside=0),
    _sign("times", rf"^{_SPACES}[@＠#]{_NUMBER}[ \t:]", least=2),
    _sign("times", rf"^{_SPACES}(?:\d{{1,2}}h{_SPACE})?\d{{1,3}}m{_SPACE}\d{{1,2}}s\b", least=2),
    _sign("times with a comma (write a point: 2.5)",
          rf"(?:^|[,;，；]){_SPACES}\d{{1,6}},\d{{1,3}}{_SPACE}{_COLON}(?!\d)"),
    _sign("time codes with one digit of seconds (write 0:05)",
          rf"^{_SPACES}\d{{1,3}}:\d(?!\d)(?!{_SPACE}(?:am|pm)){_SPACE}(?:{BETWEEN}|{_COLON}|[ \t])", least=2),
    _sign("times", rf"(?:^|[.;!?。；！？]){_SPACES}(?:at|from|until|after)[ \t]{{1,3}}{TIME}", least=2),
    _sign("times", r"[第前后後]\s?\d{1,6}\s?秒", least=2),
    _sign("lengths of shots", rf"[,，(（\u2013\u2014-]{_SPACE}{TIME}{_SPACE}[)）]?{_SPACES}$", least=2, inside=0),
    _sign("pairs of numbers in brackets",
          rf"^{_SPACES}[\[(]{_SPACE}{_NUMBER}{_SPACE}[,;-]{_SPACE}{_NUMBER}{_SPACE}[\])]", least=2),
    _sign("subtitles", r"^\{\d{1,8}\}\{\d{1,8}\}"),
    _sign("a list of shots",
          rf"(?<![a-z])(?:first|second|third|fourth|fifth|next|last|final)[ \t]{{1,3}}{_WORD}{_SPACE}[:,：-]", least=2),
    _sign("a list of shots", rf"^{_SPACES}(?:[\u2460-\u2473]|s\d{{1,3}}{_SPACE}{_COLON})", least=2, inside=0),
    _sign("a list of shots",
          rf"^{_SPACES}(?:a[.)][ \t][^\n]{{0,2000}}\n\s{{0,9}}b|i[.)][ \t][^\n]{{0,2000}}\n\s{{0,9}}ii)[.)][ \t]",
          inside=0),
    _sign("scenes of a screenplay", rf"^{_SPACES}(?:int|ext)[./]", least=2, inside=0),
    _sign("a list of texts",
          rf"^{_SPACES}\[\s{{0,9}}['\u2018][^'\n]{{1,400}}['\u2019]\s{{0,9}},\s{{0,9}}['\u2018]", inside=0),
    _sign("frames (write 24f)", rf"^{_SPACES}frames?{_SPACE}\d{{1,6}}{_SPACE}[:：-]", least=2),
    _sign("numbered texts, or keys that do not begin with 0",
          rf"^{_SPACES}\d{{1,6}}{_SPACES}{_COLON}{_SPACES}[^\d\s]", least=2, inside=0),
    _sign("time codes", rf"^{_SPACES}\d{{1,3}}:\d{{2}}(?::\d{{2}})?\b(?!\s{{0,3}}(?:am|pm|o'clock))", least=2),
    _sign("parts with lines between them",
          rf"\S{_SPACES}\n\s{{0,9}}(?:-{{3,80}}|={{3,80}}|\*{{3,80}}){_SPACES}\n", inside=0),
)
# fmt: on


def refuse_structure(text: str) -> None:
    """Raises StoryboardError with the line of the first sign, what it looks like and the form to write."""
    found = _found(text, lambda sign: sign.least)
    if found is not None:
        at, name = found
        number = Lines(text).line(at)
        raise StoryboardError(
            f"line {number} looks like {name}: {_line(text, at)!r}, but the text is in none of the forms that are "
            f"read; {_FORM}"
        )


def refuse_structure_inside(shots: Sequence[Shot]) -> None:
    """The same for the texts of a list's shots, in which a shot that was not recognised would hide."""
    for number, shot in enumerate(shots, 1):
        found = _found(shot.prompt, lambda sign: sign.inside)
        if found is not None:
            at, name = found
            raise StoryboardError(f"shot {number}: in its text {_line(shot.prompt, at)!r} looks like {name}; {_FORM}")


def _found(text: str, least: Callable[[_Sign], int]) -> tuple[int, str] | None:
    """Where the first kind of sign that is there often enough begins, and its name."""
    for sign in _SIGNS:
        found = (match for match in sign.pattern.finditer(text) if match[0].strip(_AROUND) not in RATIOS)
        matches = list(islice(found, least(sign)))
        if matches and len(matches) == least(sign):
            first = matches[0]
            return first.start() + len(first[0]) - len(first[0].lstrip()), sign.name
    return None


def _line(text: str, at: int) -> str:
    """The line at a position, shortened."""
    start = text.rfind("\n", 0, at) + 1
    return text[start : start + 200].split("\n")[0].strip()[:60]
