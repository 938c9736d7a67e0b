"""What people paste: each text is read as they mean it, or refused with the place and the form to write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_encoder.storyboard import Storyboard, StoryboardError, read_storyboard
from memory_encoder.storyboard.importers import (
    reading,
)

Starts = list[float]
ROOT = Path(__file__).resolve().parents[2]


def read(text: str, **settings: Any) -> reading.Reading:
    given: dict[str, Any] = {"section_seconds": 5.0, "fps": 16.0} | settings
    return read_storyboard(text, **given)


def starts(text: str, **settings: Any) -> Starts:
    return [shot.start for shot in read(text, **settings).storyboard.shots]


def prompts(text: str, **settings: Any) -> list[str]:
    return [shot.prompt for shot in read(text, **settings).storyboard.shots]


JSON = (
    '{"version": 1, "shots": [{"start": 0, "end": 5, "prompt": "a kitchen"}, '
    '{"start": 5, "end": 10, "prompt": "a road"}]}'
)

# Two shots, "a kitchen" from 0 to 5 s and "a road" from 5 to 10 s, as many people write them.
TWO_SHOTS = {
    "code fence": f"```json\n{JSON}\n```\n",
    "fence with words around": f"Here you are:\n\n```json\n{JSON}\n```\n\nEnjoy!",
    "Korean seconds": "0초-5초: a kitchen\n5초-10초: a road",
    "German seconds": "0-5 Sek.: a kitchen\n5-10 Sek.: a road",
    "Russian seconds": "0-5 сек: a kitchen\n5-10 сек: a road",
    "keys on one line": "0-5: a kitchen; 5-10: a road",
    "fence that does not end": f"```\n{JSON}",
    "thinking": f"<think>Two shots, [0s: maybe].</think>\n{JSON}",
    "thinking whose opening tag is missing": f"Two shots.\n</think>\n\n{JSON}",
    "thinking and fence": f"<thinking>\nTwo?\n</thinking>\n```json\n{JSON}\n```",
    "words before": f"Sure! Here is the JSON:\n{JSON}",
    "words around": f"Sure! Here is the JSON:\n{JSON}\nTell me if you want more.",
    "words before in the line": f"Storyboard: {JSON}",
    "byte order mark": f"\ufeff{JSON}",
    "zero-width space": f"\u200b{JSON}\u200b",
    "no-break spaces": JSON.replace(", ", ",\u00a0").replace(": ", ":\u3000"),
    "comments": JSON.replace("[", "[ // two shots\n").replace('{"start": 5', '/* the\nsecond */ {"start": 5')
    + " # end",
    "commas too many": JSON.replace("}]", "},]").replace("]}", "],}"),
    "typographic quotes": re.sub(r'"(\w[\w ]*)"', "\u201c\\1\u201d", JSON),
    "full-width signs": JSON.replace(":", "：").replace(",", "，"),
    "a list alone": JSON[JSON.index("[") : -1],
    "durations": '{"shots": [{"prompt": "a kitchen", "duration": 5}, {"prompt": "a road", "duration": "5s"}]}',
    "durations in a list": '[{"prompt": "a kitchen", "duration": 5}, {"prompt": "a road", "duration": 5}]',
    "scenes": '{"title": "x", "scenes": [{"scene": 1, "duration": 5, "prompt": "a kitchen"},'
    ' {"scene": 2, "duration": 5, "prompt": "a road"}]}',
    "written times": '{"shots": [{"time": "0-5s", "prompt": "a kitchen"}, {"time": "0:05-0:10", "prompt": "a road"}]}',
    "a timeline": '{"prompts": [{"startTime": 0, "endTime": 5, "prompts": [{"text": "a kitchen", "weight": 100}]},'
    ' {"startTime": 5, "endTime": 10, "prompts": [{"text": "a road", "weight": 100}]}], "version": "2.1"}',
    "StoryMem": '{"scenes": [{"video_prompts": ["a kitchen", "a road"], "cut": ["True", "False"]}]}',
    "StoryMem without its braces": '[{"scene_num": 1, "video_prompts": ["a kitchen", "a road"], "cut": [true, true]}]',
    "brackets": "[0s-5s: a kitchen] [5s-10s: a road]",
    "brackets, no space": "[0s-5s:a kitchen][5s-10s:a road]",
    "brackets in a fence": "```\n[0s-5s: a kitchen]\n[5s-10s: a road]\n```",
    "brackets below an announcement": "Here are your shots:\n[0s-5s: a kitchen]\n[5s-10s: a road]",
    "full-width colon": "[0s-5s：a kitchen] [5s-10s：a road]",
    "full-width brackets": "【0s-5s：a kitchen】【5s-10s：a road】",
    "full-width tilde": "[0s～5s: a kitchen] [5s～10s: a road]",
    "Chinese seconds": "[0秒-5秒: a kitchen] [5秒-10秒: a road]",
    "Chinese range": "[0秒至5秒: a kitchen] [5秒至10秒: a road]",
    "Japanese range": "[0秒〜5秒: a kitchen] [5秒〜10秒: a road]",
    "ideographic space": "[0s-5s: a kitchen]\u3000[5s-10s: a road]",
    "no-break space": "[0s-5s: a kitchen]\u00a0[5s-10s: a road]",
    "Chinese comma": "[0s-5s: a kitchen]，[5s-10s: a road]",
    "time codes": "[00:00-00:05: a kitchen] [00:05-00:10: a road]",
    "long time codes": "[00:00:00.000 - 00:00:05.000: a kitchen] [00:00:05.000 - 00:00:10.000: a road]",
    "frames": "[0-80f: a kitchen] [80f-160f: a road]",
    "time codes with frames": "[00:00:00:00-00:00:05:00: a kitchen] [00:00:05:00-00:00:10:00: a road]",
    "text behind brackets": "[0s-5s] a kitchen\n[5s-10s] a road",
    "text behind brackets in a line": "[0s - 5s] a kitchen [5s - 10s] a road",
    "text behind time codes": "[0:00-0:05] a kitchen\n[0:05-0:10] a road",
    "text behind numbers": "[0-5] a kitchen\n[5-10] a road",
    "ranges with a colon": "[0s:5s] a kitchen [5s:10s] a road",
    "keyframes with ranges": '"0-5": "a kitchen", "5-10": "a road"',
    "keyframes with units": '{"0s-5s": "a kitchen", "5s-10s": "a road",}',
    "keyframes in typographic quotes": "\u201c0-5\u201d：\u201ca kitchen\u201d，\u201c5-10\u201d：\u201ca road\u201d",
    "keys without quotes": "0-5: a kitchen\n5-10: a road",
    "SRT": "1\n00:00:00,000 --> 00:00:05,000\na kitchen\n\n2\n00:00:05,000 --> 00:00:10,000\na road\n",
    "SRT, Windows": "00:00:00,000 --> 00:00:05,000\r\na kitchen\r\n\r\n00:00:05,000 --> 00:00:10,000\r\na road",
    "WebVTT": "WEBVTT\n\n00:00.000 --> 00:05.000 align:start\na kitchen\n\n00:05.000 --> 00:10.000\na road",
    "WebVTT with tags": "WEBVTT\n\n00:00.000 --> 00:05.000\n<v Bob>a kitchen</v>\n\n"
    "00:05.000 --> 00:10.000\n{\\an8}<i>a road</i>",
    "Markdown table": "| Shot | Time | Prompt |\n|---|:--|---|\n| 1 | 0-5s | a kitchen |\n| 2 | 5-10s | a road |",
    "table without outer bars": "Shot | Time | Prompt\n--- | --- | ---\n1 | 0-5s | a kitchen\n2 | 5-10s | a road",
    "table with words around": "Shots:\n\n| Time | Visual |\n|-|-|\n| 0:00-0:05 | a kitchen |\n| 0:05-0:10 | a road |",
    "Chinese table": "| 镜头 | 时间 | 画面 |\n|---|---|---|\n| 1 | 0-5秒 | a kitchen |\n| 2 | 5-10秒 | a road |",
    "table of durations": "| Duration | Prompt |\n|---|---|\n| 5s | a kitchen |\n| 5 | **a road** |",
    "table of starts and ends": "Start (s)\tEnd (s)\tPrompt\n0\t5\ta kitchen\n5\t10\ta road",
    "table of frames": "| Frames | Prompt |\n|---|---|\n| 0-80 | a kitchen |\n| 80-160 | a road |",
    "CSV with semicolons": 'Start;End;Prompt\n0;5;"a kitchen"\n5;10;a road\n',
    "CSV with semicolons and a range": 'Time;Prompt\n0-5;"a kitchen"\n5-10;a road\n',
    "cells of a spreadsheet in quotes": 'Start\tEnd\tPrompt\n0\t5\t"a kitchen"\n5\t10\ta road',
    "CSV": 'start,end,prompt\n0,5,"a kitchen"\n5,10,a road\n',
    "list": "0-5s: a kitchen\n5-10s: a road",
    "list with dashes": "0s \u2013 5s \u2014 a kitchen\n5s \u2013 10s \u2014 a road",
    "list with words": "0 to 5 seconds: a kitchen\nFrom 5 to 10 seconds: a road",
    "list in parentheses": "(0-5s) a kitchen\n（5-10s）a road",
    "list of time codes": "00:00-00:05 a kitchen\n00:05-00:10 a road",
    "Chinese list": "0-5秒：a kitchen\n5-10秒：a road",
    "Chinese list in a line": "0-5秒：a kitchen；5-10秒：a road",
    "bullets": "- 0-5s: a kitchen\n- 5-10s: a road",
    "numbers": "1. 0-5s: a kitchen\n2. 5-10s: a road",
    "bold": "Here they are:\n\n1. **0-5s**: a kitchen\n2. **5-10s**: a road",
    "shot list": "SHOT 1 - 0-5s: a kitchen\nSHOT 2 - 5-10s: a road",
    "shot list, text below": "SHOT 1 - 0-5s\na kitchen\n\nSHOT 2 - 5-10s\na road\n",
    "shot list in a line": "Shot 1 (0-5s): a kitchen; Shot 2 (5-10s): a road",
    "scenes with times": "Scene 1 (0-5 s)\na kitchen\nScene 2 (5-10 s)\na road",
    "headings": "# Film\n\n### Shot 1 (0:00-0:05)\n\n**Prompt:** a kitchen\n\n---\n\n### Shot 2 (0:05-0:10)\n\na road",
    "fields below labels": "Scene 1\nTime: 0-5s\nPrompt: a kitchen\n\nScene 2\nTime: 5-10s\nPrompt: a road",
    "Chinese shot list": "镜头1（0-5s）：a kitchen\n镜头2（5-10s）：a road",
    "Japanese shot list": "カット1（0〜5秒）：a kitchen\nカット2（5〜10秒）：a road",
    "counted shots": "第1镜（0-5秒）：a kitchen\n第2镜（5-10秒）：a road",
    "labels in brackets": "【镜头1】（0-5秒）a kitchen\n【镜头2】（5-10秒）a road",
    "labels alone": "Shot 1: a kitchen\nShot 2: a road",
    "labels in words": "Shot one: a kitchen\nShot two: a road",
    "other labels": "Act 1: a kitchen\nAct 2: a road",
    "Spanish labels": "Escena 1: a kitchen\nEscena 2: a road",
    "French labels": "Plan 1 : a kitchen\nPlan 2 : a road",
    "German labels": "Szene 1 (0-5s): a kitchen\nSzene 2 (5-10s): a road",
    "Russian labels": "Кадр 1: a kitchen\nКадр 2: a road",
    "Korean labels": "장면 1 (0-5초): a kitchen\n장면 2 (5-10초): a road",
    "list with arrows": "0-5s \u2192 a kitchen\n5-10s => a road",
    "text behind fractions": "[0.0 - 5.0] a kitchen\n[5.0 - 10.0] a road",
    "labels above": "clip_1:\na kitchen\n\nclip_2:\na road\n",
    "numbered lines": "1. a kitchen\n2. a road",
    "shot captions": "[per shot caption] a kitchen [shot cut] a road",
    "bars": "a kitchen | a road",
    "full-width bar": "a kitchen｜a road",
}


@pytest.mark.parametrize("name", TWO_SHOTS)
def test_two_shots_are_read_however_they_are_written(name: str) -> None:
    shots = read(TWO_SHOTS[name]).storyboard.shots
    assert [(shot.prompt, shot.start, shot.end) for shot in shots] == [("a kitchen", 0, 5), ("a road", 5, 10)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0s] a valley\n[5s] a fox\n[10s] a brook\n[15s] it looks up", [0, 5, 10, 15]),
        ("[0s: a] [5s-10s: b, with a comma]\n[10s: c]", [0, 5, 10]),
        ("[0:00: a] [1:00: b] [2:00: c]", [0, 60, 120]),
        ("[0:00] a\n[1:30] b\n[1:02:03] c", [0, 90, 3723]),
        ("[0min: a] [1min: b] [1m30s: c] [2分: d]", [0, 60, 90, 120]),
        ("[0: a] [24f: b]", [0, 1.5]),
        ("0:00\na\n\n0:30\nb\n\n1:00\nc", [0, 30, 60]),
        ("0s a\n5s b", [0, 5]),
        ("0秒: a\n5秒: b", [0, 5]),
        ("镜头1（0-3s）：女孩，长发飘动。\n镜头2（3-6s）：特写。\n镜头3（6-10s）：离开。", [0, 3, 6]),
        ('"0": "a",\n"16": "b",\n"32": "c"', [0, 16, 32]),
        ("| Time (min) | Prompt |\n|---|---|\n| 0 | a |\n| 1 | b |\n| 1:30 | c |", [0, 60, 90]),
        ("frame,prompt\n0,a\n80,b", [0, 5]),
        ("Start;End;Prompt\n0;5;a kitchen, warm light\n5;10;a street, rain", [0, 5]),
        ("0: aged 30, 5: b", [0, 5]),
        ('[{"prompt": "a", "duration": 4.5}, {"prompt": "b", "duration": 3}]', [0, 4.5]),
    ],
)
def test_starts_are_those_that_were_written(text: str, expected: Starts) -> None:
    assert starts(text) == expected


def test_a_start_and_a_length_give_the_end() -> None:
    for head in ("Start | Length", "Time | Duration"):
        shots = read(f"{head} | Prompt\n--- | --- | ---\n0 | 5 | a\n7 | 12s | b").storyboard.shots
        assert [(shot.start, shot.end) for shot in shots] == [(0, 5), (7, 19)]


def test_the_name_of_a_field_inside_of_a_sentence_stays() -> None:
    assert prompts('0-5s: it says "prompt: run"\n5-10s: prompt: b')[0] == 'it says "prompt: run"'


def test_percentages_are_of_the_film_and_refused_without_its_length() -> None:
    text = "A station.\n[0%:33%] Wide shot.\n[33%:66%] Medium shot.\n[66%:] Close-up."
    shots = read(text, total_seconds=30.0).storyboard.shots
    assert [(shot.start, shot.end) for shot in shots] == [(0, pytest.approx(9.9)), (9.9, 19.8), (19.8, 30)]
    assert shots[0].prompt == "A station. Wide shot."
    with pytest.raises(StoryboardError, match=r"line 2.*0%.*total_seconds"):
        read(text)


def test_a_text_before_all_shots_belongs_to_each() -> None:
    assert prompts("A woman, film grain. [0s: she waves] [2s: she jumps]") == [
        "A woman, film grain. she waves",
        "A woman, film grain. she jumps",
    ]
    head_and_tail = '(best quality:1.2), 8k,\n"0": "(smile:1.3), aside",\n"12": "smile"\nsitting, coffee shop'
    assert prompts(head_and_tail) == [
        "(best quality:1.2), 8k, (smile:1.3), aside, sitting, coffee shop",
        "(best quality:1.2), 8k, smile, sitting, coffee shop",
    ]
    scene = (
        "[global caption] A painter [character1]. This scene contains 2 shots. [per shot caption] He. [shot cut] Her."
    )
    assert prompts(scene) == ["A painter [character1]. He.", "A painter [character1]. Her."]
    assert read(scene).remarks == ("common",)


def test_keys_without_a_unit_are_in_the_unit_that_was_chosen_and_said() -> None:
    text = '"0": "a", "16": "b", "2s": "c"'
    assert starts('"0": "a", "16": "b"', keyframe_unit="frames") == [0, 1]
    assert starts('"0": "a", "2s": "b"', keyframe_unit="frames") == [0, 2]
    assert "keys without a unit are frames" in read('"0": "a", "16": "b"', keyframe_unit="frames").note
    assert "are seconds; set keyframe_unit to frames" in read('"0": "a", "16": "b"').note
    with pytest.raises(StoryboardError, match="order of time"):
        read(text)
    with pytest.raises(StoryboardError, match=r'keyframe_unit is .*give "seconds" or "frames"'):
        read(text, keyframe_unit="minutes")


def test_a_negative_prompt_of_keyframe_tools_never_stays_in_the_prompt() -> None:
    board = read('"0": "a rabbit --neg photo", "5": "a fox --neg photo"').storyboard
    assert ([shot.prompt for shot in board.shots], board.negative) == (["a rabbit", "a fox"], "photo")
    with pytest.raises(StoryboardError, match=r"negative prompt differs.*--neg"):
        read('"0": "a rabbit --neg photo", "5": "a fox --neg blurred"')
    assert prompts('{"shots": [{"start": 0, "prompt": "a --neg b"}]}') == ["a --neg b"]
    board = read("a negative: film\n**Negative prompt:** photo, blurred").storyboard
    assert (board.shots[0].prompt, board.negative) == ("a negative: film", "photo, blurred")
    for text in ("[0s] a rabbit\n[5s] a fox\n\nNegative prompt: photo", "0-5s: a\n5-10s: b\nNegative prompt: photo"):
        with pytest.raises(StoryboardError, match=r"negative prompt differs.*--neg"):
            read(text)
    with pytest.raises(StoryboardError, match="negative prompt stands before the first shot"):
        read("Negative prompt: photo\n[0s: a rabbit] [5s: a fox]")


PLAIN = [
    "a girl in a {red|blue|green} dress walks through a park",
    "A tall portrait shot [9:16] of a dancer on a roof",
    "[9:16] A tall portrait",
    "[16:9], wide, [2.39:1]",
    "9:16 vertical video of a dancer",
    "[4k: ultra detailed] a street [1girl]",
    "a portrait [9:16, vertical]",
    "[9:16, vertical] a portrait",
    "[16:9 4k] a street",
    "<lora:film_v2:0.8> a kitchen (steam:1.3), (((warm))), 🌧️ it’s late :] :(",
    "the [cat:dog:0.5] on a [sofa|chair]",
    'she says "left | right" and goes',
    "10:30 at night, a street",
    "12:00: high noon in a western town",
    "3 seconds later she leaves, 5 s of silence",
    "0-60 mph in 3 seconds, a car",
    "2001: A Space Odyssey style corridor",
    "Shot on 35mm: a street, f/1.8, 1/50s, 24fps",
    "Scene: a kitchen\nCamera: slow dolly\nTime: night",
    "a woman walks 5-10 steps\n- bullet\n- other",
    "2-3 people walk\n1-2 dogs run",
    "[cut] paper art of a street",
    "Prompt: a kitchen\nStyle: noir",
    "35mm film - grain, 24fps = cinema",
    "a kitchen, morning light\na street in the rain",
    "5 men walk\n3 women run",
    "[5-10] people in a park",
    "Part 2: the return of the king",
    "{masterpiece}, best quality",
    "time-lapse over 5 seconds, fading after 3 seconds",
    "she waits 5 seconds,\nthen 3 more seconds",
    "A. Smith walks home\nI. M. Pei's pyramid",
    "INT. KITCHEN - DAY",
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_belongs_to_a_prompt_stays_in_it(text: str) -> None:
    result = read(text)
    assert (result.form, prompts(text)) == ("plain", [text])
    assert prompts(f"{text} | b") == [text, "b"]
    if "\n" not in text and "|" not in text and text[:2] not in ("10", "12", "[5"):  # these could hide a shot
        assert prompts(f"[0s] {text}\n[5s] b") == prompts(f"Shot 1 (0-5s): {text}\nShot 2 (5-9s): b") == [text, "b"]


@pytest.mark.parametrize("text", PLAIN)
def test_what_belongs_to_a_prompt_stays_in_it_between_brackets_and_in_json(text: str) -> None:
    if ":]" not in text:  # a bracket of a smiley closes the shot
        assert prompts(f"[0s: {text}] [5s: b]") == [text, "b"]
    assert prompts(json.dumps({"0": text, "5": "b"})) == [text, "b"]
    assert prompts(json.dumps({"shots": [{"start": 0, "prompt": text}]})) == [text]


def test_a_smiley_of_brackets_is_kept_or_refused() -> None:
    with pytest.raises(StoryboardError, match="outside the brackets"):
        read("[0s: she smiles :] and waves] [5s: she leaves]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<think>Two shots would", "thinking.*does not end.*paste the storyboard alone"),
        (f"```json\n{JSON}\n```\n```json\n{JSON}\n```", "line 4.*several code blocks"),
        (f"{JSON}\n{JSON}", "line 2: there is more behind the JSON.*keep one"),
        ('{"shots": [{"start": 0, "prompt": "a"}, {"sta', "broken at line 1.*cut off"),
        ("{'shots': [{'start': 0, 'prompt': 'a'}]}", "line 1 looks like JSON.*double quotes"),
        ("{shots: [{start: 0, prompt: 'a'}]}", "line 1 looks like JSON.*it is no storyboard"),
        ('{"segments": [{"start": 0, "length": 41, "prompt": "a"}]}', "unknown field 'segments'.*write {\"shots\""),
        ('{"scenes": [{"prompt": "a"}]}', "shot 1: its time is missing.*duration"),
        (
            '{"scenes": [{"prompt": "a", "duration": 5, "camera": "wide"}]}',
            "'camera' is not read; put its words into 'prompt'",
        ),
        ('{"scenes": [{"prompt": "a", "duration": 5}], "style": "noir"}', "'style' beside 'scenes' is not read"),
        ('{"scenes": [{"prompt": "a", "duration": true}]}', "'duration' is True"),
        ('{"scenes": [{"prompt": "a", "start": 0, "end": 5, "duration": 4}]}', "do not agree"),
        ('{"scenes": [{"video_prompts": "a", "cut": [true]}]}', r"scene 1: 'video_prompts'.*square brackets"),
        ('{"scenes": [{"video_prompts": ["a"], "duration": 10}]}', "scene 1: 'duration' is not read.*one section"),
        ('{"scenes": [{"video_prompts": ["a", "b"], "cut": ["True"]}]}', "2 values, one per video prompt"),
        ('"0": "he said "hello" twice", "5": "a road"', r'shot 2 .*\\" for quotes inside'),
        ("'0': 'a', '5': 'b'", "line 1 looks like keyframes"),
        ('{0: "a", 16: "b"}', "line 1 looks like keyframes whose times are not in double quotes"),
        ("1: a\n2: b", "line 1 looks like numbered texts, or keys that do not begin with 0"),
        ("[1:41] a [41:81] b", "41:81.*below 60"),
        ("[0:5] a [5:10] b", r"\[0:5\] is neither a time code nor a range"),
        ("['a kitchen', 'a road']", "line 1 looks like a list of texts"),
        ("@0 a kitchen\n@5 a road", "line 1 looks like times"),
        ("#0 a\n#5 b", "line 1 looks like times"),
        ("0m0s a\n0m5s b", "line 1 looks like times"),
        ("1h2m3s: a\n1h2m8s: b", "line 1 looks like times"),
        ("0: a kitchen, 2,5: a road", "shot 1 .*holds the time 2,5; write it with a point"),
        ("0: a kitchen\n2,5: a road", "line 2 looks like times with a comma"),
        ("0:0 - 0:5 a\n0:5 - 0:10 b", "line 1 looks like time codes with one digit of seconds"),
        ("0:00 a\n0:05 b\n1:5 c", "shot 2: in its text .*one digit of seconds"),
        ("Start;End;Prompt\n0;5", "line 2: the table's row has 2 cells"),
        ("At 0 seconds, a. At 5 seconds, b.", "looks like times"),
        ("第1秒到第5秒：a；第5秒到第10秒：b", "line 1 looks like times"),
        ("a kitchen, 5 seconds\na road, 3 seconds", "line 1 looks like lengths of shots"),
        ("(0.0, 5.0) a\n(5.0, 10.0) b", "line 1 looks like pairs of numbers"),
        ("{0}{80}a\n{80}{160}b", "line 1 looks like subtitles"),
        ("First shot: a\nSecond shot: b", "line 1 looks like a list of shots"),
        ("① a\n② b", "line 1 looks like a list of shots"),
        ("A. a\nB. b", "line 1 looks like a list of shots"),
        ("INT. KITCHEN - DAY\na\nEXT. ROAD - NIGHT\nb", "line 1 looks like scenes of a screenplay"),
        ("0 zeit: a\n5 zeit: b", "line 1 looks like times with an unknown unit"),
        ("[0] a\n[5] b", r"write their unit: \[5s\]"),
        ("[500ms: a] [900ms: b]", "unknown unit"),
        ("[0s] a [5s: b]", r"'\[0s\]' has its text behind it"),
        ("[0-1:30: a]\n[2-2:30: b]", "mixes a number and a time code"),
        ("(0s: a) (5s: b)", "line 1 looks like times"),
        ("At 0s a kitchen, at 5s a road", "line 1 looks like times"),
        ("First 5 seconds: a. Next 5 seconds: b.", "line 1 looks like times"),
        ("A: 0-5s\nB: 5-10s", "line 1 looks like ranges of times"),
        ("(0-5s) a (5-10s) b", "shot 1: in its text .*times in brackets"),
        ("Shot 1 (5s): a\nShot 2 (3s): b", r"line 1.*starts or lengths.*0-5s"),
        ("Shot 1 (0-5s): a\nShot 2: b", "line 2: 'Shot 2' has no time"),
        ("Shot 1: a\nShot 3: b", "line 2: 'Shot 3' does not follow 1"),
        ("Shot A: a\nShot B: b", "line 1 looks like a list of shots"),
        ("Film grain, 1970s.\nShot 1 (0-5s): a", "line 1: .*before the first shot"),
        ("0-5s: a\n5-10s: b\n\nTell me if you want more!", "line 4: 'Tell me.* stands apart"),
        ("[0s] a kitchen\n5s: a road", "shot 1: in its text .*looks like times"),
        ("8k, film grain\n0: a\n12: b\nno people", "line 2 looks like numbered texts, or keys"),
        ("frame 0: a\nframe 80: b", "write 24f"),
        ("| Scene | Text |\n|---|---|\n| 1 | a |", "line 1: the text is a table.*column of times"),
        ("| 1 | 0-5s | a |\n| 2 | 5-10s | b |", "line 1: the text is a table.*Time"),
        ("| Time | Prompt |\n|---|---|\n| 0-5s | a | b |", "line 3: the table's row has 3 cells"),
        ("| Time (ms) | Prompt |\n|---|---|\n| 0 | a |\n| 5000 | b |", r"'Time \(ms\)' is in a unit.*seconds"),
        ("start (h),prompt\n0,a\n1,b", "unit that is not read"),
        ("0,5,a kitchen\n5,10,a road", "line 1 looks like rows that begin with numbers"),
        ("0\ta kitchen\n5\ta road", "line 1 looks like rows"),
        ("0=a kitchen\n5=a road", "line 1 looks like rows"),
        ("0-5 a kitchen\n5-10 a road", "line 1 looks like ranges of times without a unit"),
        ("[(0, 'a kitchen'), (5, 'a road')]", "line 1 looks like pairs"),
        ("t=0: a kitchen\nt=5: a road", "line 1 looks like times"),
        ("- prompt: a kitchen\n- prompt: a road", "line 1 looks like several prompts"),
        ("a kitchen [cut to] a road", "line 1 looks like cuts"),
        ("<scene1>a</scene1><scene2>b</scene2>", "line 1 looks like XML"),
        ("0s - a kitchen, 5s - a road", "shot 1: in its text .*looks like times"),
        ("| Time | Prompt |\n|---|---|\n| soon | a |", r"line 3 of the table\): the time is 'soon'"),
        ("Words\n\n00:00:00,000 --> 00:00:05,000\na", "line 1: 'Words' stands before the first time"),
        ("shots:\n  - start: 0\n    prompt: a\n  - start: 5\n    prompt: b", "line 2 looks like fields with times"),
        ('<shot time="0-5">a</shot>', "line 1 looks like XML"),
        ("a kitchen\n---\na road", "parts with lines between them"),
        ("[global caption] a", r"no shots; write \[per shot caption\]"),
    ],
)
def test_what_is_not_understood_is_refused_by_place_and_form(text: str, message: str) -> None:
    with pytest.raises(StoryboardError, match=message):
        read(text)


@pytest.mark.parametrize("text", ["a [9:16] b", "a {x|y} b", *TWO_SHOTS.values()])
def test_how_a_text_was_read_is_said_in_words_that_the_editor_knows(text: str) -> None:
    result = read(text)
    assert result.form in reading.FORMS and set(result.remarks) <= set(reading.REMARKS)
    assert result.note.startswith(f"Read as {len(result.storyboard.shots)} shot")
    assert result.to_dict()["note"] == result.note


def test_every_form_and_remark_has_its_words_in_each_language_of_the_editor() -> None:
    words = (ROOT / "js" / "strings" / "storyboard.mjs").read_text(encoding="utf-8")
    for key in [*(f"form.{form}" for form in reading.FORMS), *(f"remark.{remark}" for remark in reading.REMARKS)]:
        assert words.count(f'"storyboard.{key}"') == 3, key


@settings(max_examples=300)
@given(st.text('[]{}"\u201c\u201d:：|-–~～至,，s秒f%0159. ab\n#*1.2:\t()（）【】', max_size=60))
def test_what_is_read_has_the_same_storyboard_in_the_canonical_form(text: str) -> None:
    try:
        board = read(text, total_seconds=60.0).storyboard
    except StoryboardError:
        return
    assert Storyboard.from_json(board.to_json()) == board
    assert read(board.to_json()).storyboard == board


@settings(max_examples=200)
@given(st.data())
def test_mixtures_of_forms_are_read_or_refused(data: st.DataObject) -> None:
    pieces = st.sampled_from([*TWO_SHOTS.values(), *PLAIN])
    text = "".join(data.draw(pieces)[data.draw(st.integers(0, 20)) :] for _ in range(data.draw(st.integers(1, 3))))
    try:
        board = read(text).storyboard
    except StoryboardError:
        return
    assert read(board.to_json()).storyboard == board


CASES = ROOT.parent / "shared" / "cases"


@pytest.mark.skipif(not (CASES / "expected.json").is_file(), reason="the collected texts are not beside the pack")
def test_the_collected_texts_of_people_are_read_as_expected() -> None:
    expected = json.loads((CASES / "expected.json").read_text(encoding="utf-8"))
    wrong = []
    for path in sorted(CASES.glob("S*")):
        key = path.name.split("_")[0]
        try:
            found = starts(path.read_text(encoding="utf-8"))
        except StoryboardError:
            continue
        if key in expected and (len(found) == 1 if expected[key] is None else found != expected[key]):
            wrong.append((path.name, found))
    assert not wrong
