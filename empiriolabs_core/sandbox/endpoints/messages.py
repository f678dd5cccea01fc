"""`POST /v1/messages`: Anthropic's messages."""

from __future__ import annotations

import uuid
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import Endpoint, Head, whole
from empiriolabs_core.sandbox.endpoints.messages_reply import MessagesWriter
from empiriolabs_core.sandbox.endpoints.messages_request import read_request
from empiriolabs_core.sandbox.refusals import Refusal
from empiriolabs_core.sandbox.wire import Turn

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Anthropic's error types by status. The default is `invalid_request_error` below 500, and `api_error` from 500 up."""


class Messages(Endpoint):
    """Anthropic's messages."""

    path = "/v1/messages"
    names = {
        "stop": "stop_sequences",
        "reasoning_effort": "output_config.effort",
        "response_format": "output_config.format",
        "user": "metadata.user_id",
    }

    def read(self, wire: JSON, *, strict: bool) -> JSON:
        """Return a request in the form of chat completions."""
        return read_request(wire, strict=strict)

    def writer(self, wire: JSON, head: Head) -> MessagesWriter:
        """Return the writer of a stream."""
        return MessagesWriter(wire, head)

    def reply(self, wire: JSON, turn: Turn) -> JSON:
        """Return a whole message."""
        return whole(MessagesWriter, wire, turn)

    def envelope(self, refusal: Refusal) -> JSON:
        """Return the body of an error, in Anthropic's form."""
        kind = _TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
        # DeepSeek's message names the field as this endpoint calls it.
        message = str(refusal).replace("`reasoning_content`", "`content[].thinking`")
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": f"req_{uuid.uuid4().hex[:24]}",
        }

    def error_event(self, refusal: Refusal) -> bytes:
        """Return the event of an error in the middle of a stream."""
        return self.event(self.envelope(refusal))

    def hollow(self, value: Any) -> JSON:
        """Return a message with `value` as its content."""
        given = {} if value is ... else {"content": value}
        return {"id": "msg_fault", "type": "message", "role": "assistant", "model": "m", **given}

    def is_finish(self, piece: bytes) -> bool:
        """Return whether an event contains the stop reason."""
        return piece.startswith(b"event: message_delta\n")

    def is_last(self, piece: bytes) -> bool:
        """Return whether an event only ends the message."""
        return piece.startswith(b"event: message_stop\n")
