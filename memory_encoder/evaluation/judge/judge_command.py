"""The `judge` command: measures a film, says which shot falls out, and stands it against others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...damage import damage_named
from ...files import write_bytes
from ...film.sections import MANIFEST
from ...injection.hosts.comfy_models import CheckpointError, load_clip_vision, load_comfy, load_text_encoder
from ...storyboard import Storyboard, StoryboardError, read_storyboard
from ...training.dataset.video import EXTENSIONS
from .against import Compared, compare
from .connected_judges import Seeing, Words
from .contact_sheet import contact_sheet, png
from .footage import Footage, footage_of_film, footage_of_movie
from .instruments import VICLIP, Instruments, find_instruments, find_model
from .judging import judge_film
from .marks import section_keys, with_keys
from .report import REPORT_JSON, REPORT_SHEET, REPORT_TEXT, FilmReport
from .report_text import comparison_table, markdown

CLIP_TYPE = "hidream"  # core's type of text encoder with which CLIP-L and CLIP-G are projected; CLIP-H always is


def run_judge(args: argparse.Namespace) -> None:
    """Writes REPORT_JSON, REPORT_TEXT and REPORT_SHEET; raises ValueError or OSError for what cannot be judged."""
    for folder in args.models:
        if not folder.is_dir():
            raise ValueError(f"--models {folder} is no folder")
    named = [_named(text) for text in args.against]
    others = {name: _films(Path(path)) for name, path in named}
    if len(others) < len(named):
        raise ValueError("--against: two films have the same name; give each its own")
    instruments = _instruments(args)
    keys = section_keys(args.film) if args.film.is_dir() else {}  # as they are before it is watched
    report = _judged(args.film, args, instruments)
    out = args.out or (args.film if args.film.is_dir() else args.film.with_name(f"{args.film.stem}_report"))
    files = write_report(report, out, keys=keys)  # kept, whatever is wrong with the others
    against = [
        compare(report, name, [_judged(path, args, instruments) for path in paths]) for name, paths in others.items()
    ]
    if against:
        files = write_report(report, out, against, keys)
    for path in files:
        print(path, flush=True)
    print("\n".join(report.remarks() or [report.nothing()]), flush=True)
    if against:
        print("\n".join(comparison_table(report, against)), flush=True)
    for one in report.missing:
        print(f"missing: {one.said}", flush=True)


def _instruments(args: argparse.Namespace) -> Instruments:
    """What `models` holds, with CLIP and ViCLIP through an installed ComfyUI, which is looked for where they are."""
    given = args.comfy or args.clip_vision or args.clip
    core = False
    if given or find_model(args.models, VICLIP):
        try:
            load_comfy(args.comfy)
            core = True
        except CheckpointError:
            if given:
                raise
    return find_instruments(
        args.models,
        embed=None if args.clip_vision is None else Seeing(load_clip_vision(args.clip_vision)),
        embed_text=None if args.clip is None else Words(load_text_encoder([str(args.clip)], CLIP_TYPE)),
        device=_device(args.device),
        core=core,
    )


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used ({str(error).splitlines()[0]}); give cpu, or cuda") from error


def write_report(
    report: FilmReport, folder: Path, against: Sequence[Compared] = (), keys: Mapping[int, str] | None = None
) -> list[Path]:
    """Writes the report as JSON, markdown and contact sheet into a folder, and returns the files.

    keys: of the sections that were judged, see `marks`; by them the render strip marks what falls out.
    """
    data = report.to_dict() | ({"against": [one.to_dict() for one in against]} if against else {}) | with_keys(keys)
    contents = {
        REPORT_JSON: json.dumps(data, ensure_ascii=False, allow_nan=False).encode(),
        REPORT_TEXT: markdown(report, against).encode(),
        REPORT_SHEET: png(contact_sheet(report)),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content)
    return [folder / name for name in contents]


def open_film(path: Path, storyboard: Storyboard | None = None) -> Footage:
    """A film of ours by its folder, or a video. Raises ValueError or OSError for anything else."""
    if path.is_dir():
        return footage_of_film(path.resolve(), storyboard)
    if not path.is_file():
        raise ValueError(f"{path} is not there; give a video, or the folder of a film")
    if path.suffix.lower() not in EXTENSIONS:  # FFmpeg makes pictures of a text as well
        raise ValueError(f"{path} is no video; give one of {', '.join(EXTENSIONS)}, or the folder of a film")
    return footage_of_movie(path, storyboard)


def _judged(path: Path, args: argparse.Namespace, instruments: Instruments) -> FilmReport:
    storyboard = None
    if args.storyboard is not None:
        with damage_named(args.storyboard, "storyboard", "give a text", StoryboardError):
            text = args.storyboard.read_text(encoding="utf-8-sig")
        storyboard = read_storyboard(text, section_seconds=args.section_seconds).storyboard

    def watch(done: int, total: int) -> None:
        print(f"{path.name}: shot {done} of {total}", flush=True)

    return judge_film(open_film(path, storyboard), instruments, watch)


def _named(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not sign or not name or not path:
        raise ValueError(f"--against {text[:80]!r}: write a name and a film, such as without_memory=film.mp4")
    return name, path


def _films(path: Path) -> list[Path]:
    """A film, or those of a folder: videos and folders of ours. Raises ValueError where there is none."""
    if path.is_file() or (path / MANIFEST).is_file():
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = [one for one in inside if one.suffix.lower() in EXTENSIONS or (one / MANIFEST).is_file()]
    if not found:
        raise ValueError(f"{path} is no film and holds none; give a video, a film's folder, or a folder of these")
    return found
