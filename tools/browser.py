"""What the browser tests need beside ComfyUI: node, a Chromium and playwright-core. Standard library only.

    python -m tools.browser            fetch what is missing; says what it cannot fetch
    python -m tools.browser --print    the three paths

Node.js comes from the system. Chromium is found on PATH or named by `VIDEO_MEMORY_CHROMIUM`; on Debian and Ubuntu, as
root, it is installed with apt-get. playwright-core comes from npm into the cache folder of tools/environment.py, with
no browser of its own. Nothing is put into the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.environment import SetupError, cache_folder, locked, say

PLAYWRIGHT = "1.65.1"
NODE_MAJOR = 20  # the first with a stable test runner that takes several files and a time limit
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class BrowserTools:
    """Programs that drive a browser."""

    node: Path
    chromium: Path
    playwright: Path  # the folder of playwright-core

    def variables(self) -> dict[str, str]:
        """Environment variables that tests/browser/page.mjs reads."""
        return os.environ | {
            "VIDEO_MEMORY_CHROMIUM": str(self.chromium),
            "VIDEO_MEMORY_PLAYWRIGHT": str(self.playwright),
        }


def find_node() -> Path | None:
    """A Node.js that is new enough, or None."""
    found = shutil.which("node")
    if found is None:
        return None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = version.lstrip("v").split(".")[0]
    return Path(found) if major.isdigit() and int(major) >= NODE_MAJOR else None


def find_chromium() -> Path | None:
    """The Chromium that VIDEO_MEMORY_CHROMIUM names, else the first one on PATH, or None."""
    if named := os.environ.get("VIDEO_MEMORY_CHROMIUM"):
        return Path(named) if Path(named).is_file() else None
    return next((Path(path) for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


def playwright_folder() -> Path:
    """Where npm puts playwright-core; there or not."""
    return cache_folder() / f"playwright-{PLAYWRIGHT}" / "node_modules" / "playwright-core"


def find_playwright() -> Path | None:
    """playwright-core of the wanted version, or None."""
    folder = playwright_folder()
    try:
        found = json.loads((folder / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return None
    return folder if found == PLAYWRIGHT else None


def find() -> tuple[BrowserTools | None, str]:
    """The tools, or None and what is missing; installs nothing."""
    node, chromium, playwright = find_node(), find_chromium(), find_playwright()
    if node and chromium and playwright:
        return BrowserTools(node, chromium, playwright), ""
    parts = (
        (node, f"Node.js {NODE_MAJOR} or newer"),
        (chromium, "Chromium"),
        (playwright, f"playwright-core {PLAYWRIGHT}"),
    )
    return None, "missing: " + ", ".join(name for path, name in parts if path is None)


def prepare() -> tuple[BrowserTools | None, str]:
    """The tools, after fetching those that can be fetched here; as `find`."""
    if find()[0] is None:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with locked(cache_folder() / "browser.lock"):
            if find_chromium() is None:
                _install_chromium()
            if find_playwright() is None and find_node() is not None:
                _install_playwright()
    return find()


def _install_chromium() -> None:
    if shutil.which("apt-get") is None or os.name == "nt" or os.geteuid() != 0:
        say("no Chromium on PATH; install one, or name it in VIDEO_MEMORY_CHROMIUM")
        return
    say("installing Chromium with apt-get ...")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # A lock that another installation holds is waited for.
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-y", "-qq"]
    for command in (["update"], ["install", "--no-install-recommends", "chromium", "fonts-noto-cjk"]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True, env=quiet, check=False)
        if done.returncode:
            say(f"apt-get {command[0]} failed: {done.stderr.strip()[-500:]}")
            return


def _install_playwright() -> None:
    npm = shutil.which("npm")
    if npm is None:
        say("no npm on PATH; it brings playwright-core")
        return
    say(f"fetching playwright-core {PLAYWRIGHT} ...")
    target = playwright_folder().parents[1]
    target.mkdir(parents=True, exist_ok=True)
    (target / "package.json").write_text('{"private": true}\n')  # keeps npm from looking for one further up
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel", "error"]
    command = [npm, "install", *options, f"playwright-core@{PLAYWRIGHT}"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    if done.returncode:
        say(f"npm install failed: {done.stderr.strip()[-500:]}")


def main() -> int:
    try:
        tools, missing = prepare()
    except (SetupError, OSError) as error:
        say(f"error: {error}")
        return 1
    if tools is None:
        say(f"browser tests will be skipped, {missing}")
    elif "--print" in sys.argv[1:]:
        print(tools.node, tools.chromium, tools.playwright, sep="\n")
    # Without a browser the other tests still run; who insists sets VIDEO_MEMORY_REQUIRE_BROWSER=1.
    return 1 if tools is None and os.environ.get("VIDEO_MEMORY_REQUIRE_BROWSER") == "1" else 0


if __name__ == "__main__":
    sys.exit(main())
