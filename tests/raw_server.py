"""A server that answers with given bytes, for what no well-behaved server sends."""

from __future__ import annotations

import socketserver
import threading
from typing import Any


class RawServer:
    """Answers each request with the bytes that were set last, then closes the connection."""

    def __init__(self) -> None:
        self._reply = b""
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                length = 0
                while line := self.rfile.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                self.rfile.read(length)
                self.wfile.write(outer._reply)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)

    @property
    def where(self) -> dict[str, Any]:
        """The arguments of an adapter that talks to this server."""
        return {
            "base_url": f"http://127.0.0.1:{self._server.server_address[1]}/v1",
            "api_key": "sk-raw",
            "max_retries": 0,
        }

    def answer(self, body: bytes, content_type: str | None) -> None:
        """Set the reply to the next requests."""
        label = f"content-type: {content_type}\r\n" if content_type else ""
        self._reply = f"HTTP/1.1 200 OK\r\n{label}connection: close\r\n\r\n".encode() + body

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
