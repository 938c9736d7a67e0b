"""Whose faces a shot shows: found and turned into vectors by models that lie on disk."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ...damage import DamagedFileError, shortened
from .report import Measure

SFACE_SAME = 0.363  # cosine from which on OpenCV's own page takes two faces for one person's
ARCFACE_SAME = 0.35
LEAST_SCORE, LEAST_PIXELS = 0.7, 16  # of a face that is looked at
CROP = 112, 112  # pixels of a face as recognisers see it
_BELOW, _BESIDE = 0.15, 0.6  # where clothes begin below a face, and how far they reach beside it, in faces
# How far below a face they are looked at, in faces: two shots are compared in the longest part that both show.
REACHES = 3.0, 2.0, 1.25, 0.65


Box = tuple[float, float, float, float]  # left, top, width, height in pixels


@dataclass(frozen=True)
class Face:
    """vector: of unit length; the product of two says how alike they are."""

    box: Box
    vector: np.ndarray


class FaceFinder(Protocol):
    """tool: for people. same: product of two vectors from which on they are one person's."""

    tool: str
    same: float

    def find(self, picture: np.ndarray) -> list[Face]:
        """Faces of a picture [H,W,3] uint8 RGB."""
        ...


@contextlib.contextmanager
def _loaded(path: Path, what: str) -> Iterator[None]:
    """Names the file that is no such model. OpenCV and ONNX Runtime have errors of their own, without a common base."""
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        reason = shortened(" ".join(str(error).split()) or type(error).__name__, 250)
        raise DamagedFileError(f"{what} {path.name} is damaged or not one ({reason}); fetch it again") from error


class OpenCvFaces:
    """YuNet finds, SFace tells apart. embed: another model in SFace's place, aligned [112,112,3] RGB to a vector.

    Raises DamagedFileError for a file that is something else.
    """

    def __init__(
        self,
        detector: Path,
        recogniser: Path | None,
        embed: Callable[[np.ndarray], np.ndarray] | None = None,
        same: float = SFACE_SAME,
        name: str = "SFace",
    ) -> None:
        side = 320
        with _loaded(detector, "face detector"):
            self.detector = cv2.FaceDetectorYN.create(str(detector), "", (side, side), LEAST_SCORE)
            self.detector.detect(np.zeros((side, side, 3), np.uint8))  # a model of something else fails here
        self.recogniser: Any = None
        if recogniser is not None:
            with _loaded(recogniser, "face recogniser"):
                self.recogniser = cv2.FaceRecognizerSF.create(str(recogniser), "")
                self.recogniser.feature(np.zeros((*CROP, 3), np.uint8))
        self.embed, self.same, self.tool = embed, same, f"YuNet and {name} (OpenCV {cv2.__version__})"

    def find(self, picture: np.ndarray) -> list[Face]:
        bgr = np.ascontiguousarray(picture[..., ::-1])
        self.detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        found = self.detector.detect(bgr)[1]
        rows = [] if found is None else [row for row in found if min(row[2:4]) >= LEAST_PIXELS]
        return [Face(_box(row[:4]), self._vector(bgr, row)) for row in rows]

    def _vector(self, bgr: np.ndarray, row: np.ndarray) -> np.ndarray:
        if self.embed is not None:
            return unit(self.embed(aligned(bgr, row[4:14].reshape(5, 2))[..., ::-1]))
        return unit(self.recogniser.feature(self.recogniser.alignCrop(bgr, row)).ravel())


class ArcFaces:
    """InsightFace's detector and ArcFace, from a folder such as models/insightface/models/buffalo_l.

    Raises ValueError for a folder that lacks one of them or holds something else, ImportError without InsightFace.
    """

    tool, same = "InsightFace's ArcFace", ARCFACE_SAME

    def __init__(self, folder: Path) -> None:
        absent = lacks_arcface(folder)
        if absent:  # InsightFace downloads a folder that it does not find, and takes a mere name for one beside itself
            raise ValueError(f"{folder} lacks {' and '.join(absent)}; put InsightFace's {folder.name} there, unpacked")
        analysis = importlib.import_module("insightface.app").FaceAnalysis
        with _loaded(folder, "InsightFace's"):
            self.app = analysis(
                name=str(folder.resolve()), root=str(folder.parents[1]), allowed_modules=["detection", "recognition"],
                providers=["CPUExecutionProvider"],
            )  # fmt: skip
            self.app.prepare(ctx_id=-1, det_size=(640, 640))

    def find(self, picture: np.ndarray) -> list[Face]:
        found = self.app.get(np.ascontiguousarray(picture[..., ::-1]))
        boxes = [_box((*face.bbox[:2], *np.subtract(face.bbox[2:4], face.bbox[:2]))) for face in found]
        faces = [Face(box, unit(face.normed_embedding)) for box, face in zip(boxes, found, strict=True)]
        return [face for face in faces if min(face.box[2:]) >= LEAST_PIXELS]


def lacks_arcface(folder: Path) -> list[str]:
    """Which of InsightFace's two models, detector and recogniser, are not in a folder of its."""
    needed = {"its detector det_*.onnx": "det_*.onnx", "its recogniser w600k_*.onnx": "w600k_*.onnx"}
    return [said for said, pattern in needed.items() if not any(folder.glob(pattern))]


@dataclass
class Person:
    """Someone in a shot: faces in several of its frames. places: number of the frame, and the face's box."""

    vectors: list[np.ndarray] = field(default_factory=list)
    places: list[tuple[int, Box]] = field(default_factory=list)

    @property
    def vector(self) -> np.ndarray:
        return unit(np.mean(self.vectors, axis=0))


def people_of(pictures: Sequence[np.ndarray], finder: FaceFinder) -> list[Person]:
    """Who is in the frames of a shot. A face in a single frame of several may be an error of the finder and is left
    out, unless there is nothing else."""
    people: list[Person] = []
    for number, picture in enumerate(pictures):
        for face in finder.find(picture):
            known = [one for one in people if one.places[-1][0] != number]
            best = max(known, key=lambda one: float(one.vector @ face.vector), default=None)
            if best is None or float(best.vector @ face.vector) < finder.same:
                best = Person()
                people.append(best)
            best.vectors.append(face.vector)
            best.places.append((number, face.box))
    often = [one for one in people if len(one.places) > 1]
    return often or people


def same_people(
    first: Sequence[Person], second: Sequence[Person], same: float
) -> tuple[float | None, list[tuple[Person, Person]]]:
    """How alike the most alike faces of two shots are, and all pairs that are one person."""
    pairs = [(float(a.vector @ b.vector), a, b) for a in first for b in second]
    best = max((alike for alike, _, _ in pairs), default=None)
    return best, [(a, b) for alike, a, b in pairs if alike >= same]


def clothes_of(picture: np.ndarray, box: Box, reach: float) -> np.ndarray | None:
    """The part of a picture from a face down to `reach`; None where the picture ends before."""
    left, top, right, bottom = clothes_box(picture.shape[:2], box, reach)
    least = max(8, (REACHES[-1] - _BELOW) * box[3])
    shown = bottom + 1 >= box[1] + (1 + reach) * box[3] and bottom - top >= least and right - left >= least
    return picture[top:bottom, left:right] if shown else None


def clothes_box(size: tuple[int, ...], box: Box, reach: float = REACHES[0]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the clothes below a face, within a picture of height and width `size`."""
    x, y, width, height = box
    left, right = x - _BESIDE * width, x + (1 + _BESIDE) * width
    top, bottom = y + (1 + _BELOW) * height, y + (1 + reach) * height
    return (
        round(max(0, left)), round(max(0, min(top, size[0]))), round(min(size[1], right)), round(min(size[0], bottom)),
    )  # fmt: skip


# Where eyes, nose and corners of the mouth lie in the 112x112 pictures that face models are trained on.
_PLACES = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]], np.float32)


def aligned(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A face [112,112,3] with its five points [5,2] where face models expect them."""
    turned = cv2.estimateAffinePartial2D(points.astype(np.float32), _PLACES, method=cv2.LMEDS)[0]
    return cv2.warpAffine(picture, turned, CROP, flags=cv2.INTER_LINEAR)


def identity_measure(finder: FaceFinder) -> Measure:
    return Measure(
        "identity", "cosine, 1 is the same picture", True, finder.tool,
        f"how alike the faces of a shot and of the shots that should show the same person are; from {finder.same:g} on "
        "they are taken for one person's",
    )  # fmt: skip


def _box(numbers: Sequence[float]) -> Box:
    left, top, width, height = (float(n) for n in numbers)
    return left, top, width, height


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length 1, float32; one of zeros stays."""
    flat = np.asarray(vector, np.float32).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-12)
