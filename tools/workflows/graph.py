"""A workflow as a description: nodes with inputs, groups of columns to arrange them in, notes, models to download."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

NOTE_SIZE = (420, 60)  # at first; convert.mjs makes it as high as its text
NOTE_ID = 900  # notes are numbered from here, so that nodes keep their numbers when one is added


@dataclass(frozen=True)
class ModelFile:
    """A file to download, as ComfyUI's dialog of missing models shows it."""

    name: str
    url: str
    directory: str

    def declared(self) -> dict[str, str]:
        return {"name": self.name, "url": self.url, "directory": self.directory}


@dataclass
class Node:
    """A node, or a note when `kind` is MarkdownNote."""

    id: int
    kind: str
    title: str
    inputs: dict[str, Any] = field(default_factory=dict)
    models: Sequence[ModelFile] = ()
    size: tuple[int, int] | None = None  # None: as ComfyUI computes it
    text: str = ""  # of a note

    def __getitem__(self, output: int) -> list[Any]:
        """The link to an output, for the inputs of another node."""
        return [str(self.id), output]


@dataclass(frozen=True)
class Group:
    """A titled frame around columns of nodes, from left to right."""

    title: str
    columns: Sequence[Sequence[Node]]
    color: str = "#3f789e"


class Workflow:
    """Nodes in the order they are added; groups in the order they are laid out, left to right.

    Args:
        name: of the files.
        label: a few words for the thumbnail.
        line: one line for the thumbnail.
        scene: which drawing of thumbnails.mjs it shows.
    """

    def __init__(self, name: str, label: str, line: str, scene: str = "film") -> None:
        self.name, self.label, self.line, self.scene = name, label, line, scene
        self.nodes: list[Node] = []
        self.notes: list[Node] = []
        self.groups: list[Group] = []

    def add(
        self,
        kind: str,
        title: str,
        *,
        id: int | None = None,
        models: Sequence[ModelFile] = (),
        size: tuple[int, int] | None = None,
        **inputs: Any,
    ) -> Node:
        """A node; inputs that are not given keep their defaults."""
        number = max((node.id for node in self.nodes), default=0) + 1 if id is None else id
        if any(node.id == number for node in self.nodes):
            raise ValueError(f"{self.name}: two nodes have the id {number}")
        node = Node(number, kind, title, inputs, models, size or SIZES.get(kind))
        self.nodes.append(node)
        return node

    def note(self, title: str, text: str) -> Node:
        """A note in Markdown."""
        text = text.strip().replace("`", "**")  # Nodes 2.0 prints code in blue on blue, which no one can read here
        text = re.sub(r"\n\s*\n", "\n\n", text)
        text = re.sub(r"(?<!\n)\n(?!\n|\d\. |- )\s*", " ", text)  # lines of one paragraph
        node = Node(NOTE_ID + len(self.notes), "MarkdownNote", title, size=NOTE_SIZE, text=text)
        self.notes.append(node)
        return node

    def group(self, title: str, *columns: Sequence[Node], color: str = "#3f789e") -> None:
        self.groups.append(Group(title, columns, color))

    def prompt(self) -> dict[str, Any]:
        """The graph in API form."""
        return {
            str(node.id): {"class_type": node.kind, "inputs": node.inputs, "_meta": {"title": node.title}}
            for node in self.nodes
        }

    def plan(self) -> dict[str, Any]:
        """All that tools/workflows/convert.mjs needs.

        Raises ValueError for a node that no group shows, or two do, and for one that would grow over the node below it.
        """
        shown = [node.id for node in self._shown()]
        known = [node.id for node in (*self.nodes, *self.notes)]
        if sorted(shown) != sorted(known):
            raise ValueError(f"{self.name}: groups show {sorted(shown)}, the nodes are {sorted(known)}")
        columns = [column for group in self.groups for column in group.columns]
        if over := [node.title for column in columns for node in column[:-1] if node.kind in GROWS]:
            raise ValueError(f"{self.name}: {', '.join(over)} will grow, and has to stand last in its column")
        return {
            "name": self.name,
            "label": self.label,
            "line": self.line,
            "scene": self.scene,
            "prompt": self.prompt(),
            "nodes": {
                str(node.id): {
                    "size": node.size,
                    "models": [model.declared() for model in node.models],
                    "grows": GROWS.get(node.kind, 0),
                }
                for node in self.nodes
            },
            "notes": [{"id": n.id, "title": n.title, "text": n.text, "size": n.size} for n in self.notes],
            "groups": [
                {"title": g.title, "color": g.color, "columns": [[n.id for n in column] for column in g.columns]}
                for g in self.groups
            ],
        }

    def _shown(self) -> Iterator[Node]:
        for group in self.groups:
            for column in group.columns:
                yield from column


# Room for what a node shows when it has run, and for reading long texts.
SIZES: dict[str, tuple[int, int]] = {
    "VideoMemoryStoryboard": (680, 740),
    "VideoMemorySampler": (480, 640),
    "VideoMemoryTrain": (440, 700),
    "VideoMemoryDataset": (420, 100),
    "VideoMemoryBudget": (400, 100),
    "CLIPTextEncode": (420, 160),
    "VideoMemorySaveFilm": (480, 100),
    "SaveVideo": (480, 100),
    "SaveImage": (480, 360),
    "PreviewImage": (480, 360),
    "PreviewAny": (480, 240),
    "LoadImage": (320, 340),
    "LoadVideo": (320, 340),
}
# How much higher ComfyUI makes a node when it shows what was made: it stands last in its column, in a frame with room.
GROWS: dict[str, int] = {"VideoMemorySaveFilm": 310, "SaveVideo": 310}
