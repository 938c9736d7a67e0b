"""The real ComfyUI as a headless child process on this machine's loopback, driven through its HTTP API.

Used by the demo and by the integration tests. Nothing here imports ComfyUI.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any

from tools.comfy_messages import messages
from tools.environment import ROOT, Environment, prepare

# Loopback must never go through a proxy that the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PORT_TAKEN = "already in use"  # what ComfyUI logs before it ends
NOT_LINKED = shutil.ignore_patterns(".*", "__pycache__", "tests", "benchmarks")


class ComfyError(RuntimeError):
    """A prompt was refused or failed, or the server is gone.

    Attributes:
        node_id, class_type: the node at fault, None when no node is.
        reason: the message of the node or the server.
        details: what the server sent (`node_errors` of a refusal, `execution_error` of a failure).
    """

    def __init__(
        self,
        reason: str,
        node_id: str | None = None,
        class_type: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        where = f"node {node_id} ({class_type}): " if node_id is not None else ""
        super().__init__(where + reason)
        self.reason, self.node_id, self.class_type, self.details = reason, node_id, class_type, details or {}


class ComfyInterrupted(ComfyError):
    """The prompt was cancelled through the API."""


class ComfyServer:
    """Start ComfyUI with this pack as a custom node; use as a context manager.

    Args:
        workdir: base directory of this server (models, input, output, user, custom_nodes); kept afterwards.
        environment: the Python and the ComfyUI tree; prepared when not given.
        pack: folder of the pack to link into custom_nodes, None for none.
        pack_name: name of the link; any name must work.
        custom_nodes: further custom node folders or single `.py` files to link by their own names.
        extra_args: further command line arguments of ComfyUI, e.g. `["--cache-none"]`.
        variables: environment variables for the child beside the current ones, e.g. `{"OMP_NUM_THREADS": "1"}`.
        start_timeout: seconds until the server has to answer.
    """

    def __init__(
        self,
        workdir: Path | str,
        *,
        environment: Environment | None = None,
        pack: Path | None = ROOT,
        pack_name: str = "ComfyUI-VideoMemory",
        custom_nodes: Sequence[Path] = (),
        extra_args: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        start_timeout: float = 180.0,
    ) -> None:
        self.workdir = Path(workdir).absolute()
        self.environment = environment or prepare()
        self.pack_name = pack_name
        self.links = {path.name: path for path in custom_nodes} | ({pack_name: pack} if pack is not None else {})
        self.extra_args = list(extra_args)
        self.variables = variables or {}
        self.start_timeout = start_timeout
        self.client_id = uuid.uuid4().hex
        self.log = self.workdir / "comfyui.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: Queue[dict[str, Any]] = Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models_dir(self) -> Path:
        return self.workdir / "models"

    @property
    def input_dir(self) -> Path:
        return self.workdir / "input"

    @property
    def output_dir(self) -> Path:
        return self.workdir / "output"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> ComfyServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # ---- life of the process ----

    def start(self) -> ComfyServer:
        """Start the process and wait until it answers; can be called again after `stop` or `kill`.

        Raises:
            ComfyError: it ended early or did not answer in time; the end of its log is in the message.
        """
        if self.pid is not None:
            return self
        for folder in (self.models_dir, self.input_dir, self.output_dir, self.workdir / "custom_nodes"):
            folder.mkdir(parents=True, exist_ok=True)
        for name, source in self.links.items():
            _link(source.absolute(), self.workdir / "custom_nodes" / name)
        for last in (False, False, True):
            self.port = _free_port()
            try:
                self._start_process()
                break
            except ComfyError:
                if last or PORT_TAKEN not in self.log_tail():
                    raise
        self._messages = Queue()
        listening = threading.Event()
        threading.Thread(target=self._listen, args=(self.port, self._messages, listening), daemon=True).start()
        listening.wait(10)  # a prompt queued before that would run without messages
        return self

    def _start_process(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.workdir,
                env=self.environment.variables() | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"} | self.variables,
                start_new_session=True,  # a process group of its own, so that kill() reaches every child
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 10.0) -> None:
        """End the process in order, by force when that takes longer than `timeout` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a crash or the out-of-memory killer would."""
        if self._process is None:
            return
        if os.name == "nt":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # ---- prompts ----

    def object_info(self, node_class: str | None = None) -> dict[str, Any]:
        """What ComfyUI says about all nodes, or about one class: `{class: {"input": ..., "output": ...}}`."""
        path = "/object_info" if node_class is None else f"/object_info/{urllib.parse.quote(node_class)}"
        return self.get(path)

    def queue(self, prompt: dict[str, Any], extra_data: dict[str, Any] | None = None) -> str:
        """Queue an API prompt; returns its id.

        Raises:
            ComfyError: validation refused it; names the first node at fault, all are in `details`.
        """
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra_data or {}}
        answer = self.post("/prompt", body)
        # Valid outputs are queued although others were refused: that is a failure for whoever asked for all of them.
        if answer.get("node_errors"):
            raise _refusal(answer)
        return answer["prompt_id"]

    def wait(
        self, prompt_id: str, timeout: float = 600.0, on_progress: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait for the end of a prompt; returns its history entry (`outputs`, `status`, ...).

        Args:
            timeout: seconds.
            on_progress: called in this thread with each message about this prompt as `{"type": ..., "data": {...}}`:
                `progress_state` (data.nodes[id] has value, max, state), `progress`, `executing`, `executed`, and
                `progress_text` (data.node, data.text), which a node sends as plain text.

        Raises:
            ComfyInterrupted: it was cancelled.
            ComfyError: a node failed, or the server ended.
            TimeoutError: it took longer than `timeout`.
        """
        end = time.monotonic() + timeout
        while True:
            heard_all = self._hear(prompt_id, on_progress, end)
            entry = self._history(prompt_id)  # also where the messages were lost
            if entry is not None:
                if on_progress is not None and not heard_all:
                    self._hear(prompt_id, on_progress, end, silence=1.0)
                return _checked(entry)
            if time.monotonic() > end:
                raise TimeoutError(f"prompt {prompt_id} was not done after {timeout:g} s")

    def run(self, prompt: dict[str, Any], timeout: float = 600.0) -> dict[str, Any]:
        """`queue` and `wait` in one."""
        return self.wait(self.queue(prompt), timeout)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Cancel the running prompt, or `prompt_id` only if it is the one that runs."""
        self.post("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    def upload(self, source: Path, name: str | None = None) -> str:
        """Copy a file into the input folder; returns the name that loader nodes take."""
        target = self.input_dir / (name or source.name)
        shutil.copyfile(source, target)
        return target.name

    def files(self, entry: dict[str, Any]) -> list[Path]:
        """Paths of the files that the outputs of a history entry name, in order of the nodes."""
        roots = {"output": self.output_dir, "temp": self.workdir / "temp", "input": self.input_dir}
        found: list[Path] = []
        for output in entry["outputs"].values():
            for items in output.values():
                named = [item for item in items if isinstance(item, dict) and "filename" in item]
                found += [roots[i.get("type", "output")] / i.get("subfolder", "") / i["filename"] for i in named]
        return found

    # ---- HTTP ----

    def get(self, path: str) -> Any:
        return self._request(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with _OPENER.open(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            raise _refusal(_parsed(text) or {"error": {"message": f"{path}: HTTP {error.code}"}}) from error
        except OSError as error:
            if self.pid is None:
                raise ComfyError(f"the server has ended; its log ends with:\n{self.log_tail()}") from error
            raise ComfyError(f"no answer from the server for {path}: {error}") from error
        return json.loads(text) if text else {}

    # ---- helpers ----

    def _command(self) -> list[str]:
        quiet = ["--disable-auto-launch", "--disable-api-nodes", "--dont-print-server"]
        local = ["--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.workdir)]
        script = str(self.environment.comfy / "main.py")
        memory = ["--database-url", "sqlite:///:memory:"]
        return [str(self.environment.python), script, *local, *quiet, *memory, *self.extra_args]

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + self.start_timeout
        while time.monotonic() < end:
            if self.pid is None:
                raise ComfyError(f"ComfyUI ended while starting; its log ends with:\n{self.log_tail()}")
            with contextlib.suppress(ComfyError):
                # Another server may have taken the port first; ours then says so and ends.
                if str(self.workdir) in self.get("/system_stats")["system"]["argv"]:
                    return
            time.sleep(0.1)
        raise ComfyError(f"ComfyUI did not answer within {self.start_timeout:g} s; its log:\n{self.log_tail()}")

    def _listen(self, port: int, into: Queue[dict[str, Any]], listening: threading.Event) -> None:
        with contextlib.suppress(OSError):  # the server has ended; wait() says so
            for message in messages("127.0.0.1", port, f"/ws?clientId={self.client_id}"):
                listening.set()  # the server greets a new client with its status
                into.put(message)

    def _hear(
        self,
        prompt_id: str,
        on_progress: Callable[[dict[str, Any]], None] | None,
        end: float,
        silence: float = 0.2,
    ) -> bool:
        """Pass on messages about a prompt; True after its last one, False after `silence` seconds without any."""
        while time.monotonic() <= end:
            try:
                message = self._messages.get(timeout=silence)
            except Empty:
                return False
            data = message.get("data", {})
            if data.get("prompt_id", prompt_id) != prompt_id:
                continue
            if on_progress is not None:
                on_progress(message)
            # ComfyUI says so after the history entry is there.
            if message["type"] == "executing" and data.get("node", "") is None:
                return True
        return False

    def _history(self, prompt_id: str) -> dict[str, Any] | None:
        return self.get(f"/history/{prompt_id}").get(prompt_id)


def _link(source: Path, target: Path) -> None:
    """Make `target` show `source`; a copy where links are not allowed (Windows without developer mode)."""
    if target.is_symlink():
        target.unlink()
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=NOT_LINKED, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _refusal(answer: dict[str, Any]) -> ComfyError:
    """The error for a prompt that validation refused."""
    for node_id, node in answer.get("node_errors", {}).items():
        reasons = [f"{e['message']}: {e['details']}" if e.get("details") else e["message"] for e in node["errors"]]
        return ComfyError("; ".join(reasons), node_id, node["class_type"], answer)
    said = answer.get("error")
    error: dict[str, Any] = said if isinstance(said, dict) else {"message": str(said)}
    reason = f"{error.get('message')} {error.get('details') or ''}".strip()
    extra = error.get("extra_info") or {}
    return ComfyError(reason, extra.get("node_id"), extra.get("class_type"), answer)


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """The history entry itself, or the error it holds."""
    for kind, data in entry["status"]["messages"]:
        if kind == "execution_interrupted":
            raise ComfyInterrupted("the prompt was interrupted", data.get("node_id"), data.get("node_type"), data)
        if kind == "execution_error":
            reason = f"{data['exception_type']}: {data['exception_message'].strip()}"
            raise ComfyError(reason, data["node_id"], data["node_type"], data)
    if entry["status"]["status_str"] != "success":
        raise ComfyError(f"the prompt ended as {entry['status']['status_str']!r}", details=entry["status"])
    return entry
