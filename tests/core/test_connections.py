"""Connections are used again after streams, whatever the server does at the end of a body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core import drain
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.core.test_events import WHOLE
from tests.raw_server import RawServer

Ask = Callable[[dict[str, Any], int], None]


def langchain(where: dict[str, Any], times: int) -> None:
    llm = ChatEmpirioLabs(**where)
    for _ in range(times):
        assert "".join(chunk.text for chunk in llm.stream("x")) == "Hello"


def llamaindex(where: dict[str, Any], times: int) -> None:
    llm = EmpirioLabs(**where)
    for _ in range(times):
        assert list(llm.stream_chat([ChatMessage("x")]))[-1].message.content == "Hello"


def langchain_async(where: dict[str, Any], times: int) -> None:
    async def ask() -> None:
        llm = ChatEmpirioLabs(**where)
        for _ in range(times):
            assert "".join([chunk.text async for chunk in llm.astream("x")]) == "Hello"

    asyncio.run(ask())


def llamaindex_async(where: dict[str, Any], times: int) -> None:
    async def ask() -> None:
        llm = EmpirioLabs(**where)
        for _ in range(times):
            responses = [response async for response in await llm.astream_chat([ChatMessage("x")])]
            assert responses[-1].message.content == "Hello"

    asyncio.run(ask())


EACH_WAY = pytest.mark.parametrize("ask", [langchain, llamaindex, langchain_async, llamaindex_async])


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


class Ending:
    """The body of a whole answer, and how it ends."""

    def __init__(self, server: RawServer, how: str) -> None:
        self._server, self._how = server, how

    def __iter__(self) -> Iterator[bytes]:
        yield WHOLE.encode()
        if self._how == "late":
            self._server.stopped.wait(0.01)
        if self._how == "more":
            yield b": bye\n\n"
        if self._how == "never":
            self._server.stopped.wait()
        while self._how in ("drip", "flood") and not self._server.stopped.is_set():
            yield b":" + b"x" * (1_000_000 if self._how == "flood" else 1) + b"\n\n"
            if self._how == "drip":
                self._server.stopped.wait(0.01)
        yield b""


@EACH_WAY
@pytest.mark.parametrize("how", ["at once", "late", "more"])
def test_ten_streams_use_one_connection(ask: Ask, how: str, server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine may be too busy for the usual limit.
    monkeypatch.setattr(drain, "SECONDS", 30.0)
    server.stream(Ending(server, how))
    ask(server.where, 10)
    assert server.connections == 1


@EACH_WAY
@pytest.mark.parametrize("how", ["never", "drip", "flood"])
def test_a_body_that_never_ends_costs_little(ask: Ask, how: str, server: RawServer) -> None:
    server.stream(Ending(server, how))
    before = time.monotonic()
    ask({**server.where, "timeout": 60.0}, 2)
    # Without a limit it would be the timeout, or for ever.
    assert time.monotonic() - before < 30
    assert server.connections == 2


def test_the_limit_is_in_time(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "SECONDS", 0.5)
    server.stream(Ending(server, "never"))
    before = time.monotonic()
    langchain(server.where, 1)
    assert time.monotonic() - before >= 0.5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_left_early_is_closed(asynchronous: bool, server: RawServer) -> None:
    server.stream(Ending(server, "flood"))
    llm = ChatEmpirioLabs(**server.where)

    async def leave() -> None:
        chunks: AsyncIterator[Any] = llm.astream("x")
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]

    if asynchronous:
        asyncio.run(leave())
    else:
        chunks = llm.stream("x")
        next(chunks)
        chunks.close()
    assert server.left.wait(30)
