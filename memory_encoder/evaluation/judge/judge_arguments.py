"""Options of the `judge` command; light, so that the command line starts at once."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("film", type=Path, help="an MP4, or the folder of a film in output/video_memory")
    parser.add_argument(
        "--storyboard", type=Path,
        help="text of the film's storyboard, in any form that Storyboard reads; without one cuts are found by "
        "PySceneDetect and nothing is known of prompts and people",
    )  # fmt: skip
    parser.add_argument(
        "--against", action="append", default=[], metavar="NAME=FILM",
        help="another film, such as the same without memory, or a folder of films; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--models", type=Path, action="append", default=[],
        help="a folder such as ComfyUI's models, where face models and others lie; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--clip-vision", type=Path, help="a CLIP vision model, as for Load CLIP Vision: clothes, objects and aesthetic"
    )
    parser.add_argument(
        "--clip", type=Path, help="the text encoder of the same CLIP, as for Load CLIP: how well pictures fit prompts"
    )
    parser.add_argument("--comfy", help="ComfyUI's folder, for CLIP and ViCLIP; by default COMFYUI_PATH")
    parser.add_argument("--section-seconds", type=float, default=5.0, help="of shots without a time (default 5)")
    parser.add_argument("--device", default="cpu", help="where RAFT runs (default cpu)")
    parser.add_argument(
        "--out", type=Path, help="folder for the report; by default the film's own, or FILM_report beside an MP4"
    )
