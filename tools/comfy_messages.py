"""Listen to ComfyUI's WebSocket with the standard library only, so that the demo runs from any Python.

Reads what a server sends (RFC 6455); nothing is sent but the handshake and answers to pings.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PROGRESS_TEXT = 3  # ComfyUI's number for a binary message that carries a line of text from a node


def messages(host: str, port: int, path: str) -> Iterator[dict[str, Any]]:
    """Messages of ComfyUI as `{"type": ..., "data": {...}}` until the server closes the connection.

    A node's line of text comes as type `progress_text` with `node` and `text`; previews are left out.

    Raises:
        OSError: the connection was refused or lost.
    """
    with socket.create_connection((host, port), timeout=30) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        with connection.makefile("rb") as stream:
            if b" 101 " not in stream.readline():
                raise ConnectionError(f"{host}:{port}{path} is not a WebSocket")
            while stream.readline() not in (b"\r\n", b""):
                pass
            connection.settimeout(None)
            for opcode, payload in _whole_messages(connection, stream):
                if (message := _decoded(opcode, payload)) is not None:
                    yield message


def _whole_messages(connection: socket.socket, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    kind, parts = TEXT, b""
    while True:
        first, second = _exactly(stream, 2)
        length = second & 0x7F  # a server does not mask
        if length == 126:
            (length,) = struct.unpack(">H", _exactly(stream, 2))
        elif length == 127:
            (length,) = struct.unpack(">Q", _exactly(stream, 8))
        payload = _exactly(stream, length)
        opcode = first & 0x0F
        if opcode == CLOSE:
            return
        if opcode == PING:
            _send_pong(connection, payload)
        elif opcode in (CONTINUATION, TEXT, BINARY):
            kind = kind if opcode == CONTINUATION else opcode
            parts += payload
            if first & 0x80:
                yield kind, parts
                parts = b""


def _send_pong(connection: socket.socket, payload: bytes) -> None:
    mask = os.urandom(4)  # a client has to mask
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    connection.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + mask + masked)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ConnectionError("the server has closed the connection")
    return data


def _decoded(opcode: int, payload: bytes) -> dict[str, Any] | None:
    if opcode == TEXT:
        value = json.loads(payload)
        return value if isinstance(value, dict) else None
    if len(payload) < 8 or struct.unpack(">I", payload[:4])[0] != PROGRESS_TEXT:
        return None
    (length,) = struct.unpack(">I", payload[4:8])
    node, text = payload[8 : 8 + length], payload[8 + length :]
    return {"type": "progress_text", "data": {"node": node.decode(), "text": text.decode(errors="replace")}}
