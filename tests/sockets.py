"""Socket helpers for tests: a server that accepts no connection, and a count of open connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil

from empiriolabs_core.sandbox import Sandbox


@contextmanager
def full_queue() -> Iterator[str]:
    """Yield the address of a server that accepts no connection, because its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def connections(sandbox: Sandbox) -> int:
    """Return how many connections this process has to a sandbox, open or half closed."""
    there = urlsplit(sandbox.base_url)
    found = psutil.Process().net_connections("tcp4")
    return sum(connection.raddr == (there.hostname, there.port) for connection in found)
