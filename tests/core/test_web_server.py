"""The web server of the guide to production: it stops the gateway's stream when its client disconnects."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from empiriolabs_core.sandbox import Fault, Sandbox
from tests.sockets import connections
from tests.test_documents import SNIPPETS

(SNIPPET,) = [str(param.values[0]) for param in SNIPPETS if "StreamingResponse" in str(param.values[0])]


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an application; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def test_a_client_that_disconnects_ends_the_stream(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    application: dict[str, Any] = {}
    exec(compile(SNIPPET, "<document>", "exec"), application)
    before = connections(sandbox)
    sandbox.fail(Fault("idle", after=30, seconds=60))  # In the middle of the answer.
    with served(application["app"]) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /answer?question=Hello HTTP/1.1\r\nhost: me\r\n\r\n")
            read = b""
            while b"said" not in read:
                read += client.recv(1000)
            assert connections(sandbox) == before + 1
        until = time.monotonic() + 60
        while connections(sandbox) > before and time.monotonic() < until:
            time.sleep(0.02)
        assert connections(sandbox) == before
