"""A server that gives one answer to all requests, of any status and with any headers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Fixed(BaseHTTPRequestHandler):
    """Gives one answer to all requests, and notes their paths."""

    server: Any

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append(self.path)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value.format(port=self.server.server_port))
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def answering(status: int, headers: dict[str, str], body: str = "") -> Iterator[Any]:
    """Serve the answer; yield the server, with `base_url` and the paths that it has `seen`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fixed) as server:
        found: Any = server
        found.seen, found.status, found.headers, found.body = [], status, headers, body.encode()
        found.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            server.shutdown()
