"""Step time of a Wan-shaped host without memory, with memory and with the whole history as core context latents.

    python benchmarks/step_time.py            tokens, width and text divided by ten, all cases, minutes on two cores
    python benchmarks/step_time.py --real     real token counts; the whole history only with --full or on a GPU

Needs COMFYUI_PATH, the folder of a ComfyUI checkout; `make bench` sets it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run by its path: modules are found from the repository, as with `python -m benchmarks.step_time`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.report import main

if __name__ == "__main__":
    sys.exit(main())
