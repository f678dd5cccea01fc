"""A place for traces: it takes whatever LangSmith's client sends, and keeps it."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard

JSON = dict[str, Any]


class Collector(ThreadingHTTPServer):
    """Listens on a free port. `raw` is what came, uncompressed; `runs` are the runs by id, as last told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.raw: list[bytes] = []
        self.runs: dict[str, JSON] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def told(self, run_type: str) -> list[JSON]:
        """Return the runs of a type, in the order of their starts."""
        return sorted((r for r in self.runs.values() if r["run_type"] == run_type), key=lambda r: r["dotted_order"])

    def note(self, run_id: str, told: JSON) -> None:
        known = {name: value for name, value in told.items() if value is not None}
        self.runs.setdefault(run_id, {}).update(known)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        if self.headers.get("content-encoding") == "zstd":
            body = zstandard.ZstdDecompressor().stream_reader(body).read()
        self.server.raw += [self.requestline.encode(), str(self.headers).encode(), body]
        if self.path == "/runs/multipart":
            self._note_parts(body)
        elif self.path.startswith("/runs"):
            told = json.loads(body)
            self.server.note(told.get("id") or self.path.split("/")[-1], told)
        self._answer(202, {})

    do_PATCH = do_POST

    def do_GET(self) -> None:
        self._answer(200, {"version": "0", "instance_flags": {"zstd_compression_enabled": True}})

    def _chunk(self) -> bytes:
        piece = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return piece

    def _note_parts(self, body: bytes) -> None:
        """Take a batch: a part for each run, named `post.ID` or `patch.ID`, and for each large field of it."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        for part in email.message_from_bytes(head + body).walk():
            name = part.get_param("name", header="content-disposition")
            if isinstance(name, str):
                _, run_id, *field = name.split(".")
                told = json.loads(part.get_payload(decode=True))  # type: ignore[arg-type]
                self.server.note(run_id, {field[0]: told} if field else told)

    def _answer(self, status: int, body: JSON) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
