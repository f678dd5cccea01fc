"""Simulate failures between an application and the gateway, as scripted faults."""

from __future__ import annotations

import asyncio
import gzip
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from empiriolabs_core.sandbox.answers import check_sendable
from empiriolabs_core.sandbox.endpoints import CHAT, Endpoint
from empiriolabs_core.sandbox.refusals import Refusal, shown

JSON_TYPE, STREAM_TYPE = "application/json", "text/event-stream"
"""Content types of whole replies and of streams."""

KINDS = {
    "status": "answer with `status`, `code`, `message` and `headers`",
    "timeout": "accept the request, send nothing for `seconds`, then reset the connection",
    "reset": "reset the connection, before the headers or after `after` pieces",
    "reset_in_headers": "reset the connection in the middle of the headers",
    "cut": "close the connection after `after` pieces, in the middle of the body",
    "truncate": "end the body after `after` pieces, without a connection error",
    "no_done": "stream everything except the final [DONE] or message_stop (the responses endpoint has neither)",
    "no_finish": "stop the stream before the event with the finish reason",
    "half_json": "send half of a piece after `after` pieces, then end",
    "bad_utf8": "send invalid UTF-8 after `after` pieces",
    "html": "answer 200 with a web page",
    "empty": "answer 200 with an empty body",
    "choices": "answer 200 with `value` as choices, output or content; without `value`, omit that key",
    "error_body": "answer 200 with an error object",
    "error_event": "send an error object after `after` pieces",
    "redirect": "answer 307 to `url`",
    "gzip": "send the answer compressed with gzip",
    "bad_gzip": "declare gzip compression but send the body uncompressed",
    "huge_line": "send a line of `size` bytes first",
    "endless": "repeat a piece `size` times, or until the client disconnects",
    "slow": "send the first `size` bytes one at a time, `seconds` apart",
    "idle": "pause for `seconds` after `after` pieces",
}
"""The kinds of faults. A piece is an event of a stream, or a quarter of any other body."""


@dataclass(frozen=True)
class Fault:
    """One simulated failure of one request. `KINDS` describes each kind and the fields that it uses.

    Attributes:
        kind: one of `KINDS`.
        after: number of pieces of the answer that are sent before the fault.
        status: HTTP status.
        code: `code` of the error envelope.
        message: `message` of the error envelope.
        headers: additional response headers.
        seconds: seconds to wait, 0 or more.
        size: number of bytes or pieces, 0 or more.
        url: target of a redirect; required for the kind `redirect`.
        value: JSON value to send as `choices`.

    Raises:
        TypeError: if `value` cannot be sent as JSON.
        ValueError: if the kind is unknown, or an argument has the wrong type or is out of range.
    """

    kind: str
    after: int = 0
    status: int = 500
    code: str = "upstream_error"
    message: str = "The model provider returned an error."
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 1.0
    size: int = 1000
    url: str = ""
    value: Any = ...

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        for name, (wanted, holds) in _FAULT_FIELDS.items():
            if not holds(getattr(self, name)):
                raise ValueError(f"{name} must be {wanted}, got {shown(getattr(self, name))}.")
        if self.value is not ...:
            check_sendable("value", self.value)
        if self.kind == "redirect" and not self.url:
            raise ValueError("The fault 'redirect' needs a target. Pass url=.")

    @property
    def refusal(self) -> Refusal:
        """The error envelope that the fault sends."""
        # Faults simulate failures behind the gateway, so they use the error type of a server error.
        return Refusal(self.status, self.code, self.message, kind="api_error")


def _is_number(value: Any, kind: Any = int) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_FAULT_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "after": ("an integer >= 0", _is_number),
    "status": ("an HTTP status between 200 and 599", lambda value: _is_number(value) and 200 <= value <= 599),
    "code": ("a string", _is_text),
    "message": ("a string", _is_text),
    "headers": (
        "a dict of strings",
        lambda value: isinstance(value, Mapping) and all(map(_is_text, (*value, *value.values()))),
    ),
    "seconds": ("a number of seconds >= 0", lambda value: _is_number(value, int | float)),
    "size": ("an integer >= 0", _is_number),
    "url": ("a string", _is_text),
}


class DropConnection(Exception):
    """Raised while a body is sent, to make the server close the connection immediately."""


async def before_answer(fault: Fault, request: Request, endpoint: Endpoint = CHAT) -> Response | None:
    """Return the response that replaces the answer, or None if the fault occurs within the answer."""
    match fault.kind:
        case "status":
            return JSONResponse(endpoint.envelope(fault.refusal), fault.status, headers=dict(fault.headers))
        case "timeout":
            await _wait_for_disconnect(request, fault.seconds)
            reset(request)
            raise DropConnection
        case "reset" if not fault.after:
            reset(request)
            raise DropConnection
        case "reset_in_headers":
            _transport(request).write(b"HTTP/1.1 200 OK\r\ncontent-type: app")
            await asyncio.sleep(0.02)
            reset(request)
            raise DropConnection
        case "html":
            return Response("<html><body><h1>Welcome</h1></body></html>", media_type="text/html")
        case "empty":
            return Response(b"", media_type=JSON_TYPE)
        case "choices":
            return JSONResponse(endpoint.hollow(fault.value))
        case "error_body":
            return JSONResponse(endpoint.envelope(fault.refusal))
        case "redirect":
            return RedirectResponse(fault.url, 307)
        case _:
            return None


async def _wait_for_disconnect(request: Request, seconds: float) -> None:
    for _ in range(max(int(seconds / 0.05), 1)):
        if await request.is_disconnected():
            return
        await asyncio.sleep(0.05)


def reset(request: Request) -> None:
    """Reset the TCP connection of a request, so that the client sees ECONNRESET instead of a normal close."""
    transport = _transport(request)
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _transport(request: Request) -> Any:
    """Return the TCP transport of a request. ASGI does not expose it, but uvicorn's `receive` is bound to its owner."""
    return request.receive.__self__.transport  # type: ignore[attr-defined]


def respond(
    fault: Fault | None, request: Request, pieces: AsyncIterator[bytes], media_type: str, endpoint: Endpoint = CHAT
) -> Response:
    """Return a response that sends the pieces of a body and simulates the fault, if any."""
    if fault is None:
        return StreamingResponse(pieces, media_type=media_type)
    body = _with_fault(fault, request, pieces, endpoint)
    if fault.kind in ("gzip", "bad_gzip"):
        body = _compressed(body) if fault.kind == "gzip" else body
        return StreamingResponse(body, media_type=media_type, headers={"content-encoding": "gzip"})
    return StreamingResponse(body, media_type=media_type)


async def _compressed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield gzip.compress(b"".join([piece async for piece in pieces]))


async def _with_fault(
    fault: Fault, request: Request, pieces: AsyncIterator[bytes], endpoint: Endpoint
) -> AsyncIterator[bytes]:
    number = 0
    if fault.kind == "huge_line":
        yield b": " + b"x" * fault.size + b"\n\n"
    async for piece in pieces:
        if number == fault.after:
            async for instead in _at(fault, request, piece, endpoint):
                yield instead
            if fault.kind in ("truncate", "half_json"):
                return
        if fault.kind == "slow" and fault.size > number:
            for byte in piece:
                yield bytes([byte])
                await asyncio.sleep(fault.seconds)
                number += 1
            continue
        if _withheld(fault, piece, endpoint):
            return
        yield piece
        number += 1
    if fault.after >= number:
        async for instead in _at(fault, request, b"", endpoint):
            yield instead


def _withheld(fault: Fault, piece: bytes, endpoint: Endpoint) -> bool:
    if fault.kind == "no_done":
        return endpoint.is_last(piece)
    return fault.kind == "no_finish" and endpoint.is_finish(piece)


async def _at(fault: Fault, request: Request, piece: bytes, endpoint: Endpoint) -> AsyncIterator[bytes]:
    """Yield the bytes that the fault inserts, or end the connection."""
    match fault.kind:
        case "reset":
            reset(request)
            raise DropConnection
        case "cut":
            # Let the server flush its buffer first, so that the client receives the pieces before the cut.
            await asyncio.sleep(0.02)
            raise DropConnection
        case "half_json":
            yield piece[: len(piece) // 2]
        case "bad_utf8":
            yield b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n'
        case "error_event":
            yield endpoint.error_event(fault.refusal)
        case "idle":
            await asyncio.sleep(fault.seconds)
        case "endless":
            for _ in range(fault.size):
                yield piece
                await asyncio.sleep(0)
        case _:
            return
