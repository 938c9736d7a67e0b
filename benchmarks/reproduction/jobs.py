"""The pieces of work of a reproduction. Each leaves a file when it is done and is not done again."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from demo.tiny_family.make_host import HostConfig
from demo.tiny_family.prepare import TinyCodec, make_cache, make_videos
from memory_encoder.evaluation.baselines import LR_LATENTS, baselines, lr_latents
from memory_encoder.files import write_bytes
from memory_encoder.phi.config import EncoderConfig
from memory_encoder.phi.positions import cells_for, grid_for
from memory_encoder.pictures.codec import Codec
from memory_encoder.training.module import TrainingModule, untrained

from .material import Clips, load_material, make_material
from .measure import Judge, decoded, scored
from .origin import origin
from .returns import PARTS
from .runs import Workshop, trained
from .settings import BASELINE_ROWS, PROPOSED, RATES, ROWS, SECOND_RATE, Protocol

FINISHED = "finished"  # a run that has this file is trained; its encoder is there from the first checkpoint on
SHOWN = (0, 16, 32, 48)  # frames of a clip in the picture grid


class Job(NamedTuple):
    """One row with one seed."""

    row: str
    seed: int


def prepare(protocol: Protocol, workshop: Workshop, clips: Path, jobs: int, tell: Callable[[str], None]) -> None:
    """Films, cached latents and the material of the measures."""
    make_data(workshop.reels, clips, {"reels": protocol.reels}, jobs, tell)
    make_data(workshop.films, clips, {"films": protocol.films, "solo_films": protocol.solo_films}, jobs, tell)
    tell("clips and films to measure on")
    make_material(protocol, clips, workshop.material)
    measure_vae(protocol, workshop)
    measure_baselines(protocol, workshop)


def make_data(folder: Path, clips: Path, counts: dict[str, int], jobs: int, tell: Callable[[str], None]) -> None:
    """Videos and their latents; `counts` of films, solo_films and reels."""
    if (folder / "index.json").exists():
        return
    tell(f"{', '.join(counts)} and their latents")
    videos = folder.with_name(f"{folder.name}_videos")
    counts = {"films": 0, "solo_films": 0, "reels": 0, **counts}
    heldout = {"heldout_films": min(8, counts["films"]), "heldout_reels": min(4, counts["reels"])}
    make_videos(Namespace(clips=clips, out=videos, jobs=jobs, **counts, **heldout))
    make_cache(Namespace(videos=videos, out=folder, rates=",".join((*RATES, SECOND_RATE)), jobs=jobs, comfy=None))


def waiting(protocol: Protocol, workshop: Workshop) -> list[Job]:
    """What is left to do, seed by seed, each run of Stage I followed by what begins with it. One that is measured, but
    lies on another machine, is made again where something still begins with it."""
    left, order = list[Job](), [*ROWS]
    for seed in protocol.seeds:
        missing = [row for row in ROWS.values() if not workshop.result(row.name, seed).exists()]
        begun_with = {row.start for row in missing if not ready(workshop, Job(row.name, seed))}
        names = {row.name for row in missing} | begun_with
        ordered = sorted(names, key=lambda name: (order.index(ROWS[name].start or name), order.index(name)))
        left += [Job(name, seed) for name in ordered]
    return left


def ready(workshop: Workshop, job: Job) -> bool:
    """Whether the run that this one begins with is finished."""
    start = ROWS[job.row].start
    return not start or (workshop.run(start, job.seed) / FINISHED).exists()


def carry_out(protocol: Protocol, workshop: Workshop, job: Job) -> None:
    """Trains a row with a seed, and measures it where that has not been done."""
    torch.set_num_threads(1 if not torch.cuda.is_available() else torch.get_num_threads())
    with trained(protocol, workshop, ROWS[job.row], job.seed) as module:
        write_bytes(workshop.run(*job) / FINISHED, b"")
        if not workshop.result(*job).exists():
            measure(protocol, workshop, job, module)


def measure(protocol: Protocol, workshop: Workshop, job: Job, module: TrainingModule) -> None:
    """Writes what a trained row measures as JSON, for the first seed with pictures."""
    row, material = ROWS[job.row], load_material(workshop.material)
    judge, found = Judge(row, module, job.seed, protocol.drawing_steps), origin(protocol)
    clips, histories, reels = (material[name] for name in ("retrieval", "histories", "reels"))
    if row.stage == "retrieval":
        latents = clips.hr.shape[2]
        found["retrieval"], made = judge.retrieval(clips, judge.memory(clips, latents))
        found["names"] = clips.names
        save_pictures(workshop, job, made)
        if row.variant == "proposed":
            found["untrained"], _ = judge.retrieval(clips, judge.memory(clips, latents, untrained(module, job.seed)))
        if row.name == PROPOSED:
            found["without"], made = judge.retrieval(clips, None)
            save_pictures(workshop, Job("No memory", job.seed), made)
    else:
        found["use"] = judge.use(histories, material["films"])
        found["reels"] = judge.reels(reels)
        found |= {"films": histories.names, "reel_names": reels.names, "parts": PARTS}
    write_bytes(workshop.result(*job), json.dumps(found).encode())


def measure_vae(protocol: Protocol, workshop: Workshop) -> None:
    """The hard ceiling: the clips once through the VAE. The same for all seeds."""
    paths = [workshop.result("VAE alone", seed) for seed in protocol.seeds]
    if all(path.exists() for path in paths):
        return
    clips = load_material(workshop.material)["retrieval"]
    made = decoded(TinyCodec(None)(), clips.hr)
    save_pictures(workshop, Job("VAE alone", 0), made)
    text = json.dumps(origin(protocol) | {"retrieval": scored(clips, made)}).encode()
    for path in paths:
        write_bytes(path, text)


def measure_baselines(protocol: Protocol, workshop: Workshop) -> None:
    """Pictures that need no model, of the same clips; what a rate shows is measured at each rate of `RATES`."""
    results = {row: workshop.result(row, protocol.seeds[0]) for row in BASELINE_ROWS}
    if all(path.exists() for path in results.values()):
        return
    clips, here = load_material(workshop.material)["retrieval"], origin(protocol)
    codec = TinyCodec(None)()
    for row, (kind, rate) in BASELINE_ROWS.items():
        text = json.dumps(here | {"retrieval": scored(clips, baseline(clips, kind, rate, codec))}).encode()
        for seed in protocol.seeds:
            write_bytes(workshop.result(row, seed), text)


def baseline(clips: Clips, kind: str, rate: str, codec: Codec) -> np.ndarray:
    """Pictures [N,F,H,W,3] of a kind of `evaluation.baselines`, as a memory at this rate has them beside it."""
    config = EncoderConfig("wan", HostConfig().dim, clips.hr.shape[1], rate=rate)
    latents, height, width = clips.hr.shape[2:]
    tokens = math.prod(grid_for(height, width, config)) * cells_for(latents, config.stride[0])[1]
    made = []
    for pictures, lr in zip(clips.pictures.float() / 255, clips.lr[rate], strict=True):
        if kind == LR_LATENTS:
            small = codec.decode(lr[None])[0].clamp(0, 1)
            made.append(lr_latents(pictures, config, small, lr.numel()).pictures)
        else:
            made.append(dict(baselines(pictures, [config], codec.spatial, tokens * config.width))[kind].pictures)
    return torch.stack(made).numpy()


def save_pictures(workshop: Workshop, job: Job, made: np.ndarray) -> None:
    """Some frames of the clips drawn with the first seed, one row for each clip, for the picture grid."""
    if job.seed:
        return
    rows = [np.concatenate([clip[i] for i in SHOWN], axis=1) for clip in made]
    sheet: Any = (np.concatenate(rows, axis=0)[..., ::-1] * 255).round().astype(np.uint8)
    write_bytes(workshop.picture(job.row), cv2.imencode(".jpg", sheet, (cv2.IMWRITE_JPEG_QUALITY, 95))[1].tobytes())
