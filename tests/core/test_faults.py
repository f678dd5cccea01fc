"""The fault matrix: what goes wrong, in both frameworks, sync and async, streamed and not. Every cell is asserted.

`make faults` prints it as a table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core import errors as core
from empiriolabs_core.sandbox import Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case

OK = "the answer"
"""What a cell holds where the right answer comes, after a retry or none."""


ABSURD = "the error or the answer"
"""Told to come back in years, openai 2 tries again soon and openai 3 gives up. Neither waits."""


@dataclass(frozen=True)
class Row:
    """One fault, and what comes of it without and with a stream."""

    name: str
    faults: tuple[Fault, ...]
    whole: Any
    stream: Any
    max_retries: int = 0
    timeout: float = 5.0
    address: str = ""
    """Where to connect, if not to the sandbox. `{port}` is the sandbox's."""

    def __str__(self) -> str:
        return self.name


def _row(name: str, fault: Fault, whole: Any, stream: Any = None, **more: Any) -> Row:
    return Row(name, (fault,), whole, whole if stream is None else stream, **more)


def _status(status: int, error: Any) -> Row:
    return _row(f"{status}", Fault("status", status=status, code="x", headers={"retry-after-ms": "1"}), error)


def _retry(name: str, **headers: str) -> Row:
    """A 429 that is followed by an answer, whatever it says of when to come back."""
    fault = Fault("status", status=429, code="rate_limit_exceeded", headers=headers)
    return _row(f"429, {name}, then an answer", fault, OK, max_retries=1)


DROPPED, REPLY, CUT = core.ConnectionDroppedError, core.InvalidReplyError, core.IncompleteStreamError
ROWS = [
    Row("connection refused", (), DROPPED, DROPPED, address="http://127.0.0.1:9/v1"),
    Row("no such host", (), DROPPED, DROPPED, address="http://gateway.invalid/v1"),
    Row("TLS failure", (), DROPPED, DROPPED, address="https://127.0.0.1:{port}/v1"),
    _row("no answer in time", Fault("timeout", seconds=3), openai.APITimeoutError, timeout=0.3),
    _row("stall in mid-answer", Fault("idle", after=3, seconds=3), openai.APITimeoutError, timeout=0.3),
    _row("reset before the headers", Fault("reset"), DROPPED),
    _row("reset before the headers, then an answer", Fault("reset"), OK, max_retries=1),
    _row("reset in the body", Fault("reset", after=2), DROPPED),
    _row("cut in the body", Fault("cut", after=2), DROPPED),
    _row("ended early, properly", Fault("truncate", after=2), REPLY, CUT),
    _row("no [DONE]", Fault("no_done"), OK),
    _row("no finish_reason", Fault("no_finish"), REPLY, CUT),
    _row("half a line of JSON", Fault("half_json", after=3), REPLY, CUT),
    _row("broken UTF-8", Fault("bad_utf8", after=3), REPLY),
    _row("a web page", Fault("html"), REPLY),
    _row("an empty 200", Fault("empty"), REPLY),
    _row("choices: null", Fault("choices", value=None), REPLY),
    _row("choices: []", Fault("choices", value=[]), REPLY),
    _row("no choices", Fault("choices"), REPLY),
    _row("an error object as a 200", Fault("error_body"), core.ReportedError),
    _row("an error object in the middle", Fault("error_event", after=3), REPLY, core.ReportedError),
    _row("gzip", Fault("gzip"), OK),
    _row("garbage called gzip", Fault("bad_gzip"), DROPPED),
    _row("a line of a megabyte", Fault("huge_line", size=10**6), REPLY, OK),
    _row("slow loris", Fault("slow", size=12, seconds=0.002), OK),
    _status(400, openai.BadRequestError),
    _status(401, openai.AuthenticationError),
    _status(402, core.InsufficientCreditsError),
    _status(403, openai.PermissionDeniedError),
    _status(404, openai.NotFoundError),
    _status(408, openai.APIStatusError),
    _status(409, openai.ConflictError),
    _status(413, openai.APIStatusError),
    _status(422, openai.UnprocessableEntityError),
    _status(429, openai.RateLimitError),
    *[_status(status, openai.InternalServerError) for status in (500, 502, 503, 504)],
    _retry("retry after seconds", **{"retry-after": "1"}),
    _retry("retry after ms", **{"retry-after-ms": "5"}),
    _retry("retry after a date", **{"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    _row(
        "429, retry after years",
        Fault("status", status=429, headers={"retry-after": "99999999"}),
        ABSURD,
        max_retries=1,
    ),
]


def outcome(sandbox: Sandbox, row: Row, driver: str, stream: bool) -> Any:
    """Return what a driver makes of a fault: a result, or the error."""
    sandbox.reset()
    sandbox.fail(*row.faults)
    where = {
        "base_url": row.address.format(port=urlsplit(sandbox.base_url).port) or sandbox.base_url,
        "api_key": sandbox.api_key,
        "max_retries": row.max_retries,
        "timeout": row.timeout,
    }
    try:
        return DRIVERS[driver](Case("x"), where, stream)
    except Exception as error:
        return error


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fault(row: Row, driver: str, stream: bool, sandbox: Sandbox) -> None:
    came, expected = outcome(sandbox, row, driver, stream), row.stream if stream else row.whole
    if expected is OK or (expected is ABSURD and not isinstance(came, Exception)):
        assert not isinstance(came, Exception), came
        assert came.text == "You said: Hello That is all there is to say."
        return
    assert isinstance(came, openai.RateLimitError if expected is ABSURD else expected), came
    assert isinstance(came, openai.OpenAIError)
    assert len(str(came)) > 10
    assert "sk-empiriolabs" not in str(came)


Collect = Callable[[dict[str, Any]], tuple[list[str], Exception | None]]


def _langchain(where: dict[str, Any]) -> tuple[list[str], Exception | None]:
    pieces: list[str] = []
    try:
        pieces += (chunk.text for chunk in ChatEmpirioLabs(enable_thinking=False, **where).stream("Hello"))
    except openai.OpenAIError as error:
        return pieces, error
    return pieces, None


def _llamaindex(where: dict[str, Any]) -> tuple[list[str], Exception | None]:
    pieces: list[str] = []
    try:
        stream = EmpirioLabs(enable_thinking=False, **where).stream_chat([ChatMessage("Hello")])
        pieces += (response.delta or "" for response in stream)
    except openai.OpenAIError as error:
        return pieces, error
    return pieces, None


def _langchain_async(where: dict[str, Any]) -> tuple[list[str], Exception | None]:
    async def collect() -> tuple[list[str], Exception | None]:
        pieces: list[str] = []
        try:
            async for chunk in ChatEmpirioLabs(enable_thinking=False, **where).astream("Hello"):
                pieces.append(chunk.text)
        except openai.OpenAIError as error:
            return pieces, error
        return pieces, None

    return asyncio.run(collect())


def _llamaindex_async(where: dict[str, Any]) -> tuple[list[str], Exception | None]:
    async def collect() -> tuple[list[str], Exception | None]:
        pieces: list[str] = []
        try:
            async for response in await EmpirioLabs(enable_thinking=False, **where).astream_chat(
                [ChatMessage("Hello")]
            ):
                pieces.append(response.delta or "")
        except openai.OpenAIError as error:
            return pieces, error
        return pieces, None

    return asyncio.run(collect())


@pytest.mark.parametrize("collect", [_langchain, _langchain_async, _llamaindex, _llamaindex_async])
@pytest.mark.parametrize("kind", ["cut", "truncate", "half_json", "error_event", "idle"])
def test_what_came_before_a_fault_stays_and_comes_once(
    kind: str, collect: Collect, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    # The first piece is the role; each of the four after it is a word.
    sandbox.fail(Fault(kind, after=5, seconds=3))
    pieces, error = collect({**where, "max_retries": 2, "timeout": 0.4})
    assert error is not None
    assert "".join(pieces) == "You said: Hello "
    assert len(sandbox.requests) == 1


def table() -> str:
    """Run the matrix, and return what came in each cell as Markdown."""
    heads = [f"{driver}, {kind}" for driver in DRIVERS for kind in ("whole", "stream")]
    lines = [f"| fault | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    with Sandbox() as sandbox:
        for row in ROWS:
            cells = [outcome(sandbox, row, driver, stream) for driver in DRIVERS for stream in (False, True)]
            shown = [type(cell).__name__ if isinstance(cell, Exception) else OK for cell in cells]
            lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
