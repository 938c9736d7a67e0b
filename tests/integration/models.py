"""Tiny models of ComfyUI's own classes, found by core's own detection from their keys, with weights from a Generator.

Random weights are scaled so that every modulation, gate and head counts: a misplaced token shows in the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memory_encoder.files import save_tensors
from memory_encoder.injection.hosts import Host, find_host
from memory_encoder.memory.growing import Growing
from memory_encoder.memory.video_memory import VideoMemory
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder, StreamState

TEXT = 64  # width of the text conditioning
TOKENS = 6  # its length
WAN_DIM, WAN_HEADS = 128, 4
HUNYUAN_DIM = 256  # core fixes 128 per head: two heads


@dataclass(frozen=True)
class TinyModel:
    """A loaded ModelPatcher, and what sampling it takes. `size` is (channels, frames, height, width) of its latent."""

    comfy: Any
    patcher: Any
    size: tuple[int, int, int, int]
    pooled: int | None = None  # width of the pooled text
    image: bool = False  # the first frame is given as an image, in channels beside the latent's
    clip_vision: int = 0  # and as CLIP vision tokens of this width
    glyphs: bool = False  # a second text stream for text in pictures
    first_frame: bool = False  # the first frame is kept by a mask, which makes timesteps per frame
    text_mask: bool = False  # such a model takes one row at a time, which is core's own limit

    @property
    def diffusion_model(self) -> Any:
        return self.patcher.model.diffusion_model

    @property
    def host(self) -> Host:
        return find_host(self.diffusion_model)

    @property
    def video_tokens(self) -> int:
        return self.size[1] * (self.size[2] // self.host.patch[1]) * (self.size[3] // self.host.patch[2])

    def noise(self, batch: int = 1) -> Tensor:
        return torch.randn(batch, *self.size, generator=torch.Generator().manual_seed(7))

    def conditioning(self, seed: int) -> list[list[Any]]:
        """Core's CONDITIONING, which differs for every seed."""
        g = torch.Generator().manual_seed(seed)
        extra: dict[str, Any] = {"pooled_output": torch.randn(1, self.pooled, generator=g) if self.pooled else None}
        if self.image:
            start = torch.randn(1, *self.size, generator=g)
            keep = torch.ones(1, 1, *self.size[1:])
            keep[:, :, 0] = 0
            extra |= {"concat_latent_image": start, "concat_mask": keep}
        if self.clip_vision:
            output = self.comfy.module("comfy.clip_vision").Output()
            seen = torch.randn(1, 5, self.clip_vision, generator=g)
            output.penultimate_hidden_states = output.last_hidden_state = seen  # Wan reads one, HunyuanVideo the other
            extra["clip_vision_output"] = output
        if self.glyphs:
            extra["conditioning_byt5small"] = torch.randn(1, 3, 1472, generator=g)
        length = TOKENS
        if self.text_mask:
            length += seed  # core's Hunyuan takes a mask for one row only: other lengths make it run row by row
            extra["attention_mask"] = torch.tensor([[1] * (length - 2) + [0] * 2])
        return [[torch.randn(1, length, TEXT, generator=g), extra]]

    def sample(
        self, patcher: Any = None, batch: int = 1, cfg: float = 4.0, steps: int = 2, prompts: tuple[int, int] = (1, 2)
    ) -> Tensor:
        """Latents from `comfy.sample.sample_custom`; `patcher` defaults to the model without memory."""
        sampling = self.comfy.module("comfy.sample")
        sampler = self.comfy.module("comfy.samplers").sampler_object("euler")
        latent, mask = torch.zeros(batch, *self.size), None
        if self.first_frame:
            latent = torch.randn(batch, *self.size, generator=torch.Generator().manual_seed(8))
            mask = torch.ones(batch, 1, *self.size[1:])
            mask[:, :, 0] = 0
        with torch.inference_mode():
            return sampling.sample_custom(
                self.patcher if patcher is None else patcher, self.noise(batch), cfg, sampler,
                torch.linspace(1, 0, steps + 1), self.conditioning(prompts[0]), self.conditioning(prompts[1]), latent,
                noise_mask=mask, disable_pbar=True, seed=3,
            )  # fmt: skip


def random_memory(host: Host, tokens: int, batch: int = 1, latents: int = 9, seed: int = 5) -> VideoMemory:
    """A memory of exactly `tokens` tokens (the last third in the tail) at fractional places in a film of `latents`.

    Its pictures are of the size of the host's tiny models.
    """
    grid = (4, 6) if host.name == "wan" else (4, 4)
    g = torch.Generator().manual_seed(seed)
    config = EncoderConfig(host.name, host.width, host.latent_channels, channels=(8,), variant="without_lr")
    values = torch.randn(batch, tokens, host.width, generator=g)
    places = torch.rand(tokens, 3, generator=g) * torch.tensor([latents, *grid])
    size = (grid[0] * host.patch[1], grid[1] * host.patch[2])
    done = tokens - tokens // 3
    return VideoMemory(
        config=config,
        tokens=Growing.of(values[:, :done], 1),
        coordinates=Growing.of(places[:done], 0),
        tail=values[:, done:],
        tail_coordinates=places[done:],
        recent=torch.randn(batch, host.latent_channels, 3, *size, generator=g),
        state=StreamState(latents=latents, size=size),
    )


def trained_encoder(host: Any, path: Path, picture_width: int = 8) -> EncoderConfig:
    """Writes an encoder as those of FramePack-F1 (on HunyuanVideo) and Helios (on Wan) are, with random weights."""
    values: dict[str, Any] = {
        "host": host.name, "width": host.width, "latent_channels": host.latent_channels, "patch": host.patch,
        "rate": "1@1x1x1+2@2x2x2+16@4x4x4", "variant": "recent", "positions": "pooled", "anchor": True, "fill": "zeros",
        "section_latents": 9,
    }  # fmt: skip
    if host.name == "hunyuan":
        values |= {"history_timestep": "same", "section_start": 20, "picture_width": picture_width, "start": "picture"}
    else:
        values |= {"history_timestep": "zero", "skips_text": True, "start": "zeros", "start_noise": (0.111, 0.135)}
        values |= {"clips": "section"}
    config = EncoderConfig(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(random_weights(MemoryEncoder(config, device=torch.device("meta"))), path, config.to_metadata())
    return config


class Recorder:
    """A DIFFUSION_MODEL wrapper that keeps what reaches the model, outside of our own wrapper."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.timesteps: list[Tensor] = []

    def __call__(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.shapes.append(tuple(x.shape))
        self.timesteps.append(timestep.clone())
        return executor(x, timestep, *args, **kwargs)

    @property
    def batches(self) -> list[int]:
        return [shape[0] for shape in self.shapes]

    def on(self, patcher: Any) -> Any:
        patcher = patcher.clone()
        patcher.add_wrapper_with_key("diffusion_model", "recorder", self)
        return patcher


def random_weights(module: nn.Module) -> dict[str, Tensor]:
    """A state dict for `module` (which may lie on the meta device) that keeps activations near one."""
    g = torch.Generator().manual_seed(0)
    weights = {}
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=g)
        if name.endswith(".modulation"):
            weights[name] = 0.5 * noise
        elif value.ndim > 1:
            last = name in ("head.head.weight", "final_layer.linear.weight")  # CFG multiplies what they give by seven
            weights[name] = noise * value[0].numel() ** -0.5 * (0.1 if last else 1)
        else:
            weights[name] = 0.1 * noise + float("norm" in name and name.endswith("weight"))
    return weights


def write_i2v(comfy: Any, path: Path) -> None:
    """A file of a small Wan 2.2 image-to-video model, which core's loader reads."""
    module, override = wan_skeleton(comfy, 36, 16, layers=2), {"text_dim": TEXT, "num_heads": WAN_HEADS}
    save_tensors(random_weights(module), path, {"config": json.dumps({"transformer": override})})


def load(
    comfy: Any, module: nn.Module, metadata: dict[str, str] | None = None, dtype: torch.dtype | None = None
) -> Any:
    """The ModelPatcher that core's loader makes of the module's keys; `dtype` is the loader's weight_dtype."""
    load_weights, options = comfy.module("comfy.sd").load_diffusion_model_state_dict, {"dtype": dtype} if dtype else {}
    with torch.inference_mode(False):
        patcher = load_weights(random_weights(module), options, metadata)
    assert patcher is not None, "core did not recognise the tiny model"
    return patcher


def wan_skeleton(comfy: Any, in_dim: int, out_dim: int, model_type: str = "t2v", layers: int = 3) -> nn.Module:
    """Core's class on the meta device."""
    return comfy.module("comfy.ldm.wan.model").WanModel(
        model_type=model_type, in_dim=in_dim, out_dim=out_dim, dim=WAN_DIM, ffn_dim=2 * WAN_DIM, text_dim=TEXT,
        num_heads=WAN_HEADS, num_layers=layers, device="meta", operations=comfy.module("comfy.ops").disable_weight_init,
    )  # fmt: skip


def wan_patcher(
    comfy: Any, in_dim: int, out_dim: int, model_type: str = "t2v", dtype: torch.dtype | None = None, **override: Any
) -> Any:
    """`override` goes into the checkpoint's metadata, which core trusts more than the keys."""
    skeleton = wan_skeleton(comfy, in_dim, out_dim, model_type)
    override = {"text_dim": TEXT, "num_heads": WAN_HEADS} | override
    return load(comfy, skeleton, {"config": json.dumps({"transformer": override})}, dtype)


def wan_t2v(comfy: Any) -> TinyModel:
    return TinyModel(comfy, wan_patcher(comfy, 16, 16), (16, 3, 8, 12))


def wan21_i2v(comfy: Any) -> TinyModel:
    """Wan 2.1: mask and start image in extra channels, CLIP vision tokens in the cross-attention."""
    return TinyModel(comfy, wan_patcher(comfy, 36, 16, "i2v"), (16, 3, 8, 12), image=True, clip_vision=1280)


def wan22_i2v(comfy: Any) -> TinyModel:
    """Wan 2.2-14B: the same extra channels without CLIP vision."""
    return TinyModel(comfy, wan_patcher(comfy, 36, 16), (16, 3, 8, 12), image=True)


def wan_5b(comfy: Any) -> TinyModel:
    """Wan 2.2-5B: 48 channels; the first frame is kept by a mask, so that each frame has its own timestep."""
    return TinyModel(comfy, wan_patcher(comfy, 48, 48), (48, 3, 8, 12), first_frame=True)


def hunyuan_patcher(
    comfy: Any, guidance: bool = True, meanflow: bool = False, dtype: torch.dtype | None = None, **kind: Any
) -> Any:
    """`kind` replaces sizes and parts."""
    sizes = dict(
        in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=TEXT, hidden_size=HUNYUAN_DIM,
        mlp_ratio=4.0, num_heads=HUNYUAN_DIM // 128, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=256,
        patch_size=[1, 2, 2], qkv_bias=True, guidance_embed=guidance, byt5=False, meanflow=meanflow,
        use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False, device="meta",
        operations=comfy.module("comfy.ops").disable_weight_init,
    )  # fmt: skip
    return load(comfy, comfy.module("comfy.ldm.hunyuan_video.model").HunyuanVideo(**sizes | kind), dtype=dtype)


def hunyuan(comfy: Any) -> TinyModel:
    return TinyModel(comfy, hunyuan_patcher(comfy), (16, 2, 8, 8), pooled=768)


def hunyuan_plain(comfy: Any) -> TinyModel:
    """Without guidance embedding, with a mask on the text."""
    return TinyModel(comfy, hunyuan_patcher(comfy, guidance=False), (16, 2, 8, 8), pooled=768, text_mask=True)


def hunyuan_i2v(comfy: Any) -> TinyModel:
    """By concatenation: start image and mask in extra channels."""
    return TinyModel(comfy, hunyuan_patcher(comfy, in_channels=33), (16, 2, 8, 8), pooled=768, image=True)


def skyreels_i2v(comfy: Any) -> TinyModel:
    """HunyuanVideo with a start image in extra channels, without a mask."""
    return TinyModel(comfy, hunyuan_patcher(comfy, in_channels=32), (16, 2, 8, 8), pooled=768, image=True)


def hunyuan15_patcher(comfy: Any, in_channels: int = 65) -> Any:
    """HunyuanVideo 1.5: double blocks alone, tokens of one latent, further text streams, no pooled text."""
    return hunyuan_patcher(
        comfy, guidance=False, in_channels=in_channels, out_channels=32, patch_size=[1, 1, 1], vec_in_dim=None,
        depth_single_blocks=0, byt5=True, use_cond_type_embedding=True, vision_in_dim=1152, meanflow_sum=True,
    )  # fmt: skip


def hunyuan15_t2v(comfy: Any) -> TinyModel:
    """The layers of the image-to-video checkpoint, with nothing in the channels for the image."""
    return TinyModel(comfy, hunyuan15_patcher(comfy), (32, 3, 4, 4))


def hunyuan15_i2v(comfy: Any) -> TinyModel:
    return TinyModel(comfy, hunyuan15_patcher(comfy), (32, 3, 4, 4), image=True, clip_vision=1152, glyphs=True)


BUILDERS: dict[str, Callable[[Any], TinyModel]] = {
    "wan_t2v": wan_t2v,
    "wan21_i2v": wan21_i2v,
    "wan22_i2v": wan22_i2v,
    "wan_5b": wan_5b,
    "hunyuan": hunyuan,
    "hunyuan_plain": hunyuan_plain,
    "hunyuan_i2v": hunyuan_i2v,
    "skyreels_i2v": skyreels_i2v,
    "hunyuan15_t2v": hunyuan15_t2v,
    "hunyuan15_i2v": hunyuan15_i2v,
}


class TinyModels(dict[str, TinyModel]):
    """The tiny models by name, each built when first asked for; tests leave them as they are."""

    def __init__(self, comfy: Any) -> None:
        super().__init__()
        self.comfy = comfy

    def __missing__(self, name: str) -> TinyModel:
        self[name] = BUILDERS[name](self.comfy)
        return self[name]
