"""Whether core has encoded pictures in tiles for want of memory, which gives other latents: its log alone says so."""

from __future__ import annotations

import logging

TILED = "pictures were encoded in tiles for want of memory, which gives other latents (free memory, or shorter windows)"


class TilesWatched(logging.Handler):
    """Listens within it to what core says; found: what a report says of a clip, empty where nothing was tiled."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if "tiled VAE encoding" in record.getMessage():
            self.found.add(TILED)

    def __enter__(self) -> TilesWatched:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
