"""The limit on the time of a whole call, with retries and waits, in both frameworks, sync and async."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from empiriolabs_core.errors import NoAnswerInTimeError, SettingsError
from empiriolabs_core.sandbox import Fault, Sandbox
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case

SAYS = r"not complete after total_timeout=0\.4 seconds"
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
FOR_EVER = 60
"""Seconds that a call would take without a limit, or more."""


@contextmanager
def trickling(piece: bytes, content_type: str) -> Iterator[str]:
    """Serve a reply that never ends: a piece of it every 20 ms."""
    left = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.end_headers()
            until = time.monotonic() + FOR_EVER
            while not left.wait(0.02) and time.monotonic() < until:
                try:
                    self.wfile.write(piece)
                except OSError:
                    return

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            left.set()
            server.shutdown()


def assert_ends(driver: str, stream: bool, where: dict[str, Any], by_call: bool = False) -> None:
    before = time.monotonic()
    limit = {"total_timeout": 0.4}
    case = Case("x", call=limit) if by_call else Case("x", settings=limit)
    with pytest.raises(NoAnswerInTimeError, match=SAYS) as raised:
        DRIVERS[driver](case, where, stream)
    assert isinstance(raised.value, openai.APITimeoutError)
    assert time.monotonic() - before < FOR_EVER / 2


@WAYS
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("by_call", [False, True], ids=["constructor", "call"])
def test_keep_alive_comments(driver: str, stream: bool, by_call: bool, where: dict[str, Any]) -> None:
    kind = "text/event-stream" if stream else "application/json"
    with trickling(b": keep-alive\n\n" if stream else b" ", kind) as address:
        assert_ends(driver, stream, {**where, "base_url": address, "timeout": 30}, by_call)


@WAYS
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("max_retries", [0, 5])
def test_no_answer(driver: str, stream: bool, max_retries: int, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(*[Fault("timeout", seconds=3)] * 6)
    assert_ends(driver, stream, {**where, "max_retries": max_retries})


@WAYS
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_wait_between_two_attempts(driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(*[Fault("status", status=503, headers={"retry-after": f"{FOR_EVER}"})] * 3)
    assert_ends(driver, stream, {**where, "max_retries": 2})


@WAYS
@pytest.mark.parametrize("driver", DRIVERS)
def test_many_attempts(driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    """Each attempt is shorter than the timeout, and all of them together are longer than the limit."""
    sandbox.fail(*[Fault("timeout", seconds=3)] * 20)
    assert_ends(driver, stream, {**where, "max_retries": 1000, "timeout": 0.05})
    assert len(sandbox.requests) < 20


@WAYS
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_call_that_is_in_time(driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    for settings in ({}, {"http_client": openai.DefaultHttpxClient()}):
        case = Case("x", settings={"total_timeout": 60, **settings})
        assert DRIVERS[driver](case, where, stream).text.startswith("You said: ")
    assert all("total_timeout" not in request.body for request in sandbox.requests)


def test_embeddings(sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(Fault("timeout", seconds=3))
    with pytest.raises(NoAnswerInTimeError, match=SAYS):
        EmpirioLabsEmbeddings(**where, total_timeout=0.4).embed_query("Hello")


@pytest.mark.parametrize("adapter", [ChatEmpirioLabs, EmpirioLabs, EmpirioLabsEmbeddings])
@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), True, "5", 10**7])
def test_a_limit_that_cannot_be_used(adapter: Any, wrong: Any, where: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="total_timeout must be a number of seconds"):
        adapter(**where, total_timeout=wrong)
    llm = adapter(**where)
    llm.total_timeout = wrong
    with pytest.raises(SettingsError, match="total_timeout must be a number of seconds"):
        llm.gateway
    if adapter is not EmpirioLabsEmbeddings:
        with pytest.raises(SettingsError, match="total_timeout must be a number of seconds"):
            llm.request([{"role": "user", "content": "Hello"}], {"total_timeout": wrong}, stream=False)


@pytest.mark.parametrize(
    "wrong",
    [
        openai.Timeout(float("inf")),
        openai.Timeout(-1),
        openai.Timeout(5, read=-1),
        openai.Timeout(5, connect=float("nan")),
        openai.Timeout(5, pool=0),
        {"connect": 1, "read": -1, "write": 1, "pool": 1},
        float("inf"),
        float("nan"),
        -1,
    ],
)
def test_timeouts_that_cannot_be_used(wrong: Any, where: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="timeout"):
        Settings(**where, timeout=wrong)
    with pytest.raises(SettingsError, match="timeout"):
        Settings(**where).request([{"role": "user", "content": "Hello"}], {"timeout": wrong}, stream=False)
