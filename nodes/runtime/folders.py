"""Where ComfyUI keeps what the pack reads and writes."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

ENCODERS, MEMORIES, FILMS = "memory_encoders", "video_memories", "video_memory"
DATASETS = "video_memory_datasets"


def register_folders() -> None:
    """Tells ComfyUI where encoders lie; memories are outputs, so that Save and Load meet."""
    folder = os.path.join(folder_paths.models_dir, ENCODERS)
    os.makedirs(folder, exist_ok=True)  # where a person looks for the place to put a file
    folder_paths.add_model_folder_path(ENCODERS, folder)
    folder_paths.folder_names_and_paths[ENCODERS][1].add(".safetensors")
    # Trained ones are outputs, as core has it for trained LoRAs (output/loras), so that they can be chosen at once.
    folder_paths.add_model_folder_path(ENCODERS, os.path.join(folder_paths.get_output_directory(), ENCODERS))


def memory_folder() -> Path:
    return Path(folder_paths.get_output_directory()) / MEMORIES


def film_root() -> Path:
    return Path(folder_paths.get_output_directory()) / FILMS


def dataset_root() -> Path:
    return Path(folder_paths.get_output_directory()) / DATASETS


def training_root() -> Path:
    return Path(folder_paths.get_output_directory()) / "video_memory_training"


def clips_folder(folder: str) -> Path:
    """A folder of clips: below ComfyUI's input folder, or an absolute path. Raises ValueError when it leaves input."""
    if os.path.isabs(folder):
        return Path(folder)
    inputs = Path(folder_paths.get_input_directory()).resolve()
    path = (inputs / folder).resolve()
    if not folder.strip() or inputs not in path.parents:
        raise ValueError(f"folder {folder!r} is not below ComfyUI's input folder; give its name, or an absolute path")
    return path


def file_stamp(name: str) -> list[int] | None:
    """Size and time of a file that a widget names, wherever ComfyUI keeps such files; None when it is no file."""
    if not name or len(name) > 512 or "\n" in name:
        return None
    folders = [path for paths, _ in folder_paths.folder_names_and_paths.values() for path in paths]
    name, base = folder_paths.annotated_filepath(name)  # "picture.png [output]", as Load Image writes it
    for folder in [*folders, folder_paths.get_input_directory()] if base is None else [base]:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            status = os.stat(path)
            return [status.st_size, status.st_mtime_ns]
    return None
