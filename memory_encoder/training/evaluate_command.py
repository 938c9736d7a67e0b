"""The `evaluate` command: how well a trained memory gives the frames of any clips back."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.baselines import EQUAL_NUMBERS, THUMBNAIL
from ..evaluation.counted import counted
from ..evaluation.identification import Lineup, asked
from ..evaluation.score import FULL, LABELS, MEMORY, NONE, ClipScore, comparison, in_decibels, score_clip, summary
from ..files import write_bytes
from ..frames import evenly, frames_in, latents_in
from ..injection.fit import check_encoder
from ..injection.hosts import find_host
from ..injection.hosts.comfy_models import (
    PYTORCH_ATTENTION,
    codec,
    load_comfy,
    load_host,
    load_lora,
    load_on_device,
    load_text_encoder,
    load_vae,
    sampling_shift,
    text_type_of,
)
from ..injection.hosts.encoder_file import load_encoder, read_trained_on
from ..injection.selection import MemorySettings
from ..phi.encoder import MemoryEncoder
from ..phi.trained_on import TrainedOn
from .arguments import MOST_OF_HISTORY
from .dataset.cache import find_clips
from .dataset.scan import readable
from .dataset.settings import BadClip, DatasetError
from .dataset.text import Conditioning
from .dataset.video import VideoReader
from .dataset.windows import lr_by_rate
from .evaluate_notes import lora_remarks, remarks_on, what_is_measured
from .module import TrainingModule, untrained
from .pictures import label, write_picture

TINY_FAMILY = Path(__file__).parents[2] / "demo" / "tiny_family" / "weights"
TINY_TEXT = "demo.nodes.text_encoder:HashTextEncoder"
TINY = {"host": "tiny_wan_host", "vae": "tiny_wan_vae", "lora": "tiny_memory_4x4x2_lora"}
TINY_ENCODER = "tiny_memory_4x4x2"
WHOLE = 0.7  # of a picture: 4:3 and 16:9 lose a quarter in each other
SHEET_COLUMNS, REPORT, SHEET = 6, "report.json", "sheet.png"


def run_evaluate(args: argparse.Namespace) -> None:
    """Writes report.json and sheet.png; raises ValueError for what cannot be evaluated."""
    files = {name: Path(getattr(args, name) or TINY_FAMILY / f"{file}.safetensors") for name, file in TINY.items()}
    encoder_files = [Path(path) for path in args.encoder or [TINY_FAMILY / f"{TINY_ENCODER}.safetensors"]]
    if args.encoder and not args.lora:
        del files["lora"]
    for name, path in [*files.items(), *(("encoder", path) for path in encoder_files)]:
        if not path.is_file():
            raise DatasetError(f"{name} {path} does not exist; give --{name} FILE")
    check_asked(args)
    check_folder(args.out)
    load_comfy(args.comfy, PYTORCH_ATTENTION)
    clips = find_clips(args.clips, args.out)
    if not clips:
        raise DatasetError(f"{args.clips} holds no video")
    with torch.inference_mode():
        patcher, vae = load_host(files["host"]), load_vae(files["vae"])
        if "lora" in files:
            patcher = load_lora(patcher, files["lora"])
        encoders = [load_encoder(path) for path in encoder_files]
        text = None
        if args.text_encoder or not args.host:
            host = find_host(patcher.get_model_object("diffusion_model"))
            text = load_text_encoder(args.text_encoder or [TINY_TEXT], args.text_type or text_type_of(host))
        trained = [read_trained_on(path) for path in encoder_files]
        shift = args.shift or drawing_shift(trained, patcher)
        print(what_is_measured(args, trained), flush=True)
        # The tiny family's host has learned to read a whole history; others learn it with a LoRA or not at all.
        bare = None if args.host else load_host(files["host"])
        judge = Judge(patcher, vae, encoders, text, args, shift, bare)
        check_size(args, judge.codec.spatial)
        lora = files.get("lora")
        remarks = [*remarks_on(args, encoder_files, lora, clips), *lora_remarks(patcher, lora)]
        for remark in remarks:
            print(f"note: {remark}", flush=True)
        named = {"encoders": [path.name for path in encoder_files], "lora": None}
        named |= {name: path.name for name, path in files.items()}
        about = {"shift": shift, "files": named, "clips_found": len(clips)}
        evaluation = Evaluation(args, [encoder.config.rate for encoder in encoders], remarks, about)
        try:
            for number, (name, path) in enumerate(clips.items(), 1):
                evaluation.clip(judge, readable(name), path, f"clip {number} of {len(clips)}")
        except KeyboardInterrupt:
            print(f"stopped; {len(evaluation.scores)} of {len(clips)} clips are in the report", flush=True)
            raise
    if not evaluation.scores:
        reasons = "; ".join(entry["reason"] for entry in evaluation.skipped)
        raise DatasetError(f"no clip could be evaluated: {reasons}")
    print(comparison(evaluation.report()), flush=True)
    print(f"{args.out / REPORT}\n{args.out / SHEET}", flush=True)


def check_asked(args: argparse.Namespace) -> None:
    """Raises ValueError for numbers that nothing can be drawn or read with."""
    MemorySettings(history_guidance=args.history_guidance, horizon=args.horizon)
    for name in ("steps", "frames", "width", "height", "fps"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name} {getattr(args, name):g} must be above 0")
    if args.shift < 0:
        raise ValueError(f"--shift {args.shift:g} must be above 0, or 0 for what the memory was trained for")


def check_folder(folder: Path) -> None:
    """Raises OSError where no report can be written, before anything is drawn."""
    probe = folder / f".{REPORT}"
    write_bytes(probe, b"")
    probe.unlink()


def check_size(args: argparse.Namespace, spatial: int) -> None:
    """Raises ValueError for pictures that the VAE would cut to whole latents. spatial: pixels of one."""
    width, height = (max(1, round(side / spatial)) * spatial for side in (args.width, args.height))
    if (width, height) != (args.width, args.height):
        raise ValueError(
            f"--width {args.width} --height {args.height} are no multiples of {spatial}, the pixels of one latent; "
            f"--width {width} --height {height} are the nearest"
        )


def drawing_shift(trained: Sequence[TrainedOn | None], patcher: Any) -> float:
    """The shift of the timesteps that frames are drawn with: that of the training of sections, which is for films, else
    the model's own. trained: what the encoders' files say."""
    shifts = [one.shift for one in trained if one is not None and one.stage == "continuation"]
    return shifts[0] if shifts else sampling_shift(patcher)


class Evaluation:
    """What is known after each clip; the files are written anew with every one, so that an interruption loses none."""

    def __init__(
        self, args: argparse.Namespace, rates: Sequence[str], remarks: Sequence[str], about: dict[str, Any]
    ) -> None:
        """remarks: of `remarks_on`. about: what else the report says of how it was measured; `clips_found` of it: how
        many clips there are to measure."""
        self.args, self.rates, self.remarks, self.about, self.lineup = args, rates, remarks, about, Lineup()
        self.scores: list[ClipScore] = []
        self.skipped: list[dict[str, str]] = []
        self.cropped: dict[str, float] = {}  # the share of its pictures that a clip was measured on, where much is cut

    def clip(self, judge: Judge, name: str, path: Path, place: str) -> None:
        """One more clip; place: which of how many, for people."""
        self._judge(judge, name, path, place)
        if self.scores:
            write_bytes(self.args.out / REPORT, json.dumps(self.report(), indent=1).encode())
            write_picture(self.args.out / SHEET, sheet(self.scores))

    def _judge(self, judge: Judge, name: str, path: Path, place: str) -> None:
        try:
            score = judge.score(name, path)
        except BadClip as error:
            self.skipped.append({"name": name, "reason": str(error)})
            print(f"{place}, {name}: left out: {error}", flush=True)
            return
        cut = ""
        if judge.uncropped < WHOLE:
            self.cropped[name] = judge.uncropped
            cut = f" (cropped to {judge.uncropped:.0%} of its pictures; --width and --height of its own show all)"
        original, kept = score.pictures["original"], score.kept or ()
        self.lineup.add(original, {kind: score.pictures[kind] for kind in score.psnr}, kept)
        seen = evenly(len(original), SHEET_COLUMNS)  # the others would fill the RAM
        places = [kept.index(frame) for frame in seen]
        pictures = {kind: one[places] for kind, one in score.pictures.items() if kind != "original"}
        self.scores.append(replace(score, pictures={"original": original[seen]} | pictures, kept=None))
        if left_out := str(counted(original)):
            cut += f" (not measured: frames of which {left_out})"
        if FULL not in score.psnr:
            cut += " (the whole history was not drawn)"
        print(f"{place}, {name}: {in_decibels(score)}{cut}", flush=True)

    def report(self) -> dict[str, Any]:
        args = self.args
        done = len(self.scores) + len(self.skipped)
        facts = {"finished": done == self.about["clips_found"], "skipped": self.skipped}
        facts |= {"seed": args.seed, "steps": args.steps, "fps": args.fps}
        facts |= {"seconds": args.frames / args.fps} | ({"cropped": self.cropped} if self.cropped else {})
        facts |= {"history_guidance": args.history_guidance, **self.about}
        facts |= {"horizon": args.horizon} if args.horizon else {}
        facts |= {"remarks": self.remarks} if self.remarks else {}
        facts |= {"size": [args.width, args.height], "frames": args.frames, "rate": "+".join(self.rates)}
        return summary(self.scores, facts | {"torch": torch.__version__}, self.lineup)


class Judge:
    """Models and settings of an evaluation."""

    def __init__(
        self,
        patcher: Any,
        vae: Any,
        encoders: Sequence[MemoryEncoder],
        text: Any,
        args: argparse.Namespace,
        shift: float = 3.0,
        bare: Any = None,
    ) -> None:
        """shift: of the sampler's timesteps. bare: the host without a LoRA, if it reads a whole history by itself."""
        model: Any = patcher.model
        self.uncropped = 1.0  # of the last clip, the share of its pictures that is seen
        self.codec, self.args, self.patcher, self.shift = codec(patcher, vae), args, patcher, shift
        first, *others = encoders
        self.module = TrainingModule(
            first.requires_grad_(False), model.diffusion_model, others=others, guidance=args.guidance
        )
        self.module.others.requires_grad_(False)
        self.module.cast = getattr(model, "manual_cast_dtype", None)
        host = find_host(model.diffusion_model)
        self.bare, self.bare_patcher = None, bare
        if bare is not None:
            self.bare = TrainingModule(first, bare.model.diffusion_model, others=others, guidance=args.guidance)
            self.bare.cast = self.module.cast
        self.untrained = untrained(self.module, args.seed)
        for encoder in encoders:
            check_encoder(encoder.config, host)
        if text is not None:
            conditioning = Conditioning.from_core(text.encode_from_tokens_scheduled(text.tokenize(""))[0])
            conditioning.check(host.name, host.text_width, host.pooled_width)
        else:
            extras = {} if host.pooled_width is None else {"pooled_output": torch.zeros(1, host.pooled_width)}
            conditioning = Conditioning(torch.zeros(1, 1, host.text_width), extras)
        self.conditioning = conditioning.arguments()

    def score(self, name: str, path: Path) -> ClipScore:
        """Scores the first frames of a clip; raises BadClip when it has too few, shows nothing or cannot be read."""
        pictures = self._pictures(path)
        latents = latents_in(pictures.shape[0], self.codec.temporal)
        hr = self.codec.encode(pictures[None]).float()
        lr = lr_by_rate(pictures[None], latents, (encoder.config for encoder in self.module.encoders), self.codec)
        device = load_on_device(self.patcher)  # again for each clip, since the VAE may have pushed it out
        if self.bare_patcher is not None:
            load_on_device(self.bare_patcher)
        for encoder in (*self.module.encoders, *self.untrained.encoders):
            encoder.to(device)
        lr = {rate: value.to(device) for rate, value in lr.items()}
        conditioning = {name: value.to(device) for name, value in self.conditioning.items()}
        tokens = math.prod(hr.shape[2:]) // math.prod(find_host(self.module.diffusion_model).patch)
        try:
            return score_clip(
                name, pictures, hr.to(device), lr, self.module, conditioning, self._decode, self.args.seed,
                self.args.steps, self.untrained, self.args.horizon, self.args.history_guidance, self.shift,
                sorted({*asked(pictures), *evenly(len(pictures), SHEET_COLUMNS)}),
                self.args.whole_history or tokens <= MOST_OF_HISTORY, self.bare,
            )  # fmt: skip
        except torch.cuda.OutOfMemoryError as error:
            raise DatasetError(
                f"{name}: the card has no room to draw from its memory ({error}); give a host in fp8, fewer --frames, "
                "a smaller --width and --height or a --horizon. The report has the clips before"
            ) from error

    def _decode(self, latents: Tensor) -> Tensor:
        return self.codec.decode(latents.cpu().float()).cpu()

    def _pictures(self, path: Path) -> Tensor:
        frames: list[np.ndarray] = []
        reader = VideoReader(path, self.args.fps, self.args.width, self.args.height)
        with contextlib.closing(iter(reader)) as pictures:  # type: ignore[type-var]
            for picture in pictures:
                frames.append(picture.pixels)
                if len(frames) == self.args.frames:
                    break
        self.uncropped = reader.uncropped
        usable, least = (frames_in(n, self.codec.temporal) for n in (latents_in(len(frames), self.codec.temporal), 2))
        if usable < least:
            raise BadClip(f"it has {len(frames)} frames at {self.args.fps:g} fps, at least {least} are needed")
        pictures = torch.from_numpy(np.stack(frames[:usable])).float() / 255
        if not counted(pictures).frames:
            raise BadClip("it shows one flat colour, of which nothing can be remembered")
        return pictures


def sheet(scores: Sequence[ClipScore]) -> np.ndarray:
    """Original, recalled, thumbnails of as many pixels as tokens and of as many numbers where there are any, and
    without memory for each clip, evenly chosen frames; [H,W,3] uint8 (BGR).
    """
    rows = []
    for score in scores:
        for kind in (kind for kind in ("original", MEMORY, THUMBNAIL, EQUAL_NUMBERS, NONE) if kind in score.pictures):
            frames = score.pictures[kind]
            pixels = (
                (frames[evenly(frames.shape[0], SHEET_COLUMNS)].clamp(0, 1) * 255).round().byte().numpy()[..., ::-1]
            )
            band = np.full((20, pixels.shape[2] * SHEET_COLUMNS, 3), 27, np.uint8)
            label(band, caption(score, kind), (6, 14), (230, 230, 230))
            rows += [band, np.concatenate(list(pixels), axis=1)]
    return np.concatenate(rows, axis=0)


def caption(score: ClipScore, kind: str) -> str:
    """What a row of the sheet shows, in the words of the tables."""
    return f"{score.name}  " + (f"{LABELS[kind]}  {score.psnr[kind]:.2f} dB" if kind in LABELS else kind)
