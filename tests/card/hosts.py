"""Core's models at full size on the fake card: a few seconds each, and no bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from memory_encoder.injection.hosts import Host, find_host
from memory_encoder.phi.config import EncoderConfig

CARD = torch.device("cuda", 0)
LATENTS = 21  # 81 frames
HUNYUAN = {
    "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 20,
    "depth_single_blocks": 40, "axes_dim": [16, 56, 56], "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True,
    "guidance_embed": True, "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None,
    "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_15 = HUNYUAN | {
    "vec_in_dim": None, "context_in_dim": 3584, "hidden_size": 2048, "num_heads": 16, "depth": 54,
    "depth_single_blocks": 0, "patch_size": [1, 1, 1], "guidance_embed": False, "byt5": True,
    "use_cond_type_embedding": True, "vision_in_dim": 1152,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """What a checkpoint is: core's class by `kind`, its channels, and the latent's height and width at 832x480."""

    kind: str
    channels: tuple[int, int]  # of its input, of the latent
    grid: tuple[int, int]
    sizes: dict[str, Any]
    image: bool = False  # the first frame is given as an image
    clip_vision: bool = False


SIZES = {
    "wan_1.3b": Size("wan", (16, 16), (60, 104), {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}),
    "wan_5b": Size("wan", (48, 48), (30, 52), {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30}),
    "wan_14b": Size("wan", (16, 16), (60, 104), {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}),
    "wan21_14b_i2v": Size(
        "wan", (36, 16), (60, 104),
        {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "model_type": "i2v"},
        image=True, clip_vision=True,
    ),
    "wan22_14b_i2v": Size(
        "wan", (36, 16), (60, 104), {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}, image=True
    ),
    "hunyuan": Size("hunyuan", (16, 16), (60, 104), HUNYUAN),
    "hunyuan15": Size("hunyuan", (65, 32), (30, 52), HUNYUAN_15),
    "hunyuan15_i2v": Size("hunyuan", (65, 32), (30, 52), HUNYUAN_15, image=True, clip_vision=True),
}  # fmt: skip


@dataclass
class FullModel:
    """A ModelPatcher whose model lies on the card, and what a step of it takes."""

    name: str
    size: Size
    patcher: Any
    modules: Any = field(repr=False)  # `comfy.module`

    @property
    def diffusion_model(self) -> Any:
        return self.patcher.model.diffusion_model

    @property
    def host(self) -> Host:
        return find_host(self.diffusion_model)

    @property
    def latent(self) -> tuple[int, int, int, int]:
        return (self.size.channels[1], LATENTS, *self.size.grid)

    @property
    def words(self) -> int:
        return 512 if self.size.kind == "wan" else 256  # tokens of the text

    def config(self, **changes: Any) -> EncoderConfig:
        """That of an encoder at 4x4x2 for this model."""
        host = self.host
        values = {"padding": "ceil", "patch": tuple(host.patch), "rate": "4x4x2"} | changes
        return EncoderConfig(host.name, host.width, host.latent_channels, **values)

    def conditioning(self) -> list[list[Any]]:
        """Core's CONDITIONING as its text nodes give it: on the CPU, float32."""
        extra: dict[str, Any] = {"pooled_output": torch.zeros(1, 768)} if self.size.kind == "hunyuan" else {}
        if self.size.image:
            extra["concat_latent_image"] = torch.zeros(1, *self.latent)
            extra["concat_mask"] = torch.ones(1, 1, *self.latent[1:])
        if self.size.clip_vision:
            output = self.modules("comfy.clip_vision").Output()
            output.penultimate_hidden_states = torch.zeros(1, 257, 1280)
            output.last_hidden_state = torch.zeros(1, 729, 1152)
            extra["clip_vision_output"] = output
        return [[torch.zeros(1, self.words, self.host.text_width), extra]]

    def sample(self, patched: Any, cfg: float = 5.0, batch: int = 1, steps: Steps | None = None) -> Tensor:
        """A run of core's sampling as the sampler node starts it, from noise in RAM to a latent in RAM."""
        noise = torch.zeros(batch, *self.latent)
        sampling, steps = self.modules("comfy.sample"), steps or Steps()
        positive, negative = self.conditioning(), self.conditioning()
        with torch.no_grad():  # fake tensors have no inference mode, in which ComfyUI runs nodes
            return sampling.sample_custom(
                patched, noise, cfg, steps, torch.zeros(2), positive, negative, torch.zeros_like(noise), seed=0
            )


class Steps:
    """A sampler that asks the model and looks at no value: fake tensors have none. after: called after each step."""

    def __init__(self, count: int = 1, after: Callable[[], None] = lambda: None) -> None:
        self.count, self.after = count, after

    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        for _step in range(self.count):
            noise = model_wrap(noise, noise.new_ones(noise.shape[0]), **extra_args)
            assert noise.device == CARD
            self.after()
        return noise


DEPTHS = ("num_layers", "depth", "depth_single_blocks")


def depths(name: str) -> dict[str, int]:
    """How many blocks of each kind a model of SIZES has."""
    return {key: SIZES[name].sizes[key] for key in DEPTHS if SIZES[name].sizes.get(key)}


def build(comfy: Any, name: str, dtype: torch.dtype, layers: int | Sequence[int] | None = None) -> FullModel:
    """A model of SIZES, made as core's loader makes it from the keys of a checkpoint; call it within the card.

    layers: fewer blocks than it has, of all kinds or of each, for what takes time by block and is the same in each.
    """
    size = SIZES[name]
    sizes = dict(size.sizes)
    if layers is not None:
        whole = depths(name)
        sizes |= zip(whole, [layers] * len(whole) if isinstance(layers, int) else layers, strict=True)
    ops = comfy.module("comfy.ops").disable_weight_init
    if size.kind == "wan":
        made = comfy.module("comfy.ldm.wan.model").WanModel
        sizes = {"text_dim": 4096, "in_dim": size.channels[0], "out_dim": size.channels[1]} | sizes
    else:
        made = comfy.module("comfy.ldm.hunyuan_video.model").HunyuanVideo
        sizes = sizes | {"in_channels": size.channels[0], "out_channels": size.channels[1]}
    weights = made(**sizes, device="meta", operations=ops).state_dict()
    detection, management = comfy.module("comfy.model_detection"), comfy.module("comfy.model_management")
    config = detection.model_config_from_unet(weights, "")
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, CARD, config.supported_inference_dtypes))
    model = config.get_model(weights, "", device=CARD)
    patcher = comfy.module("comfy.model_patcher").ModelPatcher(model, CARD, torch.device("cpu"))
    return FullModel(name, size, patcher, comfy.module)


def fp8_host(model: Any) -> None:
    """Makes a host what a plain fp8 file is: the matrices of the blocks are fp8, all else bf16."""
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float8_e4m3fn and not (parameter.ndim == 2 and "blocks." in name):
            parent, _, leaf = name.rpartition(".")
            new = torch.nn.Parameter(parameter.detach().to(torch.bfloat16), False)
            model.get_submodule(parent)._parameters[leaf] = new
