"""A training run whose processes split the weights, or the same run in one process; a script for the tests.

python -m tests.integration.sharded FOLDER STEPS [split] [hunyuan] [muon]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory_encoder.injection.hosts import find_host
from memory_encoder.injection.hosts.comfy_models import load_comfy
from memory_encoder.injection.hosts.encoder_file import with_paths
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.encoder import MemoryEncoder
from memory_encoder.training.distributed.shards import own_shard
from memory_encoder.training.listener import RECALL_PICTURE, PictureListener
from memory_encoder.training.lora import add_lora
from memory_encoder.training.module import Batch, TrainingModule
from memory_encoder.training.options import TrainOptions
from memory_encoder.training.reconstruction import reconstruct
from memory_encoder.training.run_files import checkpoints_in
from memory_encoder.training.trainer import Trainer
from tests.integration.training import OneClip, tiny_module, tiny_options

KEPT_AT, KEPT = 6, "kept"
TOLD_AT = 5  # held-out losses and pictures, one directly after the other


def split_on_cpu() -> None:
    """Accelerate takes its FSDP configuration, which its launcher has laid into the environment, to heart on cards
    only; told that these processes have some, it does the same with processes on CPUs."""
    from accelerate import DistributedType, PartialState

    assert (os.environ["ACCELERATE_USE_FSDP"], os.environ["FSDP_VERSION"]) == ("true", "2")
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


class Keeper(PictureListener):
    """Keeps the checkpoint of step KEPT_AT, from which other runs go on, and the picture drawn just before."""

    def step(self, step: int, loss: float) -> None:
        super().step(step, loss)
        if step == KEPT_AT:
            kept = self.folder.with_name(f"{self.folder.name}_{KEPT}")
            kept.mkdir()
            for path in (checkpoints_in(self.folder)[0], self.folder / RECALL_PICTURE):
                shutil.copy(path, kept)


def decode(latents: Tensor) -> Tensor:
    """Stands for a VAE: the first channels as colours."""
    return torch.sigmoid(latents[:, :3].movedim(1, -1))


def hunyuan_module(options: TrainOptions, gradient_checkpointing: bool) -> TrainingModule:
    """Core's HunyuanVideo of two blocks of each kind, with weights that make every residual count."""
    import comfy.ops
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    host: Any = HunyuanVideo(
        in_channels=16, out_channels=16, vec_in_dim=32, context_in_dim=64, hidden_size=256, mlp_ratio=2.0, num_heads=2,
        depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=256, patch_size=[1, 2, 2], qkv_bias=True,
        guidance_embed=True, byt5=False, meanflow=False, use_cond_type_embedding=False, vision_in_dim=None,
        meanflow_sum=False, operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in host.named_parameters():
            size = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
            if "norm" in name:
                parameter.fill_(1)
    add_lora(host, options.rank, options.seed)
    encoder = MemoryEncoder(EncoderConfig("hunyuan", 256, 16, rate="2x2x2", channels=(32, 32, 32, 64)))
    encoder.reset_parameters(torch.Generator().manual_seed(0))
    return TrainingModule(encoder, host, gradient_checkpointing=gradient_checkpointing)


class HunyuanClips(OneClip):
    """Clips with what HunyuanVideo asks for beside them."""

    def rows(self, step: int, first: int, last: int, kind: str, target: Any) -> Batch:
        batch, count = super().rows(step, first, last, kind, target), last - first
        extras = {"y": torch.full((count, 32), 0.1), "guidance": torch.full((count,), 6.0)}
        return replace(batch, conditioning={**batch.conditioning, **extras})


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    split, hunyuan, muon = (word in sys.argv[3:] for word in ("split", "hunyuan", "muon"))
    sys.argv = sys.argv[:1]
    load_comfy(arguments=["--cpu"])
    import comfy.model_management

    comfy.model_management.in_training = True
    if split:
        split_on_cpu()
    options = tiny_options(
        steps=steps, stage="continuation", history_dropout=0.3, retrieval_share=0.3, warmup=1,
        checkpoint_every=KEPT_AT, heldout_every=TOLD_AT, picture_every=TOLD_AT, reconstruction=2,
        optimizer="muon" if muon else "adamw",
    )  # fmt: skip
    # Both ways into the host beside the plain one, and blocks with and without gradient checkpointing.
    module = hunyuan_module(options, False) if hunyuan else tiny_module(options, gradient_checkpointing=True)
    paths: Any = (False, "cached") if hunyuan else (True, "joint")
    module.encoder = with_paths(module.encoder, find_host(module.diffusion_model), *paths, seed=1)
    clips = HunyuanClips(8) if hunyuan else OneClip(8)
    trainer = Trainer(module, clips, options, folder, Keeper(folder, decode))
    trainer.beginning = partial(reconstruct, source=clips, options=options)
    if trainer.accelerator.is_main_process:
        host = [p for name, p in module.named_parameters() if name.startswith("diffusion_model.")]
        held = sum(own_shard(p).numel() for p in host) / sum(p.numel() for p in host)
        sys.stdout.write(json.dumps({"processes": trainer.accelerator.num_processes, "held": held}) + "\n")
    trainer.run(last_picture=True)


if __name__ == "__main__":
    main()
