"""The instruments against known answers and the figures of others' libraries; what needs files skips without them."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from demo.clip import data_folder
from memory_encoder.damage import DamagedFileError
from memory_encoder.evaluation.judge.clarity import DETAIL, NIQE, Clarity, by_musiq
from memory_encoder.evaluation.judge.drift import colour_drift, film_drift
from memory_encoder.evaluation.judge.dynamics import by_dis, by_raft
from memory_encoder.evaluation.judge.faces import ArcFaces, OpenCvFaces
from memory_encoder.evaluation.judge.footage import Footage
from memory_encoder.evaluation.judge.instruments import (
    ARCFACE,
    MUSIQ,
    SFACE,
    VICLIP,
    YUNET,
    Instruments,
    find_instruments,
)
from memory_encoder.evaluation.judge.judging import judge_film
from memory_encoder.evaluation.judge.likeness import COLOURS, Aesthetic, colour_vectors, one_space
from memory_encoder.evaluation.judge.niqe import Niqe, NiqeError
from memory_encoder.storyboard import Shot, Storyboard
from memory_encoder.training.dataset.video import VideoReader

from .judged_films import a_clip, drawn_film, falls_out, footage, pictures_of
from .mobile_faces import MobileFace

DATA = data_folder()


def needed(*names: str) -> Path:
    """The folder of real data; skips where one of its files is not there."""
    for name in names:
        if not (DATA / name).is_file():
            pytest.skip(f"no {name} in {DATA}; VIDEO_MEMORY_DATA names its folder")
    return DATA


# What BasicSR 1.4.2 gives for pictures of scikit-image, and for the same after a Gaussian blur of sigma 2.
NIQE_OF_OTHERS = {"astronaut": (3.0649, 7.2822), "camera": (3.1552, 8.1002), "coffee": (4.1152, 8.0570)}


@pytest.mark.parametrize("name", NIQE_OF_OTHERS)
def test_niqe_is_that_of_others(name: str) -> None:
    parameters = needed("weights/niqe_pris_params.npz") / "weights" / "niqe_pris_params.npz"
    data = pytest.importorskip("skimage.data")
    picture = getattr(data, name)()
    picture = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1)
    ours = Niqe.load(parameters)
    scores = [ours.score(picture), ours.score(cv2.GaussianBlur(picture, (0, 0), 2))]
    assert scores == pytest.approx(NIQE_OF_OTHERS[name], rel=0.012)


def test_niqe_says_nothing_of_small_and_flat_pictures_and_names_a_wrong_file(tmp_path: Path) -> None:
    ours = Niqe(np.zeros(36), np.eye(36), np.full((7, 7), 1 / 49))
    assert ours.score(np.zeros((96, 192, 3), np.uint8)) is None
    assert ours.score(np.zeros((192, 192, 3), np.uint8)) is None
    (tmp_path / "niqe.npz").write_bytes(b"no")
    small = footage(drawn_film(19), pictures_of(drawn_film(19)))
    report = judge_film(small, Instruments(clarity=Clarity(NIQE, ours.score)))
    assert report.measures["clarity"] == DETAIL and len(report.shots) == sum(
        "clarity" in s.values for s in report.shots
    )
    assert ["too small for NIQE" in one.needs for one in report.missing if one.measure == "clarity"] == [True]
    with pytest.raises(NiqeError, match=r"niqe\.npz"):
        Niqe.load(tmp_path / "niqe.npz")


@pytest.mark.parametrize("pixels", [0, 2, 4])
def test_dynamics_of_a_picture_that_slides_is_its_speed(pixels: int) -> None:
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (120, 260, 3)).astype(np.uint8), (0, 0), 3)
    wide = cv2.normalize(wide, wide, 0, 255, cv2.NORM_MINMAX)
    frames = np.stack([wide[:, i * pixels : i * pixels + 160] for i in range(8)])
    assert by_dis().take(a_clip(frames)) == pytest.approx(100 * pixels / 120 * 10, rel=0.1, abs=1e-9)
    assert by_dis().take(a_clip(frames[:1])) is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (16, 640), (31, 333)])
def test_pictures_of_any_size_are_measured(height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, height, width, 3)).astype(np.uint8)
    for measured in (by_dis(), colour_drift()):
        value = measured.take(a_clip(frames))
        assert value is not None and np.isfinite(value)


class Unsafe:
    """What a file could run where it is read without care."""


def test_raft_and_musiq_are_made_from_files_and_fetch_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raft(torch.nn.Module):
        def __init__(self, weights: Any) -> None:
            super().__init__()
            assert weights is None
            self.speed = torch.nn.Parameter(torch.zeros(2))

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
            assert first.shape == second.shape and first.min() >= -1 and second.max() <= 1
            sizes.append(tuple(first.shape[2:]))
            return [self.speed.view(1, 2, 1, 1).expand(1, 2, *first.shape[2:])]

    made: dict[str, Any] = {}
    sizes: list[tuple[int, ...]] = []

    def create_metric(name: str, **options: Any) -> Any:
        made.update(options, name=name)
        return lambda picture: 100 * picture.mean()

    packages = {
        "torchvision.models.optical_flow": {"raft_small": Raft}, "torchvision.models": {}, "torchvision": {},
        "pyiqa": {"create_metric": create_metric},
    }  # fmt: skip
    for package, members in packages.items():
        module = ModuleType(package)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, package, module)
    torch.save({"speed": torch.tensor([3.0, 4.0])}, tmp_path / "raft_small.pth")
    raft = by_raft(tmp_path / "raft_small.pth")
    for height, width in ((130, 165), (48, 64)):
        frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
        assert raft.take(a_clip(frames)) == pytest.approx(100 * 5 / height * 10)
    assert sizes == [(136, 168), (128, 128)]  # RAFT takes multiples of 8, from 128 on
    torch.save({"weight": torch.zeros(2)}, tmp_path / "musiq.pth")
    (tmp_path / "raft_small_broken.pth").write_bytes(b"no weights")
    torch.save({"other": torch.zeros(2)}, tmp_path / "raft_small_other.pth")
    for name in ("broken", "other"):
        with pytest.raises(DamagedFileError, match=rf"raft_small weights raft_small_{name}\.pth .*fetch them again"):
            by_raft(tmp_path / f"raft_small_{name}.pth")
    white = by_musiq(tmp_path / "musiq.pth").take(a_clip(np.full((2, 8, 8, 3), 255, np.uint8)))
    assert white == pytest.approx(100) and made == {
        "name": "musiq", "pretrained_model_path": str(tmp_path / "musiq.pth"),
    }  # fmt: skip
    made.clear()
    torch.save({"weight": Unsafe()}, tmp_path / "musiq_unsafe.pth")
    with pytest.raises(DamagedFileError, match=r"MUSIQ weights musiq_unsafe\.pth"):
        by_musiq(tmp_path / "musiq_unsafe.pth")
    assert not made


def test_a_package_that_is_missing_or_broken_is_named_and_a_lesser_tool_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MUSIQ).touch()
    (tmp_path / "packages").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))

    def said() -> str:
        found = find_instruments([tmp_path])
        assert found.clarity.measure == DETAIL
        return next(one.where for one in found.missing if one.measure == "clarity")

    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    assert said().startswith("pip install pyiqa, or niqe")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    (tmp_path / "packages" / "pyiqa.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    assert said().startswith("install pyiqa anew, it cannot be imported (operator torchvision::nms does not exist)")


@pytest.mark.parametrize("kind", ["raft_small", "raft_large"])
def test_raft_is_torchvisions_own_with_its_own_preparation_of_pictures(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", minversion="0.14")  # a stand-in is older
    flow = pytest.importorskip("torchvision.models.optical_flow")
    model = getattr(flow, kind)(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / f"{kind}.pth")
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 136, 3)).astype(np.uint8)
    prepare = flow.Raft_Large_Weights.C_T_SKHT_V2.transforms()
    with torch.no_grad():
        theirs = model(*prepare(*(torch.from_numpy(frame).movedim(-1, 0)[None] for frame in frames)))[-1][0]
    ours = by_raft(tmp_path / f"{kind}.pth").flow(*frames)
    assert np.abs(theirs.movedim(0, -1).numpy() - ours).max() < 1e-4


def insightface(made: dict[str, Any]) -> ModuleType:
    """In the place of InsightFace's module `app`: no face finder, but as strict as it about files, and offline."""

    class FaceAnalysis:
        def __init__(self, name: str, root: str, allowed_modules: list[str], providers: list[str]) -> None:
            assert Path(name).is_absolute(), "another folder of that name may lie where ComfyUI was started"
            files = {path.name for path in (Path(root) / "models" / name).glob("*.onnx")}
            assert files, "it would download them"
            made.update(name=name, files=files, modules=allowed_modules, providers=providers)

        def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
            made.update(device=ctx_id, size=det_size)

        def get(self, picture: np.ndarray) -> list[Any]:
            assert picture.flags.c_contiguous and picture[0, 0].tolist() == [3, 2, 1], "BGR"
            box, vector = np.array([10, 20, 50, 70], np.float32), np.array([3, 0, 4], np.float32)
            small = np.array([0, 0, 8, 30], np.float32)
            return [SimpleNamespace(bbox=b, normed_embedding=vector) for b in (box, small)]

    module = ModuleType("insightface")
    module.__spec__ = ModuleSpec("insightface", None)
    vars(module)["app"] = app = ModuleType("insightface.app")
    vars(app)["FaceAnalysis"] = FaceAnalysis
    return module


def test_arcface_is_taken_from_a_whole_folder_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    module = insightface(made)
    monkeypatch.setitem(sys.modules, "insightface", module)
    monkeypatch.setitem(sys.modules, "insightface.app", vars(module)["app"])
    folder = tmp_path / ARCFACE
    for files in ((), ("det_10g.onnx",), ("w600k_r50.onnx", "genderage.onnx")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).touch()
        found = find_instruments([tmp_path])
        assert found.faces is None and any(one.measure == "identity" for one in found.missing) and not made
        with pytest.raises(ValueError, match=r"buffalo_l lacks its .*; put InsightFace's buffalo_l there"):
            ArcFaces(folder)
    with pytest.raises(ValueError, match="lacks its detector"):
        ArcFaces(tmp_path / "nowhere")
    (folder / "det_10g.onnx").touch()
    faces = find_instruments([tmp_path / "other", tmp_path]).faces
    assert isinstance(faces, ArcFaces) and made == {
        "name": str(folder), "files": {"det_10g.onnx", "w600k_r50.onnx", "genderage.onnx"},
        "modules": ["detection", "recognition"], "providers": ["CPUExecutionProvider"],
        "device": -1, "size": (640, 640),
    }  # fmt: skip
    (face,) = faces.find(np.full((90, 90, 3), (1, 2, 3), np.uint8))
    assert face.box == (10, 20, 40, 50) and face.vector == pytest.approx([0.6, 0, 0.8])


def test_sface_sees_what_yunet_found_aligned_and_small_faces_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = np.zeros(15, np.float32), np.zeros(15, np.float32)
    large[:4], small[:4] = (10, 20, 40, 50), (0, 0, 15, 40)
    calls: list[Any] = []

    class Detector:
        rows: Any = np.stack([large, small])

        def setInputSize(self, size: tuple[int, int]) -> None:
            calls.append(("size", size))

        def detect(self, picture: np.ndarray) -> tuple[int, Any]:
            assert picture.flags.c_contiguous and picture[0, 0].tolist() in ([3, 2, 1], [0, 0, 0]), "BGR"
            return 1, self.rows

    class Recogniser:
        def alignCrop(self, picture: np.ndarray, row: np.ndarray) -> np.ndarray:
            assert picture[0, 0].tolist() == [3, 2, 1]
            calls.append(("aligned", row[:4].tolist()))
            return np.full((112, 112, 3), 7, np.uint8)

        def feature(self, aligned: np.ndarray) -> np.ndarray:
            assert aligned.shape == (112, 112, 3) and int(aligned[0, 0, 0]) in (0, 7)
            return np.array([[0.0, 3.0, 4.0]], np.float32)

    def create(kind: Any) -> Any:
        return SimpleNamespace(create=lambda path, *more: calls.append((kind.__name__, Path(path).name)) or kind())

    monkeypatch.setattr(cv2, "FaceDetectorYN", create(Detector))
    monkeypatch.setattr(cv2, "FaceRecognizerSF", create(Recogniser))
    for name in (YUNET, SFACE):
        assert find_instruments([tmp_path]).faces is None
        (tmp_path / name).touch()
    faces = find_instruments([tmp_path]).faces
    assert isinstance(faces, OpenCvFaces) and "SFace" in faces.tool and faces.same == 0.363
    assert calls == [("Detector", YUNET), ("Recogniser", SFACE)]
    picture = np.full((90, 120, 3), (1, 2, 3), np.uint8)
    (face,) = faces.find(picture)
    assert calls[2:] == [("size", (120, 90)), ("aligned", [10, 20, 40, 50])]
    assert face.box == (10, 20, 40, 50) and face.vector == pytest.approx([0, 0.6, 0.8])
    monkeypatch.setattr(Detector, "rows", None)
    assert faces.find(picture) == []


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\nsize 37\n", "yunet"])
def test_a_face_model_that_is_none_is_named(content: bytes | str, tmp_path: Path) -> None:
    yunet = needed("weights/yunet_n_640_640.onnx") / "weights" / "yunet_n_640_640.onnx"
    wrong, right = tmp_path / SFACE, tmp_path / YUNET
    wrong.write_bytes(yunet.read_bytes() if isinstance(content, str) else content)
    shutil.copy(yunet, right)
    with pytest.raises(DamagedFileError, match=rf"face recogniser {SFACE} is damaged or not one .*; fetch it again"):
        find_instruments([tmp_path])
    if isinstance(content, bytes):
        with pytest.raises(DamagedFileError, match=rf"face detector {SFACE} is damaged or not one"):
            OpenCvFaces(wrong, None)


def test_the_aesthetic_head_is_its_layers_one_after_the_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.Dropout(0.2), torch.nn.Linear(5, 1)).eval()
    torch.save(head.state_dict(), tmp_path / "aesthetic.pth")
    vectors = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    found = Aesthetic.load(tmp_path / "aesthetic.pth").score(vectors.numpy())
    assert found == pytest.approx(head(vectors).mean().item(), abs=1e-5)
    torch.save({"weight": torch.zeros(2, 8), "bias": torch.zeros(2)}, tmp_path / "aesthetic.pth")
    with pytest.raises(ValueError, match=r"aesthetic head aesthetic\.pth"):
        Aesthetic.load(tmp_path / "aesthetic.pth")


def colour_clip(shift: int = 0, noise: int | None = None) -> tuple[Any, Any]:
    """Pictures and texts as vectors of one space of 16 numbers. shift: texts of other colours; noise: of none."""
    names = list(COLOURS)
    random = None if noise is None else torch.randn(len(names), 16, generator=torch.Generator().manual_seed(noise))
    common = torch.ones(16)  # all pictures have it, and no text: CLIP's are so

    def embed(pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(pictures.mean(dim=(1, 2)), (0, 13)) + common

    def embed_text(texts: Sequence[str]) -> torch.Tensor:
        found = [next(i for i, name in enumerate(names) if name in text) for text in texts]
        if random is not None:
            return random[found]
        told = [list(COLOURS.values())[(i + shift) % len(names)] for i in found]
        return torch.nn.functional.pad(torch.tensor(told).float() / 255, (0, 13))

    return embed, embed_text


def test_texts_and_pictures_are_compared_only_where_both_are_of_one_clip(tmp_path: Path) -> None:
    def semantic(embed: Any, embed_text: Any) -> str:
        found = find_instruments([tmp_path], embed=embed, embed_text=embed_text)
        assert (found.embed_text is None) == any(one.measure == "semantic" for one in found.missing)
        return next((one.said for one in found.missing if one.measure == "semantic"), "")

    embed, embed_text = colour_clip()
    assert semantic(embed, embed_text) == ""
    assert "not of one CLIP" in semantic(embed, colour_clip(shift=1)[1])
    assert "not of one CLIP" in semantic(embed, lambda texts: embed_text(texts)[:, :8])
    assert "not of one CLIP" in semantic(embed, lambda texts: embed_text(texts) * torch.nan)
    assert "no CLIP text of one" in semantic(embed, None) and "no CLIP vision of one" in semantic(None, embed_text)
    (tmp_path / VICLIP).touch()
    found = find_instruments([tmp_path], embed=embed, embed_text=embed_text)
    said = [one.needs for one in found.missing if one.measure == "semantic"]
    assert found.embed_text is embed_text and said == [f"{VICLIP} is read by ComfyUI's parts of CLIP"]
    strangers = [colour_clip(noise=seed)[1] for seed in range(200)]
    assert sum(one_space(texts, colour_vectors(embed)) for texts in strangers) <= 4


def test_an_aesthetic_head_for_another_clip_is_left_out_and_named(tmp_path: Path) -> None:
    embed, _ = colour_clip()
    for width in (16, 24):
        torch.save({"weight": torch.zeros(1, width), "bias": torch.zeros(1)}, tmp_path / "aesthetic.pth")
        found = find_instruments([tmp_path], embed=embed)
        said = [one.needs for one in found.missing if one.measure == "aesthetic"]
        assert (found.aesthetic is not None) == (width == 16)
        assert said == ([] if width == 16 else ["aesthetic.pth reads 24 numbers, and the CLIP vision gives 16"])


def test_a_model_that_answers_questions_needs_no_clip(tmp_path: Path) -> None:
    found = find_instruments(
        [tmp_path], ask=lambda pictures, question: "yes" if pictures[0].equal(pictures[1]) else "no"
    )
    said = {one.measure: one.needs for one in found.missing}
    assert found.ask is not None and "objects" not in said and said["clothes"].startswith("no faces")


@pytest.mark.parametrize("answer", ["yes", "no", "I cannot see."])
def test_a_model_that_does_not_look_at_pictures_is_not_asked(answer: str, tmp_path: Path) -> None:
    found = find_instruments([tmp_path], ask=lambda pictures, question: answer)
    said = [one.needs for one in found.missing if "it does not see pictures" in one.needs]
    assert found.ask is None and len(said) == 2


def test_a_films_drift_is_said_where_it_is_sure_and_is_none_where_shots_only_differ() -> None:
    starts = [5.0 * i for i in range(12)]
    sliding = film_drift(starts, [[50 + 0.6 * i, 0.0, 0.0] for i in range(12)], [8 - 0.1 * i for i in range(12)])
    assert sliding["colour"] == pytest.approx(0.6 * 12) and sliding["sharpness"] == pytest.approx(
        -100 * math.log(2) * 0.05 * 12
    )
    rng = np.random.default_rng(1)
    mixed = film_drift(starts, rng.normal(50, 9, (12, 3)).tolist(), rng.normal(8, 1, 12).tolist())
    assert mixed == {"colour": 0.0, "sharpness": 0.0} and film_drift(starts[:3], [[0.0] * 3] * 3, [0.0] * 3) == {}


def real_film(clips: list[str], frames: int = 6, fps: float = 2.0) -> Footage:
    shots = tuple(Shot("a man makes a sign", frames / fps * i) for i in range(len(clips)))

    def read() -> Any:
        for number, name in enumerate(clips):
            for picture in VideoReader(DATA / "clips" / name, fps, 640, 480):
                if picture.index == frames:
                    break
                yield (number * frames + picture.index) / fps, picture.pixels

    return Footage("signs", fps, len(clips) * frames / fps, (640, 480), Storyboard(shots), read)


def test_of_real_faces_the_stranger_is_named() -> None:
    """One man in three clips, another one between them."""
    clips = [f"asl/asl_{name}.mkv" for name in ("again", "brother", "bird", "help")]
    files = ("yunet_n_640_640.onnx", "mobileface.json", "mobileface.bin")
    weights = needed(*(f"weights/{name}" for name in files), *(f"clips/{name}" for name in clips)) / "weights"
    faces = OpenCvFaces(weights / files[0], None, MobileFace(weights / files[1]), 0.7, "MobileFace")
    report = judge_film(real_film(clips, frames=4), Instruments(faces))
    found = {pair.shots: pair.values["identity"] for pair in report.pairs}
    assert min(found[1, 2], found[1, 4], found[2, 4]) > 0.75 and max(found[1, 3], found[2, 3], found[3, 4]) < 0.65
    assert falls_out(report)["identity"] == [3]
    (said,) = [one.said for one in report.shots[2].falls_out if one.measure == "identity"]
    assert said.startswith("shot 3: the face differs from shots 1, 2 and 4 (0.")


def test_instruments_of_a_models_folder_are_the_best_that_lie_there() -> None:
    weights = needed("weights/niqe_pris_params.npz", "weights/yunet_n_640_640.onnx") / "weights"
    found = find_instruments([weights.parent])
    assert found.clarity.measure.unit == "NIQE" and found.faces is None
    missing = {one.measure: one for one in found.missing}
    assert "sface" in missing["identity"].where and "yunet" not in missing["identity"].where
