"""Where ComfyUI keeps what the pack reads and writes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PureWindowsPath
from typing import Any

import folder_paths

ENCODERS, MEMORIES, FILMS = "memory_encoders", "video_memories", "video_memory"
DATASETS = "video_memory_datasets"
REPORT_MODELS = "film_report"  # what films are judged with; a folder of models/ that need not be there
CLIPS = "video_memory_clips"  # in extra_model_paths.yaml: folders that Cache Training Clips may read
CLIP_FOLDERS = "VIDEO_MEMORY_CLIP_FOLDERS"  # the same as an environment variable, written like PATH


def register_folders() -> None:
    """Tells ComfyUI where encoders lie; memories are outputs, so that Save and Load meet."""
    folder = os.path.join(folder_paths.models_dir, ENCODERS)
    os.makedirs(folder, exist_ok=True)  # where a person looks for the place to put a file
    folder_paths.add_model_folder_path(ENCODERS, folder)
    folder_paths.folder_names_and_paths[ENCODERS][1].add(".safetensors")
    folder_paths.add_model_folder_path(REPORT_MODELS, os.path.join(folder_paths.models_dir, REPORT_MODELS))
    # Trained ones are outputs, as core has it for trained LoRAs (output/loras), so that they can be chosen at once.
    folder_paths.add_model_folder_path(ENCODERS, os.path.join(folder_paths.get_output_directory(), ENCODERS))


def report_folders() -> list[Path]:
    """Where the models lie that films are judged with: ComfyUI's models, and what extra_model_paths.yaml adds."""
    return [Path(path) for path in (folder_paths.models_dir, *folder_paths.get_folder_paths(REPORT_MODELS))]


def memory_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / MEMORIES


def film_root() -> Path:
    return Path(folder_paths.get_output_directory()) / FILMS


def dataset_root() -> Path:
    return Path(folder_paths.get_output_directory()) / DATASETS


def training_root() -> Path:
    return Path(folder_paths.get_output_directory()) / "video_memory_training"


def clips_folder(folder: str) -> Path:
    """A folder of clips: below ComfyUI's input folder, or in a folder that the server's owner allows.

    Whoever may queue chooses it, so that nothing else is looked at, and no other machine is asked. Raises ValueError.
    """
    if folder.startswith(("//", "\\\\", "/\\", "\\/")):
        raise ValueError(f"folder {folder[:80]!r} is on another machine; copy the clips here, or mount its folder")
    inputs = Path(folder_paths.get_input_directory()).resolve()
    try:
        path = (inputs / (folder if folder.strip() else "")).resolve()  # an absolute path stays itself
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a circle of links, a NUL
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"folder {folder[:200]!r} is no path ({reason}); give the name of a folder") from error
    if inputs in path.parents:
        return path
    if any(root == path or root in path.parents for root in _allowed_clip_folders()):
        return path
    raise ValueError(
        f"folder {folder[:200]!r} is not below ComfyUI's input folder; put the clips or a copy there. Other folders "
        f"are for the server's owner to allow: set {CLIP_FOLDERS} before ComfyUI starts, or {CLIPS} in "
        "extra_model_paths.yaml (see SECURITY.md)"
    )


def _allowed_clip_folders() -> list[Path]:
    named = [name for name in os.environ.get(CLIP_FOLDERS, "").split(os.pathsep) if os.path.isabs(name)]
    if CLIPS in folder_paths.folder_names_and_paths:
        named += folder_paths.get_folder_paths(CLIPS)
    return [Path(name).resolve() for name in named]


def stays_inside(name: str) -> bool:
    """Whether a name can only be of something below the folder that it is looked for in, on any system."""
    windows = PureWindowsPath(name)
    return not (name.startswith("/") or windows.anchor or ".." in windows.parts)


def file_stamp(name: str) -> list[Any] | None:
    """Size and time of a file that a widget names, wherever ComfyUI keeps such files; None when it is no file.

    A list of them for a name that several folders have: which of these files is meant, the widget's node knows.
    """
    if not name or len(name) > 512 or "\n" in name:
        return None
    folders = [path for paths, _ in folder_paths.folder_names_and_paths.values() for path in paths]
    name, base = folder_paths.annotated_filepath(name)  # "picture.png [output]", as Load Image writes it
    if not stays_inside(name):
        return None
    stamps: list[list[int]] = []
    for folder in [*folders, folder_paths.get_input_directory()] if base is None else [base]:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            status = os.stat(path)
            stamp = [status.st_size, status.st_mtime_ns]
            stamps += [stamp] if stamp not in stamps else []
    return stamps if len(stamps) > 1 else next(iter(stamps), None)
