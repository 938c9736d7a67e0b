"""The one place that reaches into ComfyUI: folders, VAE, model management, sampling and progress."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from PIL import Image
from torch import Tensor

from ..memory_encoder.budget import cache_bytes
from ..memory_encoder.evaluation.recall import WINDOW, windows
from ..memory_encoder.files import write_bytes
from ..memory_encoder.injection.guidance import guide
from ..memory_encoder.injection.hosts import Host, find_host
from ..memory_encoder.injection.hosts.comfy_models import codec
from ..memory_encoder.injection.inject import inject, is_injected
from ..memory_encoder.injection.selection import MemorySettings, attention_mode
from ..memory_encoder.memory.compressor import Codec, append_history
from ..memory_encoder.memory.video_memory import VideoMemory
from ..memory_encoder.training.run_files import LORA, encoder_name, run_of
from .managed import ManagedEncoder

if TYPE_CHECKING:
    from ..memory_encoder.training.dataset.clips import Progress

log = logging.getLogger("video_memory")
ENCODERS, MEMORIES, FILMS = "memory_encoders", "video_memories", "video_memory"
DATASETS = "video_memory_datasets"
MOST_NAMES = 100  # of one run's published files


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


def clips_folder(folder: str) -> Path:
    """A folder of clips: below ComfyUI's input folder, or an absolute path. Raises ValueError when it leaves input."""
    if os.path.isabs(folder):
        return Path(folder)
    inputs = Path(folder_paths.get_input_directory()).resolve()
    path = (inputs / folder).resolve()
    if not folder.strip() or inputs not in path.parents:
        raise ValueError(f"folder {folder!r} is not below ComfyUI's input folder; give its name, or an absolute path")
    return path


def host_of(model: Any) -> Host:
    """The host behind a MODEL socket; raises HostError when it cannot carry a memory."""
    return find_host(model.get_model_object("diffusion_model"))


def normalised_history(model: Any, latent: dict[str, Any], name: str) -> Tensor:
    """LATENT -> latents [B,C,T,H,W] in the model's normalised space; raises ValueError that names the input."""
    samples = latent["samples"]
    latent_format = model.get_model_object("latent_format")
    channels = latent_format.latent_channels
    if getattr(samples, "is_nested", False) or samples.ndim != 5 or samples.shape[1] != channels:
        shape = "a nested latent" if getattr(samples, "is_nested", False) else f"shape {tuple(samples.shape)}"
        raise ValueError(
            f"{name}: {shape} does not fit the model, which works on [batch, {channels}, frames, height, width]; "
            "encode the clip with the video VAE that belongs to the model"
        )
    if not torch.isfinite(samples).all():
        raise ValueError(f"{name}: the latent holds NaN or infinite values; make it again")
    return latent_format.process_in(samples)


def latents_of(model: Any, normalised: Tensor) -> Tensor:
    """Latents in VAE space for normalised ones."""
    return model.get_model_object("latent_format").process_out(normalised)


def codec_for(model: Any, vae: Any) -> Codec:
    """VAE and host as the compressor sees them; raises ValueError when the VAE is not the model's."""
    return codec(model, vae)


def compress(
    encoder: ManagedEncoder,
    codec: Codec,
    memory: VideoMemory,
    latents: Tensor,
    prompt: str = "",
    seed: int | None = None,
) -> VideoMemory:
    """Appends normalised latents to a memory with the encoder on its device; the result lies in CPU memory."""
    if len(encoder.parts) != len(memory.parts):
        raise ValueError(
            f"memory was made by {len(memory.parts)} encoders, memory_encoder holds {len(encoder.parts)}; "
            "continue it with as many"
        )
    # Several encoders look at the same pictures; the VAE that makes them may push an encoder off the device.
    codec = replace(codec, decode=made_once(codec.decode))
    with torch.no_grad():
        first, *others = (
            _compress_part(one, codec, part, latents, prompt, seed)
            for one, part in zip(encoder.parts, memory.parts, strict=True)
        )
    return replace(first, others=tuple(others))


def _compress_part(
    encoder: ManagedEncoder, codec: Codec, memory: VideoMemory, latents: Tensor, prompt: str, seed: int | None
) -> VideoMemory:
    if memory.encoder_id and memory.encoder_id != encoder.identity:
        log.warning("memory was begun with other encoder weights; old and new tokens may not speak the same language")
    return append_history(
        encoder.model, codec, memory, latents, prompt, seed, encoder.device, encoder.dtype, ready=encoder.load
    )


def made_once(decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A decoder that gives equal latents the pictures it made before; it holds one result."""
    last: list[tuple[Tensor, Tensor]] = []

    def run(latents: Tensor) -> Tensor:
        if not last or not torch.equal(last[0][0], latents):
            last[:] = [(latents.clone(), decode(latents))]
        return last[0][1]

    return run


def noise_like(latent: Tensor, seed: int) -> Tensor:
    """Noise from a generator of its own, in the way of core's RandomNoise; the global random state is not touched."""
    return comfy.sample.prepare_noise_inner(latent, torch.Generator().manual_seed(seed))


def sample(
    model: Any,
    noise: Tensor,
    latent: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    sampler: Any,
    sigmas: Tensor,
    seed: int,
    callback: Any = None,
    noise_mask: Tensor | None = None,
) -> Tensor:
    """One run of core's custom sampling; latents go in and come out in VAE space."""
    sigmas = sigmas.clone()  # core's uni_pc writes into them; the next section and the next run need them as they are
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, latent, noise_mask, callback, seed=seed
    )


def with_memory(
    model: Any, memory: VideoMemory | None, settings: MemorySettings, time_shift: float | None = None
) -> Any:
    """A clone of MODEL that sees `memory`, with history guidance when the settings ask for it."""
    patched = inject(model, memory, replace(settings, cache_on=cache_device(model, memory, settings)), time_shift)
    return guide(patched, settings.history_guidance if is_injected(patched) else 0.0, comfy.samplers.calc_cond_batch)


CACHE_SHARE = 0.2  # of the free VRAM that keys and values of a cached memory may take; not from the paper


def cache_device(model: Any, memory: VideoMemory | None, settings: MemorySettings) -> torch.device | None:
    """Where a cached memory's keys and values wait between steps: None beside the model, else system RAM when tight."""
    if memory is None or attention_mode(memory, settings) != "cached" or mm.is_device_cpu(model.load_device):
        return None
    free = mm.get_free_memory(model.load_device)
    host = host_of(model)
    needed = 2 * cache_bytes(len(host.slots()), memory.token_count, host.width)  # both prompts
    return None if needed < CACHE_SHARE * free else torch.device("cpu")


class FilmProgress:
    """One progress bar over all sections, with core's latent preview of the section being sampled."""

    def __init__(self, model: Any, sections: int, steps: int) -> None:
        self.previewer = latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))
        self.steps, self.total, self.done = steps, sections * steps, 0
        self.bar = comfy.utils.ProgressBar(self.total)

    def step(self, index: int, denoised: Tensor, _x: Tensor, _total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        preview = self.previewer.decode_latent_to_preview_image("JPEG", denoised) if self.previewer else None
        self.bar.update_absolute(min(self.done + index + 1, self.total), self.total, preview)

    def advance(self, steps: int) -> None:
        self.done += steps
        self.bar.update_absolute(min(self.done, self.total), self.total)


class CacheProgress:
    """Progress bar of a dataset cache, by clips and the part of the running one; stops when the user cancels."""

    STEPS = 100  # per clip

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, progress: Progress) -> None:
        mm.throw_exception_if_processing_interrupted()
        total = self.STEPS * progress.clips
        self.bar = self.bar or comfy.utils.ProgressBar(total)
        part = min(1.0, progress.seconds / progress.length) if progress.length else float(progress.done)
        self.bar.update_absolute(min(int(self.STEPS * (progress.clip + part)), total), total)

    def rows(self, done: int, total: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        self.bar = self.bar or comfy.utils.ProgressBar(total)
        self.bar.update_absolute(done, total)


def stop_if_interrupted() -> None:
    mm.throw_exception_if_processing_interrupted()


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


def empty_conditioning(model: Any) -> Any:
    """CONDITIONING of no text for models whose text encoder is not connected: zeros of the host's sizes."""
    host = host_of(model)
    pooled = None if host.pooled_width is None else torch.zeros(1, host.pooled_width)
    return [[torch.zeros(1, 1, host.text_width), {"pooled_output": pooled}]]


def retrieve(
    model: Any,
    memory: VideoMemory,
    latents: range,
    sampler: Any,
    sigmas: Tensor,
    seed: int,
    positive: Any,
    strength: float,
    progress: FilmProgress,
) -> Tensor:
    """Latents [1,C,T,H,W] of the history at `latents`, drawn from the memory alone, a few at a time."""
    host = host_of(model)
    count, parts = min(WINDOW, memory.latents), []
    for first, dropped in windows(latents, memory.latents):
        empty = torch.zeros(1, host.latent_channels, count, *memory.state.size)
        patched = with_memory(model, memory, MemorySettings(strength=strength), time_shift=-float(first))
        noise = noise_like(empty, seed + first)
        made = sample(patched, noise, empty, positive, positive, 1.0, sampler, sigmas, seed, progress.step)
        parts.append(made[:, :, dropped:])
        progress.advance(len(sigmas) - 1)
    return torch.cat(parts, dim=2)[:, :, : len(latents)].float()


def training_root() -> Path:
    return Path(folder_paths.get_output_directory()) / "video_memory_training"


def training_device() -> torch.device:
    return mm.get_torch_device()


def training_precision(choice: str) -> Any:
    """`auto` is bf16 where the device computes in it."""
    if choice != "auto":
        return choice
    return "bf16" if mm.should_use_bf16(training_device()) else "no"


NOT_TRAINABLE = "load a bf16, fp16 or fp8 file with core's Load Diffusion Model for training"


def model_for_training(model: Any) -> Any:
    """A deep copy of a MODEL, wholly on the device, whose tensors may have gradients; the original is left alone.

    Raises ValueError for a model that cannot be trained on, such as one of a GGUF file.
    """
    packed = [name for name, weight in host_of(model).model.named_parameters() if not weight.is_floating_point()]
    if packed:
        raise ValueError(f"model holds weights that are packed ({packed[0]}), as GGUF files do; {NOT_TRAINABLE}")
    try:
        copy = model.clone(force_deepcopy=True)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"model cannot be copied ({error}), as those of GGUF loaders cannot; {NOT_TRAINABLE}"
        ) from error
    mm.load_models_gpu([copy], force_full_load=True)
    return copy


def plain_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """Weights as ordinary float32 tensors, whatever mode they were made in."""
    return {name: tensor.detach().float().cpu().clone() for name, tensor in module.state_dict().items()}


def plain_lora(lora: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """A LORA_MODEL as ordinary float32 tensors on the CPU."""
    return None if lora is None else {name: value.detach().float().cpu().clone() for name, value in lora.items()}


def publish_run(folder: Path, run: str, encoders: int) -> str:
    """Copies a run's encoders and LoRA to where the loaders' lists find them; returns the name that they have there.

    It is the run's, and for further encoders run_2, run_3, ... Where such a file is not of this run, or another program
    holds it open (Windows), all of them take the next name: run-2, then run-3.
    """
    output, own = Path(folder_paths.get_output_directory()), run_of(folder / LORA)
    names = [run, *(f"{run}-{number}" for number in range(2, MOST_NAMES + 1))]
    refusal: PermissionError | None = None
    for name in names:
        files = {output / "loras" / f"{name}.safetensors": LORA}
        for number in range(1, encoders + 1):
            file = encoder_name(number)
            files[output / ENCODERS / file.replace("encoder", name)] = file
        if any(path.exists() and (own is None or run_of(path) != own) for path in files):
            continue
        try:
            for path, file in files.items():
                write_bytes(path, (folder / file).read_bytes())
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


class TrainingProgress:
    """Core's progress bar over the steps, with a picture now and then; stops the run when asked to."""

    def __init__(self, first: int, last: int) -> None:
        self.last = last
        self.bar = comfy.utils.ProgressBar(last)
        self.bar.update_absolute(first, last)

    def step(self, done: int) -> None:
        mm.throw_exception_if_processing_interrupted()
        self.bar.update_absolute(done, self.last)

    def show(self, done: int, picture: Any) -> None:
        """picture: [H,W,3] uint8, BGR."""
        image = Image.fromarray(picture[..., ::-1])
        self.bar.update_absolute(done, self.last, ("JPEG", image, None))
