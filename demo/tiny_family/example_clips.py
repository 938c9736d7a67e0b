"""The two drawn clips of the node Demo Clip: python -m demo.tiny_family.example_clips"""

from __future__ import annotations

from pathlib import Path

from demo.clip import write_frames

from .procedural import Film, make_film

CLIPS = Path(__file__).resolve().parents[1] / "nodes" / "clips"
WIDTH, HEIGHT, FPS = 640, 480, 16
# Films that no model was trained on, by the name of who is in them: seed and shots.
DRAWN = {"Max": (1_500_207, 2), "Mira": (1_500_305, 1)}
LATENTS = 8  # of each clip, and the first frame


def drawn(name: str) -> Film:
    seed, shots = DRAWN[name]
    return make_film(seed, shots, WIDTH, HEIGHT, frames_per_shot=4 * LATENTS // shots, fps=FPS, cast_size=1)


def main() -> None:
    CLIPS.mkdir(exist_ok=True)
    for name in DRAWN:
        write_frames(CLIPS / f"{name.lower()}.mp4", drawn(name).frames, FPS, quality=20)


if __name__ == "__main__":
    main()
