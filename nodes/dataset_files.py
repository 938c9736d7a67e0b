"""What Cache Training Clips has left on disk, and whether it is there still."""

from __future__ import annotations

from pathlib import Path

from ..memory_encoder.training.dataset.scan import Looking, folder_stamp


class FilesOfDatasets:
    """Notices that a finished dataset was deleted or changed since, so that ComfyUI's cache answers no longer.

    It remembers as long as that cache lives: in this process.
    """

    def __init__(self) -> None:
        self._left: dict[Path, str] = {}
        self._losses: dict[Path, int] = {}

    def record(self, folder: Path, looking: Looking = lambda: None) -> None:
        """A dataset is finished, and its files are there now."""
        self._left[folder] = folder_stamp(folder, looking)

    def losses(self, folder: Path | None, looking: Looking = lambda: None) -> int:
        """How often a dataset, or any dataset, was found to be other than it was left. looking: may raise to stop."""
        if folder is None:
            return sum(self.losses(known, looking) for known in {*self._left, *self._losses})
        if folder in self._left and folder_stamp(folder, looking) != self._left[folder]:
            self._losses[folder] = self._losses.get(folder, 0) + 1
            del self._left[folder]
        return self._losses.get(folder, 0)
