"""A server that answers with given bytes, for replies that a correct server never sends."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class RawServer:
    """Answers each request with the most recently set bytes.

    Attributes:
        connections: how many connections were made.
        left: set when a client closed its connection before the end of a body.
        stopped: set when the server stops. Endless bodies wait for it.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.left = threading.Event()
        self.stopped = threading.Event()
        self._head = b""
        self._pieces: Iterable[bytes] = ()
        self._keep_alive = False
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.connections += 1
                while self._read():
                    try:
                        self.wfile.write(outer._head)
                        for piece in outer._pieces:
                            self.wfile.write(piece)
                    except OSError:
                        outer.left.set()
                        return
                    if not outer._keep_alive:
                        return

            def _read(self) -> bool:
                """Read one request, and return whether one was received."""
                length = 0
                line = self.rfile.readline()
                if not line:
                    return False
                while line.strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                    line = self.rfile.readline()
                self.rfile.read(length)
                return True

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)

    @property
    def where(self) -> dict[str, Any]:
        """The arguments of an adapter that talks to this server."""
        return {
            "base_url": f"http://127.0.0.1:{self._server.server_address[1]}/v1",
            "api_key": "sk-raw",
            "max_retries": 0,
        }

    def answer(self, body: bytes, content_type: str | None) -> None:
        """Set the reply to the next requests. Each connection is closed after it."""
        label = f"content-type: {content_type}\r\n" if content_type else ""
        self._head = f"HTTP/1.1 200 OK\r\n{label}connection: close\r\n\r\n".encode()
        self._pieces, self._keep_alive = (body,), False

    def stream(self, pieces: Iterable[bytes]) -> None:
        """Set the reply to the next requests: a chunked body. Connections are kept open, unless the body is endless.

        Args:
            pieces: pieces of the body; an empty one ends it. They are iterated over again for each request.
        """
        self._head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._pieces, self._keep_alive = _Chunked(pieces), True

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


class _Chunked:
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
