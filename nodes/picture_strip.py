"""What the render view shows of a memory of pictures: small copies of those that it keeps or has kept.

`pictures.json` in the film's folder is {"version": 1, "film": name, "pictures": [picture, ...]}, oldest first; the page
is sent the same list (message `video_memory.section` of the state "pictures") and asks for it with the film's state. A
picture is {"id", "section", "frame", "kept", "pinned", "banned", "image"}. id: its name in the sampler's widget
`pictures`, where a page writes it to pin it (2:40), and with a minus to ban it (-2:40). section: index of its section,
from 0; -1 for what came before the film. kept: the next section sees it. image: a data URL. What each finished section
saw is in its record of the manifest, as "pictures": ids.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from ..memory_encoder.damage import DAMAGE, parsed_object
from ..memory_encoder.files import read_plain
from ..memory_encoder.memory.keyframe_memory import KeyframeMemory
from ..memory_encoder.memory.picture_choice import KeptPicture, PictureChoice, PictureMarks

PICTURES = "pictures.json"
PICTURES_VERSION = 1
MAX_WIDTH = 160


class PictureStrip:
    """Draws the pictures of one film's memory, each once."""

    def __init__(self, film: str) -> None:
        self.film = film
        self.images: dict[int, str] = {}

    def pictures(self, memory: KeyframeMemory, choice: PictureChoice, following: int) -> list[dict[str, Any]]:
        """All pictures of a memory, as JSON values. following: index of the next section."""
        kept = {picture.number for picture in memory.bank(choice.for_section(following))}
        return [self._described(picture, choice.marks, picture.number in kept) for picture in memory.pictures]

    def content(self, pictures: list[dict[str, Any]]) -> bytes:
        """What is in PICTURES."""
        return json.dumps({"version": PICTURES_VERSION, "film": self.film, "pictures": pictures}).encode()

    def _described(self, picture: KeptPicture, marks: PictureMarks, kept: bool) -> dict[str, Any]:
        if picture.number not in self.images:
            self.images[picture.number] = thumbnail(picture)
        name = marks.name(picture)
        return {
            "id": name,
            "section": max(-1, picture.section - marks.before),
            "frame": picture.frame,
            "kept": kept,
            "pinned": name in marks.pinned,
            "banned": name in marks.banned,
            "image": self.images[picture.number],
        }


def thumbnail(picture: KeptPicture) -> str:
    """A small copy as a data URL."""
    image = Image.fromarray(picture.pixels.numpy())
    image.thumbnail((MAX_WIDTH, MAX_WIDTH))
    content = io.BytesIO()
    image.save(content, "WEBP", quality=70, method=2)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def stored_pictures(folder: Path) -> list[dict[str, Any]]:
    """The pictures of a film on disk, empty where it has none."""
    try:
        data = parsed_object(read_plain(folder / PICTURES))
    except (OSError, *DAMAGE):
        return []
    pictures = data.get("pictures") if data.get("version") == PICTURES_VERSION else None
    return [picture for picture in pictures if isinstance(picture, dict)] if isinstance(pictures, list) else []
