"""Hosts, VAEs and text encoders from checkpoint files, through an installed ComfyUI.

The one file of the library that knows ComfyUI, for the command line and for `accelerate launch`; inside of ComfyUI the
models come through the nodes' sockets. Nothing of it is imported before `load_comfy`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...pictures.codec import Codec, codec_of
from . import Host, find_host

COMFYUI_PATH = "COMFYUI_PATH"
PYTORCH_ATTENTION = ("--use-pytorch-cross-attention",)  # fastest on the CPU too, and it has gradients everywhere
_HASHED_BYTES = 1 << 20
_HEAD = 64  # numbers of a head of attention in every CLIP
_END = 49407  # CLIP's token for the end of a text


class CheckpointError(ValueError):
    """A model file, or ComfyUI itself, that cannot be loaded; the message names it and says what to do."""


def load_comfy(path: str | None = None, arguments: Sequence[str] = ()) -> None:
    """Makes ComfyUI's modules importable and configures them, as starting ComfyUI would; no server, no custom nodes.

    path: a ComfyUI checkout; by default the environment variable COMFYUI_PATH, else whatever is importable.
    arguments: options of ComfyUI's own command line; `--cpu` is added where there is no accelerator. Does nothing when
    ComfyUI is loaded already. Raises CheckpointError when there is none.
    """
    if "comfy.cli_args" in sys.modules:
        return
    named = path or os.environ.get(COMFYUI_PATH)
    if named:
        root = Path(named).expanduser().resolve()
        if not (root / "comfy" / "sd.py").is_file():
            raise CheckpointError(f"{named} is not a ComfyUI checkout (no comfy/sd.py in it); give the right folder")
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    if importlib.util.find_spec("comfy") is None:
        raise CheckpointError(f"ComfyUI was not found; set {COMFYUI_PATH} to its folder, or give --comfy FOLDER")
    options = [*arguments, *([] if has_accelerator() or "--cpu" in arguments else ["--cpu"])]
    ours, sys.argv = sys.argv, [sys.argv[0], *options]
    parsing = _comfy("options")
    try:
        parsing.enable_args_parsing()
        _comfy("cli_args")
    finally:
        parsing.enable_args_parsing(False)
        sys.argv = ours


@contextlib.contextmanager
def training_mode() -> Iterator[None]:
    """Core chooses operations that have gradients within the context (its fused rotary embedding has none)."""
    management: Any = _comfy("model_management")
    before = management.in_training
    management.in_training = True
    try:
        yield
    finally:
        management.in_training = before


def load_host(path: str | Path) -> Any:
    """Core's ModelPatcher of a diffusion model file, its metadata obeyed. Raises CheckpointError or HostError."""
    name = _file(path, "host")
    try:
        patcher = _comfy("sd").load_diffusion_model(name)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"host {name} cannot be loaded: {_first_line(error)}") from error
    find_host(patcher.get_model_object("diffusion_model"))
    return patcher


def load_lora(patcher: Any, path: str | Path) -> Any:
    """A host with a LoRA in its weights, through core's LoRA loader. Raises CheckpointError for one that fits no layer,
    and for one of other sizes."""
    name = _file(path, "lora")
    try:
        lora = _comfy("utils").load_torch_file(name, safe_load=True)
    except (RuntimeError, SafetensorError, OSError) as error:
        raise CheckpointError(f"lora {name} cannot be loaded: {_first_line(error)}") from error
    patched, _ = _comfy("sd").load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    if not patched.patches:
        raise CheckpointError(f"lora {name} fits no layer of the host; use the one trained with the encoder")
    if unfit := _layers_of_other_sizes(patched):
        raise CheckpointError(
            f"lora {name} is of another model: {len(unfit)} of the {len(patched.patches)} layers that it names have "
            f"another size in this host, such as {unfit[0]}, and would stay as they are; use the one trained with the "
            "encoder"
        )
    load_on_device(patched)
    return patched


def _layers_of_other_sizes(patcher: Any) -> list[str]:
    """Weights that core would leave as they are, since the product of their LoRA's two matrices has another size: it
    says so in its log alone, once they are patched."""
    unfit = []
    for key, patches in patcher.patches.items():
        shape = patcher.get_model_object(key).shape
        for _, adapter, _, offset, _ in patches:
            if getattr(adapter, "name", "") != "lora" or adapter.weights[5] is not None:
                continue  # another kind of patch, or one that enlarges the layer
            up, down = (matrix.flatten(1) for matrix in adapter.weights[:2])
            places = math.prod(shape) if offset is None else math.prod(shape) // shape[offset[0]] * offset[2]
            if up.shape[1] != down.shape[0] or up.shape[0] * down.shape[1] != places:
                unfit.append(key)
                break
    return unfit


def blocks_with_lora(patcher: Any) -> tuple[int, int]:
    """How many of a host's blocks have a patched weight, and how many blocks there are."""
    of_model, of_patches = (
        {found.group() for key in keys if (found := re.match(r"diffusion_model\.\w*blocks\.\d+\.", key))}
        for keys in (patcher.model.state_dict(), patcher.patches)
    )
    return len(of_patches), len(of_model)


def load_on_device(patcher: Any) -> torch.device:
    """Puts a host wholly on the device where core computes, and names it."""
    _comfy("model_management").load_models_gpu([patcher], force_full_load=True)
    return patcher.load_device


def load_host_shape(path: str | Path) -> Any:
    """Core's model of a diffusion model file, without its weights (they lie on the meta device) and quickly.

    For what needs only sizes and the latent format: `.diffusion_model`, `.latent_format`. Files whose kind core cannot
    tell from shapes alone are loaded in full.
    """
    name = _file(path, "host")
    detection, utils = _comfy("model_detection"), _comfy("utils")
    try:
        with safe_open(name, framework="pt") as file:
            metadata = file.metadata()
            sizes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError):
        return load_host(name).model  # another format
    if any(key.endswith(("comfy_quant", "scaled_fp8")) for key in sizes):
        return load_host(name).model  # what these hold decides on the layers
    weights: dict[str, Tensor] = {key: torch.empty(size, device="meta") for key, size in sizes.items()}
    prefix = detection.unet_prefix_from_state_dict(weights)
    weights = utils.state_dict_prefix_replace(weights, {prefix: ""}, filter_keys=True) or weights
    try:
        config = detection.model_config_from_unet(weights, "", metadata=metadata)
    except (RuntimeError, NotImplementedError):
        return load_host(name).model  # core looked at a value
    if config is None:
        raise CheckpointError(f"host {name}: core does not know this model; load Wan 2.1 or 2.2, or HunyuanVideo")
    config.set_inference_dtype(torch.float16, None)
    model = config.get_model(weights, "", device=torch.device("meta"))
    find_host(model.diffusion_model)
    return model


def load_vae(path: str | Path) -> Any:
    """Core's VAE of a file. Raises CheckpointError."""
    name = _file(path, "vae")
    try:
        weights, metadata = _comfy("utils").load_torch_file(name, return_metadata=True)
        vae = _comfy("sd").VAE(sd=weights, metadata=metadata)
        vae.throw_exception_if_invalid()
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"vae {name} cannot be loaded: {_first_line(error)}") from error
    return vae


def text_type_of(host: Host) -> str:
    """Core's name of the kind of text encoder that a host was trained with."""
    if host.name == "wan":
        return "wan"
    return "hunyuan_video_15" if host.image_optional else "hunyuan_video"


def load_text_encoder(paths: Sequence[str], text_type: str) -> Any:
    """Core's CLIP of one or more files, or what `module:attribute` makes when it is called.

    text_type: core's name of the kind, such as wan or hunyuan_video. Raises CheckpointError.
    """
    plugin = _plugin(paths)
    if plugin is not None:
        return plugin()
    names = [_file(path, "text encoder") for path in paths]
    if text_type.startswith("hunyuan_video") and len(names) < 2:  # core would take it for another model's
        both = "qwen_2.5_vl and byt5" if text_type.endswith("15") else "llava_llama3 and clip_l"
        raise CheckpointError(f"text encoder {names[0]}: HunyuanVideo takes two, {both}; give both files")
    sd = _comfy("sd")
    kind = getattr(sd.CLIPType, text_type.upper(), None)
    if kind is None:
        known = ", ".join(kind.name.lower() for kind in sd.CLIPType)
        raise CheckpointError(f"text encoder type {text_type!r} is unknown; choose one of {known}")
    try:
        return sd.load_clip(names, clip_type=kind)
    except (RuntimeError, SafetensorError, AttributeError) as error:
        raise CheckpointError(f"text encoder {', '.join(names)} cannot be loaded: {_first_line(error)}") from error


def load_clip_vision(path: str | Path) -> Any:
    """Core's CLIP_VISION of a file. Raises CheckpointError."""
    name = _file(path, "CLIP vision")
    try:
        found = _comfy("clip_vision").load(name)
    except (RuntimeError, SafetensorError, LookupError) as error:
        raise CheckpointError(f"CLIP vision {name} cannot be loaded: {_first_line(error)}") from error
    if found is None:
        raise CheckpointError(f"CLIP vision {name}: core does not know this model; give one for Load CLIP Vision")
    return found


@dataclass(frozen=True)
class ClipTowers:
    """Core's CLIP in its parts. vision, text: core's modules; tokens: of a text, with its beginning and its end.

    load: puts both where core computes, and names it.
    """

    vision: Any
    text: Any
    tokens: Callable[[str], list[int]]
    load: Callable[[], torch.device]


def clip_towers(weights: Mapping[str, Tensor], vision: str, text: str) -> ClipTowers:
    """Core's CLIP of weights under the names of OpenAI's own files behind two prefixes, its sizes read from shapes.

    Raises KeyError for a weight that is missing, RuntimeError for others that are missing or too many.
    """
    seeing = _comfy("clip_vision").convert_to_transformers(_below(weights, vision), vision)
    reading = _comfy("utils").clip_text_transformers_convert(_below(weights, text), text, "")
    model, management, operations = _comfy("clip_model"), _comfy("model_management"), _comfy("ops").manual_cast
    device = management.text_encoder_device()
    settings = management.text_encoder_dtype(device), management.text_encoder_offload_device(), operations
    patches = seeing["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    grid = round((len(seeing["vision_model.embeddings.position_embedding.weight"]) - 1) ** 0.5)
    both = torch.nn.ModuleDict({
        "vision": model.CLIPVisionModelProjection(
            _tower(seeing, "vision_model.") | {
                "model_type": "clip_vision_model", "num_channels": 3, "patch_size": patches,
                "image_size": grid * patches, "projection_dim": len(seeing["visual_projection.weight"]),
            },
            *settings,
        ),
        "text": model.CLIPTextModel(
            _tower(reading, "text_model.") | {
                "max_position_embeddings": len(reading["text_model.embeddings.position_embedding.weight"]),
                "eos_token_id": _END,
            },
            *settings,
        ),
    })  # fmt: skip
    for part, state in ((both["vision"], seeing), (both["text"], reading)):
        part.load_state_dict(state)
    both.eval().requires_grad_(False)
    patcher = _comfy("model_patcher").CoreModelPatcher(both, load_device=device, offload_device=settings[1])

    def load() -> torch.device:
        management.load_model_gpu(patcher)
        return device

    tokenizer = _comfy("sd1_clip").SDTokenizer().tokenizer
    return ClipTowers(both["vision"], both["text"], lambda said: tokenizer(said)["input_ids"], load)


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _tower(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Sizes of a CLIP transformer in core's names."""
    first = weights[f"{prefix}encoder.layers.0.mlp.fc1.weight"]
    layers = {name.split(".")[3] for name in weights if name.startswith(f"{prefix}encoder.layers.")}
    return {
        "num_hidden_layers": len(layers), "hidden_size": first.shape[1], "intermediate_size": first.shape[0],
        "num_attention_heads": first.shape[1] // _HEAD, "hidden_act": "quick_gelu",
    }  # fmt: skip


def text_encoder_identity(paths: Sequence[str], text_type: str) -> str:
    """A hash that changes with the files, without reading them whole: sizes, beginnings and ends; plug-ins by name."""
    if _plugin(paths) is not None:
        return paths[0]
    digest = hashlib.sha256(text_type.encode())
    for path in paths:
        with open(_file(path, "text encoder"), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for place in (0, max(0, size - _HASHED_BYTES)):
                file.seek(place)
                digest.update(size.to_bytes(8, "big") + file.read(_HASHED_BYTES))
    return digest.hexdigest()[:32]


def sampling_shift(patcher: Any) -> float:
    """The shift of the timesteps that a ModelPatcher samples with: core's own, or that of a ModelSampling node."""
    return float(getattr(patcher.get_model_object("model_sampling"), "shift", 1.0))


def computes_in_bf16(device: torch.device) -> bool:
    """Whether core computes in bf16 on a device."""
    return bool(_comfy("model_management").should_use_bf16(device))


def latent_format_named(name: str) -> Any:
    """Core's latent format of a class name, such as Wan21."""
    return getattr(_comfy("latent_formats"), name)()


def host_of_patcher(patcher: Any) -> Host:
    """The host of a ModelPatcher, with what patches its first projection. Raises HostError."""
    return find_host(patcher.get_model_object("diffusion_model"), partial(_patched_weight, patcher))


def _patched_weight(patcher: Any, name: str) -> Tensor | None:
    """A weight below the diffusion model as the patcher's patches make it, computed where it waits; None where it has
    none. With dynamic VRAM core never lays the result into the layer; without, only while this patcher is loaded."""
    key = f"diffusion_model.{name}"
    patches = getattr(patcher, "patches", {}).get(key)
    wrappers = getattr(patcher, "weight_wrapper_patches", {}).get(key, ())
    loaded = getattr(getattr(patcher, "model", None), "current_weight_patches_uuid", None)
    of_another = key in getattr(patcher, "backup", ()) and loaded not in (None, patcher.patches_uuid)
    if not (patches or wrappers or of_another):
        return None
    (weight, convert), *patches = patcher.get_key_patches(key)[key]  # as it was before any patch
    weight = weight.detach()
    if patches:
        utils, patching = _comfy("utils"), _comfy("model_patcher")
        seed = getattr(utils, "string_to_seed", None) or patching.string_to_seed
        whole = convert(weight.to(torch.float32, copy=True), inplace=True)
        made = _comfy("lora").calculate_weight(patches, whole, key)
        weight = _comfy("float").stochastic_rounding(made, weight.dtype, seed=seed(key))  # as core rounds it
    for wrapper in wrappers:
        weight = wrapper(weight)
    return weight


def codec(model: Any, vae: Any) -> Codec:
    """VAE and host as the compressor sees them; model is a ModelPatcher, or what `load_host_shape` gives.

    Raises ValueError when the VAE is not the model's, HostError when the model cannot carry a memory.
    """
    if hasattr(model, "get_model_object"):
        host, latent_format = host_of_patcher(model), model.get_model_object("latent_format")
    else:
        host, latent_format = find_host(model.diffusion_model), model.latent_format
    return codec_of(vae, latent_format, host.embed)


def compile_parts(patcher: Any, names: Sequence[str], **settings: Any) -> None:
    """Core's torch.compile helper for parts of a ModelPatcher's model, in place of whatever it compiled before."""
    importlib.import_module("comfy_api.torch_helpers").set_torch_compile_wrapper(patcher, keys=list(names), **settings)


def _plugin(paths: Sequence[str]) -> Any:
    """The attribute that `module:attribute` names, or None when `paths` are files."""
    if len(paths) != 1 or ":" not in paths[0] or Path(paths[0]).exists():
        return None
    module_name, _, attribute = paths[0].partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"text encoder {paths[0]} is neither a file nor module:attribute ({error})") from error


def _comfy(name: str) -> ModuleType:
    return importlib.import_module(f"comfy.{name}")


def _file(path: str | Path, what: str) -> str:
    if not Path(path).is_file():
        raise CheckpointError(f"{what} {path} does not exist; give the path of its file")
    return str(path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def has_accelerator() -> bool:
    found = getattr(torch, "accelerator", None)  # new in torch 2.6
    if found is not None:
        return bool(found.is_available())
    return torch.cuda.is_available() or torch.backends.mps.is_available()
