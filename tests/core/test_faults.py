"""The fault matrix: every fault in both frameworks, sync and async, whole and streamed. Every cell is asserted.

`make faults` prints it as a table.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core import errors as core
from empiriolabs_core.gateway import Request
from empiriolabs_core.sandbox import Fault, Sandbox
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case
from tests.sockets import connections, full_queue

OK = "the answer"
"""The content of a cell if the correct answer arrives, with or without a retry."""


ABSURD = "the error or the answer"
"""Told to come back in years, openai 2 tries again soon and openai 3 gives up. Neither waits."""


@dataclass(frozen=True)
class Row:
    """One fault, and its result without and with a stream."""

    name: str
    faults: tuple[Fault, ...]
    whole: Any
    stream: Any
    says: str = ""
    """A pattern that the error message matches."""
    max_retries: int = 0
    timeout: float = 5.0
    address: str = ""
    """Where to connect, if not to the sandbox. `{port}` is the sandbox's, `{full}` one whose queue is full."""

    def __str__(self) -> str:
        return self.name


def _row(name: str, fault: Fault, whole: Any, stream: Any = None, says: str = "", **more: Any) -> Row:
    return Row(name, (fault,), whole, whole if stream is None else stream, says, **more)


def _status(status: int, error: Any) -> Row:
    fault = Fault("status", status=status, code="x", headers={"retry-after-ms": "1"})
    return _row(f"{status}", fault, error, says=f"{status}.*The model provider returned an error")


def _retry(name: str, **headers: str) -> Row:
    """A 429 that is followed by an answer, whatever it says of when to come back."""
    fault = Fault("status", status=429, code="rate_limit_exceeded", headers=headers)
    return _row(f"429, {name}, then an answer", fault, OK, max_retries=1)


DROPPED, LATER = core.ConnectionDroppedError, core.NoAnswerInTimeError
REPLY, CUT = core.InvalidReplyError, core.IncompleteStreamError
LATE = r"(did not answer|sent nothing more) in time: {}, timeout=0\.\d.*aise timeout"
FAILED = (
    r"The connection to http\S+ (failed: {0}.*Check base_url, or retry"
    r"|was lost during the answer: {0}.*The answer is incomplete; chunks that were received stay valid\. Retry)"
)
UNREAD = r"cannot be read as JSON|ended without a finish_reason"
LONG_LINE = "(no|not a) JSON object: .: x"
REPORTED = r"reported an error .*: The model provider returned an error"
LONG = 100 if int(openai.__version__.split(".")[0]) > 2 else 10
"""Megabytes. The OpenAI client before 3 copies what it has of a line for each piece of it: 100 would take minutes."""
ELSEWHERE = "127.0.0.2"
"""The address of another host, which must not receive the key."""

ROWS = [
    Row("connection refused", (), DROPPED, DROPPED, FAILED.format("ConnectError"), address="http://127.0.0.1:9/v1"),
    Row("no such host", (), DROPPED, DROPPED, FAILED.format("ConnectError"), address="http://gateway.invalid/v1"),
    Row("TLS failure", (), DROPPED, DROPPED, FAILED.format(r".*SSL"), address="https://127.0.0.1:{port}/v1"),
    Row("no connection in time", (), LATER, LATER, LATE.format("ConnectTimeout"), address="{full}", timeout=0.3),
    _row("no answer in time", Fault("timeout", seconds=3), LATER, says=LATE.format("ReadTimeout"), timeout=0.3),
    _row("stall in mid-answer", Fault("idle", after=3, seconds=3), LATER, says=LATE.format("ReadTimeout"), timeout=0.3),
    _row("reset before the headers", Fault("reset"), DROPPED, says=FAILED.format("ReadError")),
    _row("reset before the headers, then an answer", Fault("reset"), OK, max_retries=1),
    _row("reset in the headers", Fault("reset_in_headers"), DROPPED, says=FAILED.format("ReadError")),
    _row("reset in the headers, then an answer", Fault("reset_in_headers"), OK, max_retries=1),
    _row("reset in the body", Fault("reset", after=2), DROPPED, says=FAILED.format("ReadError")),
    _row("cut in the body", Fault("cut", after=2), DROPPED, says=FAILED.format("RemoteProtocolError")),
    _row("ended early, properly", Fault("truncate", after=2), REPLY, CUT, UNREAD),
    _row("no [DONE]", Fault("no_done"), OK),
    _row("no finish_reason", Fault("no_finish"), REPLY, CUT, UNREAD),
    _row("half a line of JSON", Fault("half_json", after=3), REPLY, CUT, UNREAD),
    _row("broken UTF-8", Fault("bad_utf8", after=3), REPLY, says="cannot be read as JSON: 'utf-8'"),
    _row("a web page", Fault("html"), REPLY, says="Welcome.*Check that base_url ends with"),
    _row("an empty 200", Fault("empty"), REPLY, says="Expecting value|an empty body"),
    _row(
        "choices: null", Fault("choices", value=None), REPLY, says="returned 200, but no choices|A stream was requested"
    ),
    _row("choices: []", Fault("choices", value=[]), REPLY, says="returned 200, but no choices|A stream was requested"),
    _row("no choices", Fault("choices"), REPLY, says="returned 200, but no choices|A stream was requested"),
    _row("an error object as a 200", Fault("error_body"), core.ReportedError, says=REPORTED),
    _row(
        "an error object in the middle",
        Fault("error_event", after=3),
        REPLY,
        core.ReportedError,
        f"{UNREAD}|{REPORTED}",
    ),
    _row("gzip", Fault("gzip"), OK),
    _row("garbage called gzip", Fault("bad_gzip"), DROPPED, says=FAILED.format(".*decompressing")),
    _row(
        f"a line of {LONG} MB",
        Fault("huge_line", size=LONG * 10**6),
        REPLY,
        OK,
        "(no|not a) JSON object: .: x",
        timeout=30,
    ),
    _row("slow loris", Fault("slow", size=12, seconds=0.002), OK),
    _row(
        "a redirect to another host",
        Fault("redirect", url=f"http://{ELSEWHERE}:{{port}}/v1/chat/completions"),
        core.RedirectError,
        says=r"redirected the request to http://127\.0\.0\.2:\d+/v1/chat/completions \(30\d\)",
    ),
    _status(400, openai.BadRequestError),
    _status(401, openai.AuthenticationError),
    _status(402, core.InsufficientCreditsError),
    _status(403, openai.PermissionDeniedError),
    _status(404, openai.NotFoundError),
    _status(408, core.RequestTimeoutError),
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
        says="429.*The model provider returned an error",
        max_retries=1,
    ),
]


@contextmanager
def addresses(sandbox: Sandbox) -> Iterator[dict[str, Any]]:
    """Yield what the addresses of rows are made of."""
    port = urlsplit(sandbox.base_url).port or 0
    with Sandbox(host=ELSEWHERE, port=port), full_queue() as full:
        yield {"port": port, "full": full}


@pytest.fixture(scope="module")
def places(_running: Sandbox) -> Iterator[dict[str, Any]]:
    with addresses(_running) as found:
        yield found


def break_with(sandbox: Sandbox, row: Row, places: dict[str, Any]) -> dict[str, Any]:
    """Let the fault of a row happen next, and return the arguments of an adapter that meets it."""
    sandbox.reset()
    sandbox.fail(*[replace(fault, url=fault.url.format(**places)) for fault in row.faults])
    return {
        "base_url": row.address.format(**places) or sandbox.base_url,
        "api_key": sandbox.api_key,
        "max_retries": row.max_retries,
        "timeout": row.timeout,
    }


def outcome(sandbox: Sandbox, row: Row, places: dict[str, Any], driver: str, stream: bool) -> Any:
    """Return what a driver makes of a fault: a result, or the error."""
    try:
        return DRIVERS[driver](Case("x"), break_with(sandbox, row, places), stream)
    except Exception as error:
        return error


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fault(row: Row, driver: str, stream: bool, sandbox: Sandbox, places: dict[str, Any]) -> None:
    came, expected = outcome(sandbox, row, places, driver, stream), row.stream if stream else row.whole
    if expected is OK or (expected is ABSURD and not isinstance(came, Exception)):
        assert not isinstance(came, Exception), came
        assert came.text == "You said: Hello That is all there is to say."
        return
    assert isinstance(came, openai.RateLimitError if expected is ABSURD else expected), came
    assert isinstance(came, openai.OpenAIError)
    assert row.says, "A row that fails says how."
    assert re.search(row.says, str(came)), str(came)
    assert "sk-empiriolabs" not in str(came)


SERVED = [(row, stream) for row in ROWS if not row.address for stream in (False, True)]


def meet(settings: Settings, sandbox: Sandbox, row: Row, places: dict[str, Any], stream: bool) -> Request:
    """Let a fault happen next, and return a request that meets it."""
    call = break_with(sandbox, row, places)
    options = {name: call[name] for name in ("timeout", "max_retries")}
    return settings.request([{"role": "user", "content": "Hello"}], options, stream=stream)


@pytest.mark.slow
def test_no_fault_leaves_a_connection_behind(sandbox: Sandbox, places: dict[str, Any]) -> None:
    """One instance meets them all: what is open after each is the one connection that waits for the next call."""
    gc.collect()
    settings, before = Settings(base_url=sandbox.base_url, api_key=sandbox.api_key), connections(sandbox)
    for row, stream in SERVED:
        request = meet(settings, sandbox, row, places, stream)
        with contextlib.suppress(openai.OpenAIError):
            list(settings.gateway.stream(request)) if stream else settings.gateway.complete(request)
        assert connections(sandbox) <= before + 1, row
    settings.gateway.close()
    assert connections(sandbox) <= before


@pytest.mark.slow
async def test_no_fault_leaves_an_asynchronous_connection_behind(sandbox: Sandbox, places: dict[str, Any]) -> None:
    gc.collect()
    settings, before = Settings(base_url=sandbox.base_url, api_key=sandbox.api_key), connections(sandbox)
    for row, stream in SERVED:
        request = meet(settings, sandbox, row, places, stream)
        with contextlib.suppress(openai.OpenAIError):
            if stream:
                async for _ in settings.gateway.astream(request):
                    pass
            else:
                await settings.gateway.acomplete(request)
        await asyncio.sleep(0)
        assert connections(sandbox) <= before + 1, row
    await settings.gateway.aclose()
    await asyncio.sleep(0)
    assert connections(sandbox) <= before


Pieces = tuple[list[str], Exception | None]
Collect = Callable[[dict[str, Any], int], Pieces]
"""Streams an answer, leaves after so many pieces, and returns them, with the error that ended them if one did."""


def _read(stream: Any, most: int, text: Callable[[Any], str]) -> Pieces:
    pieces: list[str] = []
    try:
        with closing(stream):
            pieces += (text(piece) for piece, _ in zip(stream, range(most), strict=False))
    except openai.OpenAIError as error:
        return pieces, error
    return pieces, None


async def _aread(stream: Any, most: int, text: Callable[[Any], str]) -> Pieces:
    pieces: list[str] = []
    try:
        async with aclosing(stream):
            async for piece in stream:
                pieces.append(text(piece))
                if len(pieces) == most:
                    break
    except openai.OpenAIError as error:
        return pieces, error
    return pieces, None


def _delta(response: Any) -> str:
    return response.delta or ""


def _langchain(where: dict[str, Any], most: int) -> Pieces:
    return _read(ChatEmpirioLabs(enable_thinking=False, **where).stream("Hello"), most, lambda chunk: chunk.text)


def _llamaindex(where: dict[str, Any], most: int) -> Pieces:
    return _read(EmpirioLabs(enable_thinking=False, **where).stream_chat([ChatMessage("Hello")]), most, _delta)


def _langchain_async(where: dict[str, Any], most: int) -> Pieces:
    async def ask() -> Pieces:
        stream = ChatEmpirioLabs(enable_thinking=False, **where).astream("Hello")
        return await _aread(stream, most, lambda chunk: chunk.text)

    return asyncio.run(ask())


def _llamaindex_async(where: dict[str, Any], most: int) -> Pieces:
    async def ask() -> Pieces:
        stream = await EmpirioLabs(enable_thinking=False, **where).astream_chat([ChatMessage("Hello")])
        return await _aread(stream, most, _delta)

    return asyncio.run(ask())


STREAMED = pytest.mark.parametrize("collect", [_langchain, _langchain_async, _llamaindex, _llamaindex_async])


@STREAMED
@pytest.mark.parametrize("kind", ["cut", "truncate", "half_json", "error_event", "idle", "bad_utf8"])
def test_what_came_before_a_fault_stays_and_comes_once(
    kind: str, collect: Collect, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    # The first piece is the role; each of the four after it is a word.
    sandbox.fail(Fault(kind, after=5, seconds=3))
    pieces, error = collect({**where, "max_retries": 2, "timeout": 0.4}, 1000)
    assert error is not None
    assert "".join(pieces) == "You said: Hello "
    assert len(sandbox.requests) == 1


@STREAMED
def test_a_stream_without_end_is_over_when_the_caller_leaves(
    collect: Collect, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    gc.collect()
    before = connections(sandbox)
    sandbox.fail(Fault("endless", after=3, size=10**6))
    pieces, error = collect(where, 20)
    assert (len(pieces), error) == (20, None)
    gc.collect()
    assert connections(sandbox) <= before
    assert sandbox.ledger == []


def table() -> str:
    """Run the matrix, and return the result of each cell as Markdown."""
    heads = [f"{driver}, {kind}" for driver in DRIVERS for kind in ("whole", "stream")]
    lines = [f"| fault | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    with Sandbox() as sandbox, addresses(sandbox) as places:
        for row in ROWS:
            cells = [outcome(sandbox, row, places, driver, stream) for driver in DRIVERS for stream in (False, True)]
            shown = [type(cell).__name__ if isinstance(cell, Exception) else OK for cell in cells]
            lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
