"""The queue script says what is wrong with a file or an address before it asks for hours of work."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "workflows" / "queue_film.py"
CASE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "Q1_gb18030.txt"


def error_of(*options: str | Path) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def stranger() -> Iterator[str]:
    """Address of a server that is no ComfyUI."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>a printer</html>")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("encoding", ["gb18030", "cp932", "utf-16"])
def test_storyboard_in_another_encoding_is_named_with_the_cure(tmp_path: Path, encoding: str) -> None:
    story = tmp_path / "story.txt"
    story.write_bytes("[0s: 映画の街] [5s: 厨房]".encode(encoding))
    error = error_of(story)
    assert f"storyboard {story} is not UTF-8 text" in error and "save it as UTF-8" in error


def test_case_of_gb18030_is_named() -> None:
    if not CASE.is_file():
        pytest.skip("the cases are not beside this checkout")
    error = error_of(CASE)
    assert CASE.name in error and "save it as UTF-8" in error


def test_files_and_addresses_that_are_not_what_they_should_be_are_named(tmp_path: Path, stranger: str) -> None:
    story, broken, other = tmp_path / "story.txt", tmp_path / "broken.json", tmp_path / "ui.json"
    story.write_bytes(b"\xef\xbb\xbfa kitchen | a street")
    broken.write_text('{"1": ')
    other.write_text('{"nodes": [], "version": 0.4}')
    assert f"storyboard {tmp_path / 'none.txt'} cannot be read: No such file" in error_of(tmp_path / "none.txt")
    assert f"storyboard {tmp_path} cannot be read: Is a directory" in error_of(tmp_path)
    assert f"workflow {broken} is not JSON" in error_of(story, "--workflow", broken)
    assert f"workflow {other} is not in API form" in error_of(story, "--workflow", other)
    other.write_text('{"1": {"class_type": "VideoMemoryStoryboard"}}')
    assert f"workflow {other} is not in API form" in error_of(story, "--workflow", other)
    assert "no ComfyUI at http://127.0.0.1:9" in error_of(story, "--server", "http://127.0.0.1:9")
    assert "no ComfyUI at 127.0.0.1" in error_of(story, "--server", "127.0.0.1:8188")
    assert f"what answers at {stranger} is not ComfyUI" in error_of(story, "--server", stranger)
