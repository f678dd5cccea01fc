"""`POST /v1/chat/completions`: the sandbox's internal form, which needs no translation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import Endpoint, Head, Writer
from empiriolabs_core.sandbox.refusals import Refusal
from empiriolabs_core.sandbox.wire import Turn, completion, event


class ChatCompletions(Endpoint):
    """Chat completions, in the form of the gateway's documents."""

    path = "/v1/chat/completions"

    def read(self, wire: JSON, *, strict: bool) -> JSON:
        """Return the request unchanged."""
        return wire

    def writer(self, wire: JSON, head: Head) -> Writer:
        """Return the writer of a stream."""
        return Writer(wire, head)

    def reply(self, wire: JSON, turn: Turn) -> JSON:
        """Return a whole reply."""
        return completion(turn)

    def envelope(self, refusal: Refusal) -> JSON:
        """Return the body of an error."""
        return refusal.envelope()

    def error_event(self, refusal: Refusal) -> bytes:
        """Return the event of an error in the middle of a stream."""
        return event(refusal.envelope())

    def hollow(self, value: Any) -> JSON:
        """Return a reply with `value` as its choices."""
        given = {} if value is ... else {"choices": value}
        return {"id": "chatcmpl-fault", "object": "chat.completion", "model": "m", **given}

    def is_finish(self, piece: bytes) -> bool:
        """Return whether a chunk has a finish reason."""
        return b'"finish_reason": null' not in piece and b"finish_reason" in piece

    def is_last(self, piece: bytes) -> bool:
        """Return whether a piece is `[DONE]`."""
        return piece.startswith(b"data: [DONE]")

    def event(self, data: JSON | str) -> bytes:
        """Return one server-sent event."""
        return event(data)

    def final(self) -> Iterator[bytes]:
        """Yield a comment and `[DONE]`. DeepSeek sends both; for the gateway, they are inferred."""
        yield b": keep-alive\n\n"
        yield event("[DONE]")


CHAT = ChatCompletions()
