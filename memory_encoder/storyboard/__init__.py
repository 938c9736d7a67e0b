"""Storyboards: what a film shows and when, read from texts as people write them, scheduled on the latent lattice."""

from __future__ import annotations

from .cast import CastLine, merged
from .formats import parse_storyboard, read_storyboard
from .importers.characters import read_characters
from .importers.reading import Reading
from .instruction import storyboard_prompt
from .lattice import Lattice
from .model import MAX_CHARACTERS, MAX_SECONDS, MAX_SHOTS, MAX_TEXT_BYTES, Shot, Storyboard, StoryboardError
from .schedule import MAX_SECTIONS, ONE_CLIP, Section, describe_schedule, nearest_shot, plan_sections
from .times import KeyframeUnit

__all__ = [
    "MAX_CHARACTERS",
    "MAX_SECONDS",
    "MAX_SECTIONS",
    "MAX_SHOTS",
    "MAX_TEXT_BYTES",
    "ONE_CLIP",
    "CastLine",
    "KeyframeUnit",
    "Lattice",
    "Reading",
    "Section",
    "Shot",
    "Storyboard",
    "StoryboardError",
    "describe_schedule",
    "merged",
    "nearest_shot",
    "parse_storyboard",
    "plan_sections",
    "read_characters",
    "read_storyboard",
    "storyboard_prompt",
]
