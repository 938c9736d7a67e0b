"""What another program may ask of the pack's routes, through a socket: `python -m benchmarks.faults routes`.

No answer may be a server's error, hold what lies outside of the film, or change a file.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, unquote

from .hostile import OUTSIDE, SECRET, holds, hostile_text
from .mutation import json_text
from .record import add_result

FILM = "kept"
PATHS = (
    "film/{}", "film/{}/clip/{}", "film/{}/takes/{}", "training/{}", "training/{}/recalled", "names", "plan",
    "film/{}/clip/0?key={}",
)  # fmt: skip
NOBODYS = ("{}", "film/{}/{}/{}")
OURS = re.compile(r"(names|plan|film/[^/]+(/(clip|takes)/[^/]+)?|training/[^/]+(/recalled)?)(\?.*)?", re.DOTALL)
METHODS = ("GET",) * 6 + ("HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
GOOD_PLAN = {
    "storyboard": "[0s: a] [2s: b]", "fps": 16, "section_seconds": 1, "rates": ["4x4x2"], "encoders": [], "width": 832,
    "height": 480, "host": "wan-14b", "padding": "ceil",
}  # fmt: skip
MOST = 30.0  # seconds for one answer, on a busy machine


def request_text(random: Random) -> bytes:
    """A request as it goes over the wire."""
    method = random.choice(METHODS)
    good = (FILM, "0", "1")
    parts = [one if random.randrange(3) == 0 else _as_sent(hostile_text(one, random), random) for one in good]
    path = random.choice(PATHS + NOBODYS).format(*parts)
    body = json_text(json.dumps(GOOD_PLAN).encode(), random) if method in ("POST", "PUT", "PATCH") else b""
    if path == "plan" and random.randrange(4):
        method, body = "POST", json_text(json.dumps(GOOD_PLAN).encode(), random)
    headers = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))}
    if random.randrange(3) == 0:
        headers |= {"Range": f"bytes={random.choice(('0-', '5-2', '-1', '99999999-', 'x'))}"}
    if random.randrange(3) == 0:
        headers |= {"Content-Type": random.choice(("application/json", "text/plain", "multipart/form-data", ""))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} /video_memory/{path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogatepass") + body


def _as_sent(text: str, random: Random) -> str:
    """Quoted, quoted twice or, where a line of HTTP can hold it, as it is."""
    once = quote(text, safe="", errors="surrogatepass")[:6000]
    kind = random.randrange(3)
    if kind == 0 and not any(ord(letter) <= 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        return text.replace("{", "").replace("}", "")[:6000]
    return quote(once, safe="")[:6000] if kind == 1 else once


def answer(port: int, request: bytes) -> bytes:
    """Everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), MOST) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def judged(request: bytes, given: bytes) -> str:
    """ "" for what is as it should be, or what is wrong."""
    status = given.split(b" ", 2)[1:2]
    if not status:
        return "no answer"
    path = unquote(request.split(b" ", 2)[1].decode("utf-8", "surrogatepass"), errors="replace")
    ours = OURS.fullmatch(path.removeprefix("/video_memory/"))
    if status[0] >= b"500" and ours:  # of other paths ComfyUI looks for files, and fails at names that are too long
        return f"status {status[0].decode()}"
    leaked = (SECRET.encode(), b"root:x:0:0", b"HOME=")
    return "a leak" if any(secret in given for secret in leaked) else ""


def add_command(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("routes", help=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from demo.tiny_family.install import HOST_NAME, VAE_NAME, install_models
    from tests.integration.films import changed, film
    from tools.comfy_server import ComfyServer
    from tools.environment import ROOT

    random, counts, examples = Random(f"{args.seed} routes"), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / OUTSIDE).write_text(SECRET)
        install_models(work / "models")
        with ComfyServer(work, custom_nodes=[ROOT / "demo" / "nodes"]) as server:
            prompt = changed(film(FILM, ("one shot",)), "host", unet_name=HOST_NAME)
            server.run(changed(prompt, "vae", vae_name=VAE_NAME))
            before = holds(work)
            for _ in range(args.count):
                request = request_text(random)
                given = answer(server.port, request)
                counts[given.split(b" ", 2)[1][:3].decode() if given else "none"] += 1
                if fault := judged(request, given):
                    counts["wrong"] += 1
                    examples.append(f"{fault}: {request[:200]!r} -> {given[:200]!r}")
            changed = sorted(set(holds(work).items()) ^ set(before.items()))
            server.get("/video_memory/names")
    add_result("strangers", "requests to the routes", told(args, counts, examples, [name for name, _ in changed]))


def told(args: argparse.Namespace, counts: Counter[str], examples: list[str], changed: list[str]) -> dict[str, Any]:
    """For the results."""
    wrong = counts.pop("wrong", 0) + len(changed)
    return {
        "tried": args.count, "seed": args.seed, "answers": dict(sorted(counts.items())), "wrong": wrong,
        "examples": [*examples[:5], *(f"changed: {name}" for name in changed[:5])],
    }  # fmt: skip
