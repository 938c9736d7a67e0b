"""What a film is measured with: models that lie on disk, what the caller connects, and what is missing. Nothing is
fetched from anywhere."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...damage import shortened
from .clarity import Clarity, by_detail, by_musiq, by_niqe
from .drift import Drift, colour_drift, sharpness_drift
from .dynamics import Dynamics, by_dis, by_raft
from .faces import ArcFaces, FaceFinder, OpenCvFaces, lacks_arcface
from .likeness import Aesthetic, Ask, Embed, EmbedText, colour_vectors, is_blind, one_space
from .report import Missing
from .viclip import ViClip, VideoClip

PLACE = "film_report"  # folder of models/ that all of these files may lie in; any other one of models/ will do
YUNET, SFACE = "face_detection_yunet_2023mar.onnx", "face_recognition_sface_2021dec.onnx"
NIQE, MUSIQ, RAFT = "niqe_pris_params.npz", "musiq_koniq_ckpt-e95806b9.pth", "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
AESTHETIC = "sa_0_4_vit_l_14_linear.pth"
VICLIP = "ViClip-InternVid-10M-FLT.pth"
ARCFACE = "insightface/models/buffalo_l"
VISION = "connect clip_vision, or give --clip-vision"  # the node's input, and the command's option
BOTH = f"connect both of one CLIP, or give --clip-vision and --clip; or put {VICLIP} into models/{PLACE}"
_PATTERNS = {
    YUNET: ("*yunet*.onnx",),
    SFACE: ("*sface*.onnx",),
    NIQE: ("niqe*.npz",),
    MUSIQ: ("musiq*.pth",),
    RAFT: ("raft_large*.pth", "raft_small*.pth"),
    VICLIP: ("ViClip-InternVid*.pth", "ViCLIP*.pth", "ViCLIP*.safetensors"),
    AESTHETIC: ("sa_0_4_vit_*_linear.pth", "sac+logos+ava1-*linear*.*", "*aesthetic*.pth", "*aesthetic*.safetensors"),
}


@dataclass(frozen=True)
class Instruments:
    """All that a film is judged with; what is None is not measured, and `missing` says why.

    embed, embed_text: CLIP, see `likeness`; clip_name: for people. ask: a model that answers questions about pictures,
    with asker_name. video_clip: in the place of embed_text. Better measures that fell back to lesser ones stand in
    `missing` too.
    """

    faces: FaceFinder | None = None
    embed: Embed | None = None
    embed_text: EmbedText | None = None
    clip_name: str = "CLIP"
    ask: Ask | None = None
    asker_name: str = "a vision-language model"
    aesthetic: Aesthetic | None = None
    clarity: Clarity = field(default_factory=by_detail)
    dynamics: Dynamics = field(default_factory=by_dis)
    drifts: tuple[Drift, ...] = field(default_factory=lambda: (colour_drift(), sharpness_drift()))
    video_clip: VideoClip | None = None
    missing: tuple[Missing, ...] = ()


def find_instruments(
    models_dirs: Sequence[Path],
    *,
    embed: Embed | None = None,
    embed_text: EmbedText | None = None,
    clip_name: str = "CLIP",
    ask: Ask | None = None,
    asker_name: str = "a vision-language model",
    device: str | torch.device = "cpu",
    core: bool = False,
) -> Instruments:
    """Instruments from the files below folders such as ComfyUI's `models`, and from what is connected.

    Files lie in the folder itself or in a folder of it. core: ComfyUI's modules are loaded, whose parts ViCLIP takes.
    Raises DamagedFileError and NiqeError for files that are not what their names say.
    """
    missing: list[Missing] = []
    faces = _faces(models_dirs, missing)
    colours = None if embed is None else colour_vectors(embed)
    if ask is not None and is_blind(ask):
        needs = "the connected language model cannot tell red from blue: it does not see pictures"
        missing += [Missing(name, needs, "connect a vision-language model") for name in ("clothes", "objects")]
        ask = None
    if embed is None and ask is None:
        missing.append(Missing("objects", "no CLIP vision is connected", VISION))
    video_clip = _video_clip(models_dirs, core, missing)
    words = None if video_clip is not None else _words(embed_text, colours, missing)
    if faces is None or (embed is None and ask is None):
        needs = "no faces are found, below which clothes are" if faces is None else "no CLIP vision is connected"
        where = "see identity" if faces is None else VISION
        missing.append(Missing("clothes", needs, where))
    return Instruments(
        faces, embed, words, clip_name, ask, asker_name,
        _aesthetic(models_dirs, colours, missing), _clarity(models_dirs, missing),
        _dynamics(models_dirs, device, missing), video_clip=video_clip, missing=tuple(missing),
    )  # fmt: skip


def found_files(models_dirs: Sequence[Path]) -> tuple[Path, ...]:
    """Files that `find_instruments` would take: with others a film is judged otherwise."""
    return tuple(path for name in _PATTERNS if (path := find_model(models_dirs, name)) is not None)


def find_model(models_dirs: Sequence[Path], name: str) -> Path | None:
    """A file of this kind: the recommended name first, then others that it is known by."""
    for pattern in (name, *_PATTERNS.get(name, ())):
        for folder in models_dirs:
            for found in (*sorted(folder.glob(f"{PLACE}/{pattern}")), *sorted(folder.glob(pattern)),
                          *sorted(folder.glob(f"*/{pattern}"))):  # fmt: skip
                if found.is_file():
                    return found
    return None


def _place(name: str) -> str:
    return f"put {name} into models/{PLACE}"


def _also(path: Path | None, name: str) -> str:
    return "" if path is not None else f", and {_place(name)}"


def _lacks(module: str) -> str:
    """What to do before a module of an optional package can be used; nothing where it can."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        return f"pip install {package}"
    try:
        importlib.import_module(module)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # of another release than the rest
        return f"install {package} anew, it cannot be imported ({shortened(' '.join(str(error).split()), 200)})"
    return ""


def _faces(models_dirs: Sequence[Path], missing: list[Missing]) -> FaceFinder | None:
    arc = next((path for folder in models_dirs if not lacks_arcface(path := folder / ARCFACE)), None)
    lacks = "" if arc is None else _lacks("insightface.app")
    if arc is not None and not lacks:
        return ArcFaces(arc)
    if lacks:
        missing.append(Missing("identity", "InsightFace's models are there, and InsightFace is not", lacks))
    detector, recogniser = find_model(models_dirs, YUNET), find_model(models_dirs, SFACE)
    if detector is not None and recogniser is not None:
        return OpenCvFaces(detector, recogniser)
    absent = [name for name, path in ((YUNET, detector), (SFACE, recogniser)) if path is None]
    needs = "no face model: " + " and ".join(f"{name} is not there" for name in absent)
    missing.append(Missing("identity", needs, f"{_place(' and '.join(absent))} (from OpenCV's model zoo)"))
    return None


def _video_clip(models_dirs: Sequence[Path], core: bool, missing: list[Missing]) -> VideoClip | None:
    """ViCLIP, where its file is."""
    path = find_model(models_dirs, VICLIP)
    if path is None or core:
        return None if path is None else ViClip.load(path)
    missing.append(Missing("semantic", f"{path.name} is read by ComfyUI's parts of CLIP", "give --comfy FOLDER"))
    return None


def _words(embed_text: EmbedText | None, colours: np.ndarray | None, missing: list[Missing]) -> EmbedText | None:
    """The texts' side of CLIP, where it is that of the pictures."""
    if colours is None or embed_text is None:
        parts = [name for name, given in (("vision", colours), ("text", embed_text)) if given is None]
        needs = f"no CLIP {' and '.join(parts)} of one model is connected"
    elif one_space(embed_text, colours):
        return embed_text
    else:
        needs = "the connected text encoder and CLIP vision name colours differently: they are not of one CLIP"
    missing.append(Missing("semantic", needs, BOTH))
    return None


def _aesthetic(models_dirs: Sequence[Path], colours: np.ndarray | None, missing: list[Missing]) -> Aesthetic | None:
    path = find_model(models_dirs, AESTHETIC)
    if path is not None and colours is not None:
        head = Aesthetic.load(path)
        if head.weight.shape[0] == colours.shape[1]:
            return head
        needs = f"{path.name} reads {head.weight.shape[0]} numbers, and the CLIP vision gives {colours.shape[1]}"
        missing.append(Missing("aesthetic", needs, "connect the CLIP vision that the head was made for, ViT-L/14"))
    elif path is None:
        missing.append(Missing("aesthetic", f"LAION's linear head {AESTHETIC} is not there", _place(AESTHETIC)))
    else:
        missing.append(Missing("aesthetic", "no CLIP vision is connected", f"{VISION}, CLIP ViT-L/14"))
    return None


def _clarity(models_dirs: Sequence[Path], missing: list[Missing]) -> Clarity:
    weights, parameters = find_model(models_dirs, MUSIQ), find_model(models_dirs, NIQE)
    lacks = _lacks("pyiqa") if weights is not None else "pip install pyiqa"
    if weights is not None and not lacks:
        return by_musiq(weights)
    found = by_detail() if parameters is None else by_niqe(parameters)
    better = "" if parameters is not None else f", or {NIQE} for NIQE"
    missing.append(
        Missing(
            "clarity", f"measured by {found.measure.tool}; better by MUSIQ",
            f"{lacks}{_also(weights, MUSIQ)}{better}",
        )
    )  # fmt: skip
    return found


def _dynamics(models_dirs: Sequence[Path], device: str | torch.device, missing: list[Missing]) -> Dynamics:
    weights = find_model(models_dirs, RAFT)
    lacks = _lacks("torchvision.models.optical_flow") if weights is not None else "pip install torchvision"
    if weights is not None and not lacks:
        return by_raft(weights, device)
    missing.append(
        Missing(
            "dynamics", "measured by OpenCV's DIS optical flow; better by RAFT",
            f"{lacks}{_also(weights, RAFT)}",
        )
    )  # fmt: skip
    return by_dis()
