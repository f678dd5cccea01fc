"""`POST /v1/responses`: OpenAI's responses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import Endpoint, Head, whole
from empiriolabs_core.sandbox.endpoints.responses_reply import ResponsesWriter
from empiriolabs_core.sandbox.endpoints.responses_request import read_request
from empiriolabs_core.sandbox.refusals import Refusal
from empiriolabs_core.sandbox.wire import Turn


class Responses(Endpoint):
    """OpenAI's responses, without stored conversations."""

    path = "/v1/responses"
    names = {
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
    }

    def read(self, wire: JSON, *, strict: bool) -> JSON:
        """Return a request in the form of chat completions."""
        return read_request(wire)

    def writer(self, wire: JSON, head: Head) -> ResponsesWriter:
        """Return the writer of a stream."""
        return ResponsesWriter(wire, head)

    def reply(self, wire: JSON, turn: Turn) -> JSON:
        """Return a whole response."""
        return whole(ResponsesWriter, wire, turn)

    def card(self, card: ModelCard | None) -> ModelCard | None:
        """Return the card with JSON schemas allowed. Recorded at DeepSeek, whose other endpoints reject them."""
        return replace(card, json_object_only=False) if card else None

    def envelope(self, refusal: Refusal) -> JSON:
        """Return the body of an error, in the form of chat completions."""
        return refusal.envelope()

    def error_event(self, refusal: Refusal) -> bytes:
        """Return the event of an error in the middle of a stream."""
        told = {"code": refusal.code, "message": str(refusal), "param": refusal.param}
        return self.event({"type": "error", **told, "sequence_number": 0})

    def hollow(self, value: Any) -> JSON:
        """Return a response with `value` as its output."""
        given = {} if value is ... else {"output": value}
        return {"id": "resp_fault", "object": "response", "status": "completed", "model": "m", **given}

    def is_finish(self, piece: bytes) -> bool:
        """Return whether an event is the last one."""
        return piece.startswith((b"event: response.completed\n", b"event: response.incomplete\n"))

    def is_last(self, piece: bytes) -> bool:
        """Return False, because nothing follows the event with the finish reason."""
        return False
