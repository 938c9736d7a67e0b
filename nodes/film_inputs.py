"""What the Autoregressive Sampler is given: its sizes, checked, and what a section's key says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..memory_encoder.film.identity import conditioning as hashable
from ..memory_encoder.film.identity import has_objects, upstream
from ..memory_encoder.film.sections import MANIFEST
from ..memory_encoder.memory.memory_file import Memory
from .runtime import folders

_MODELS = ("model", "memory_encoder", "vae", "sampler", "model_low_noise", "clip_vision")
_TEXTS = ("storyboard", "negative")


def models_of(hidden: Any, conditioning: Any = None) -> dict[str, str] | None:
    """Digests of what feeds the model inputs of the node that runs, also where an expanded graph made the node.

    Where `conditioning` holds objects that have no content to hash, what feeds the inputs of texts counts as well.
    None when ComfyUI does not say what feeds the node.
    """
    inputs = (*_MODELS, *_TEXTS) if has_objects(conditioning) else _MODELS
    graph = getattr(hidden, "dynprompt", None)
    if graph is None:
        return upstream(hidden.prompt, hidden.unique_id, inputs, folders.file_stamp)
    return upstream(_RunningGraph(graph), hidden.unique_id, inputs, folders.file_stamp, graph.get_parent_node_id)


class _RunningGraph(Mapping[str, Any]):
    """ComfyUI's graph while it runs, nodes that other nodes have expanded to as well, as one prompt."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def __getitem__(self, node_id: str) -> Any:
        if not self.graph.has_node(node_id):
            raise KeyError(node_id)
        return self.graph.get_node(node_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.graph.all_node_ids())

    def __len__(self) -> int:
        return len(self.graph.all_node_ids())


class FilesOfFilms:
    """Notices that files of finished films were deleted or changed since, so that ComfyUI's cache answers no longer.

    It remembers as long as that cache lives: in this process.
    """

    def __init__(self) -> None:
        self._files: dict[Path, dict[Path, Any]] = {}
        self._losses: dict[Path, int] = {}

    def record(self, folder: Path, files: Iterable[Path]) -> None:
        """A film is finished and these of its files are there now."""
        stamps = {path: _stamp(path) for path in (folder / MANIFEST, *files)}
        self._files.setdefault(folder, {}).update(stamps)

    def losses(self, folder: Path | None) -> int:
        """How often files of a film, or of any film, were found missing or changed."""
        if folder is None:
            return sum(self.losses(known) for known in {*self._files, *self._losses})
        if any(_stamp(path) != stamp for path, stamp in self._files.get(folder, {}).items()):
            self._losses[folder] = self._losses.get(folder, 0) + 1
            del self._files[folder]
        return self._losses.get(folder, 0)


def _stamp(path: Path) -> Any:
    try:
        status = path.stat()
    except OSError:
        return None
    return True if path.name == MANIFEST else (status.st_size, status.st_mtime_ns)  # each run writes the manifest anew


def latent_size(host: Any, codec: Any, width: int, height: int) -> tuple[int, int, int]:
    """Channels, height and width of the latents; raises ValueError for sizes the host cannot patchify."""
    cell_h, cell_w = codec.spatial * host.patch[1], codec.spatial * host.patch[2]
    for name, value, cell in (("width", width, cell_w), ("height", height, cell_h)):
        if value % cell:
            raise ValueError(f"{name} {value} is not a multiple of {cell}; try {max(cell, round(value / cell) * cell)}")
    return host.latent_channels, height // codec.spatial, width // codec.spatial


def check_size(opening: Any, memory: Memory | None, size: tuple[int, int, int]) -> None:
    """Raises ValueError when the film's size differs from its history's."""
    for name, found in (
        ("history", None if opening is None else tuple(opening.shape[3:])),
        ("memory", memory.size if memory is not None and any(memory.size) else None),
    ):
        if found is not None and found != size[1:]:
            raise ValueError(
                f"{name} has latents of {found[1]}x{found[0]}, but width and height give {size[2]}x{size[1]}; "
                "set width and height to those of the history"
            )
    for name, batch in (
        ("history", 1 if opening is None else opening.shape[0]),
        ("memory", 1 if memory is None else memory.batch),
    ):
        if batch != 1:
            raise ValueError(f"{name} holds a batch of {batch} clips; a film continues one: use Latent From Batch")


def describe_sampler(sampler: Any) -> list[Any]:
    """Name and options of a SAMPLER, as far as they can be hashed."""
    function = getattr(sampler, "sampler_function", None)
    return [
        type(sampler).__qualname__,
        getattr(function, "__name__", None),
        hashable(getattr(sampler, "extra_options", {})),
    ]
