"""Storyboards: what a film shows and when; read from five text formats, scheduled as sections on the latent lattice."""

from __future__ import annotations

from .formats import parse_storyboard
from .model import MAX_CHARACTERS, MAX_SECONDS, MAX_SHOTS, MAX_TEXT_BYTES, Shot, Storyboard, StoryboardError
from .schedule import MAX_SECTIONS, Section, describe_schedule, nearest_shot, plan_sections

__all__ = [
    "MAX_CHARACTERS",
    "MAX_SECONDS",
    "MAX_SECTIONS",
    "MAX_SHOTS",
    "MAX_TEXT_BYTES",
    "Section",
    "Shot",
    "Storyboard",
    "StoryboardError",
    "describe_schedule",
    "nearest_shot",
    "parse_storyboard",
    "plan_sections",
]
