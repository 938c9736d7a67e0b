"""What a film that is run once more computes, in FLOPs, against its first run.

    python tools/environment.py run -m benchmarks.resume

Counted by torch's own counter on the models of tests/integration/test_resume.py, through the nodes of a real ComfyUI.
"""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import readme

RESULTS = readme.RESULTS / "resume.json"
TEST = "tests/integration/test_resume.py::test_a_finished_film_costs_nothing_and_a_redone_section_only_itself"


def main() -> None:
    environment = os.environ | {"VIDEO_MEMORY_RESUMED": str(RESULTS)}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", TEST]
    subprocess.run(command, cwd=readme.PAGE.parent.parent, env=environment, check=True)
    readme.main()


if __name__ == "__main__":
    main()
