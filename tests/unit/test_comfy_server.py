"""The child process of tools/comfy_server.py, with a program in ComfyUI's place that only says who it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import comfy_server
from tools.comfy_server import ComfyError, ComfyServer
from tools.environment import Environment

MAIN = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/ws"):
            self.send_response(101)
            self.end_headers()
            self.wfile.write(b"\\x81\\x02{}")  # a greeting, as one WebSocket frame
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"system": {"argv": sys.argv}}).encode())

port = int(sys.argv[sys.argv.index("--port") + 1])
try:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
except OSError:
    sys.exit(f"Port {port} is already in use on address 127.0.0.1.")
server.serve_forever()
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "main.py").write_text(MAIN)
    return Environment(Path(sys.executable), tmp_path)


def test_server_whose_port_was_taken_by_another_starts_on_the_next_one(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ComfyServer(tmp_path / "first", environment=environment, pack=None) as first:
        ports = iter([first.port, comfy_server._free_port()])
        monkeypatch.setattr(comfy_server, "_free_port", lambda: next(ports))
        with ComfyServer(tmp_path / "second", environment=environment, pack=None) as second:
            assert second.port != first.port
            for server in (first, second):
                assert str(server.workdir) in server.get("/system_stats")["system"]["argv"]


def test_server_that_ends_while_it_starts_is_reported_with_its_log(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("raise SystemExit('no model folder')")
    with pytest.raises(ComfyError, match=r"ended while starting.*\n.*no model folder"):
        ComfyServer(tmp_path / "base", environment=environment, pack=None).start()
