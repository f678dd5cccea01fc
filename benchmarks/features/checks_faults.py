"""What is asked of a peer when things go wrong.

Checks are in words of neither framework: what differs is in `ways_langchain` and `ways_llamaindex`. What is on the
wire is read off the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

from .subject import THOUGHT, WINDOW, Shortfall, equal, expect, failure, feature, several, told


@feature("Errors and failures", "A stream that ends without `finish_reason` raises an error, sync and async")
def cut_short(t: Any) -> None:
    def read(ask: Callable[[Any], Any]) -> None:
        t.wire.script(THOUGHT)
        t.wire.fail({"kind": "no_finish"})
        reply = None
        with contextlib.suppress(Exception):
            reply = ask(t.make(max_retries=0))
        expect(reply is None, f"taken for an answer: {reply and reply.text!r}")
        expect(bool(t.bodies()), "nothing was sent at all")

    several(t, {"sync": lambda: read(t.stream), "async": lambda: read(lambda llm: asyncio.run(t.astream(llm)))})


def _raised(t: Any, fault: dict[str, Any] | None, ask: Callable[[Any], Any]) -> Exception:
    """Return what a fault is raised as."""
    t.wire.fail(*[fault] if fault else [])
    try:
        reply = ask(t.make(max_retries=0))
    except Exception as error:
        expect(bool(t.bodies()), f"nothing was sent at all: {told(error)}")
        return error
    raise Shortfall(f"no error; the answer is {reply.text!r}")


def _own_class(error: Exception) -> None:
    """Fail for an error of Python's own, which could be any mistake; partly, where it at least says what happened."""
    if type(error).__module__ == "builtins":
        raise Shortfall(told(error), "partly" if "API" in str(error) else "no")


@feature("Errors and failures", "An error object in mid-stream raises a specific error")
def reported(t: Any) -> None:
    _own_class(_raised(t, {"kind": "error_event", "after": 2}, t.stream))


@feature("Errors and failures", "`choices: []` raises a specific error")
def no_choices(t: Any) -> None:
    t.wire.script({"body": {**_WHOLE, "choices": []}})
    _own_class(_raised(t, None, t.ask))


_WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "deepseek-v4-flash",
    "system_fingerprint": "fp_1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Blue."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


@feature("Errors and failures", "A response without `system_fingerprint` (not guaranteed by the gateway) is accepted")
def no_fingerprint(t: Any) -> None:
    t.wire.script({"body": {name: value for name, value in _WHOLE.items() if name != "system_fingerprint"}})
    equal(t.ask(t.make(max_retries=0)).text, "Blue.", "text")


@feature("Errors and failures", "A conversation that is too long raises a specific error")
def overflow(t: Any) -> None:
    words = f"This model's maximum context length is {WINDOW} tokens. However, you requested {WINDOW + 1} tokens."
    fault = {"kind": "status", "status": 400, "code": "invalid_request_error", "message": words}
    error = _raised(t, fault, t.ask)
    expect(t.is_overflow(error), told(error))


@feature("Errors and failures", "A finite timeout by default")
def timeout(t: Any) -> None:
    seen: list[Any] = []
    with contextlib.ExitStack() as stack:
        for name in ("httpx", "httpx2"):
            with contextlib.suppress(ImportError):
                client = importlib.import_module(name).Client
                stack.enter_context(mock.patch.object(client, "send", _noting_timeouts(client.send, seen)))
        t.ask(t.make())
    expect(bool(seen), "no request was seen")
    expect(all(limit is not None for limits in seen for limit in limits.values()), f"seconds: {seen[0]}")


def _noting_timeouts(send: Any, seen: list[Any]) -> Any:
    """Return an HTTP client's `send` that does the same, and records the timeouts of each request."""

    def noting(self: Any, request: Any, **options: Any) -> Any:
        seen.append(request.extensions.get("timeout") or {"all": None})
        return send(self, request, **options)

    return noting


@feature("Errors and failures", "`max_retries=2` sends at most three requests")
def one_retry_layer(t: Any) -> None:
    t.wire.fail(*[{"kind": "status", "status": 429, "headers": {"retry-after-ms": "1"}}] * 20)
    problem = failure(lambda: t.ask(t.make(max_retries=2)))
    equal(len(t.bodies()), 3, f"{problem}; requests")
