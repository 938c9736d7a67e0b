"""What training asks of ComfyUI: a model with gradients, the device, and where trained files are published."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...memory_encoder.files import remove_abandoned_of, write_together
from ...memory_encoder.injection.hosts.comfy_models import computes_in_bf16, sampling_shift
from ...memory_encoder.training.options import HostDefaults
from ...memory_encoder.training.run_files import LORA, published_files, run_of
from .folders import ENCODERS
from .sampling import host_of

log = logging.getLogger("video_memory")
MOST_NAMES = 100  # of one run's published files


def training_device() -> torch.device:
    return mm.get_torch_device()


def host_defaults(model: Any) -> HostDefaults:
    """What automatic options become with this MODEL, whose shift a ModelSampling node may have set."""
    return HostDefaults(sampling_shift(model), "bf16" if computes_in_bf16(training_device()) else "no")


NOT_TRAINABLE = "load a bf16, fp16 or fp8 file with core's Load Diffusion Model for training"


def model_for_training(model: Any, in_ram: bool = False) -> Any:
    """A deep copy of a MODEL, wholly on the device, whose tensors may have gradients; the original is left alone.

    All that core has loaded leaves the device, which the plan of a run counts as free. Core does not know of the copy:
    what is loaded beside it, such as the VAE for a picture, pushes no part of it out.
    in_ram: the copy lies in RAM, since not all of it will be on the device.
    Raises ValueError for a model that cannot be trained on, such as one of a GGUF file.
    """
    packed = [name for name, weight in host_of(model).model.named_parameters() if not weight.is_floating_point()]
    if packed:
        raise ValueError(f"model holds weights that are packed ({packed[0]}), as GGUF files do; {NOT_TRAINABLE}")
    mm.free_memory(1e30, training_device())
    try:
        copy = model.clone(force_deepcopy=True, **_not_dynamic(model))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"model cannot be copied ({error}), as those of GGUF loaders cannot; {NOT_TRAINABLE}"
        ) from error
    _as_chosen(copy.model)
    if in_ram:
        copy.load_device = copy.offload_device
    copy.patch_model(copy.load_device)
    return copy


def _not_dynamic(model: Any) -> dict[str, bool]:
    """What makes core copy a MODEL of its dynamic VRAM as an ordinary one: only there is a LoRA in the weights, and
    only such weights stay where they are put. Versions without it know no other kind."""
    known = inspect.signature(model.clone).parameters
    return {"disable_dynamic": True} if "disable_dynamic" in known else {}


def _as_chosen(model: torch.nn.Module) -> None:
    """Casts weights to the types that core computes them from, such as the `weight_dtype` of Load Diffusion Model.

    With dynamic VRAM core leaves them as they are in the file, and casts them when it moves them to the device.
    """
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            chosen = getattr(module, f"{name}_comfy_model_dtype", None)
            if chosen is not None and weight.is_floating_point() and not hasattr(weight, "_qdata"):
                weight.data = weight.data.to(chosen)


def plain_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """Weights as ordinary float32 tensors, whatever mode they were made in."""
    return {name: tensor.detach().float().cpu().clone() for name, tensor in module.state_dict().items()}


def plain_lora(lora: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """A LORA_MODEL as ordinary float32 tensors on the CPU."""
    return None if lora is None else {name: value.detach().float().cpu().clone() for name, value in lora.items()}


def publish_run(folder: Path, run: str, encoders: int) -> str:
    """Copies a run's encoders and LoRA to where the loaders' lists find them; returns the name that they have there.

    It is the run's, and as `published_files` calls further encoders and the best ones. Where such a file is not of this
    run, or another program holds it open (Windows), all of them take the next name: run-2, then run-3.
    """
    output, own = Path(folder_paths.get_output_directory()), run_of(folder / LORA)
    places = {"encoders": output / ENCODERS, "loras": output / "loras"}
    names = [run, *(f"{run}-{number}" for number in range(2, MOST_NAMES + 1))]
    refusal: PermissionError | None = None
    for name in names:
        offered = published_files(folder, name, encoders)
        copies = {places[kind] / file: path for kind, files in offered.items() for file, path in files.items()}
        if any(path.exists() and (own is None or run_of(path) != own) for path in copies):
            continue
        for path in copies:
            remove_abandoned_of(path)
        try:
            write_together(copies)
        except PermissionError as error:
            refusal = error
            continue
        if name != run:
            log.warning("%s is taken by files of another run, or open elsewhere: the new files are %s", run, name)
        return name
    raise refusal or FileExistsError(
        f"run: {MOST_NAMES} names from {run} on are taken in {output / 'loras'} and {output / ENCODERS}; "
        f"the encoder and the LoRA lie in {folder}"
    )


def load_lora(path: Path) -> dict[str, Tensor]:
    """What core's LoRA nodes take."""
    return comfy.utils.load_torch_file(str(path), safe_load=True)
