"""Build the replies and streams of `POST /v1/messages`. They conform to the types of the `anthropic` package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import Head, Translator

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")


@dataclass
class _Block:
    start: JSON
    place: int
    pieces: list[str] = field(default_factory=list)
    citations: list[JSON] = field(default_factory=list)
    signature: str = ""

    def whole(self) -> JSON:
        """Return the block with its content."""
        text = "".join(self.pieces)
        if self.start["type"] == "thinking":
            return {**self.start, "thinking": text, "signature": self.signature}
        if self.start["type"] == "tool_use":
            return {**self.start, "input": _input(text)}
        return {**self.start, "text": text, "citations": self.citations or None}


class MessagesWriter(Translator):
    """Writes the events of one message, in Anthropic's order."""

    def __init__(self, wire: JSON, head: Head) -> None:
        super().__init__(wire, head)
        self._blocks: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._open: _Block | None = None

    def begin(self) -> Iterator[JSON]:
        """Yield the empty message, and a ping."""
        usage = {**self._usage(), "output_tokens": 0}
        usage.pop("output_tokens_details", None)
        yield {"type": "message_start", "message": {**self._message(None), "usage": usage}}
        yield {"type": "ping"}

    def end(self) -> Iterator[JSON]:
        """Yield the end of the last block and of the message."""
        yield from self._close()
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": self.head.stop_sequence}
        yield {"type": "message_delta", "delta": {**delta, **self.extra}, "usage": self._usage()}
        yield {"type": "message_stop"}

    def reply(self) -> JSON:
        """Return the whole message."""
        blocks = [block.whole() for block in self._blocks]
        message = {**self._message(self._stop_reason()), "content": blocks, "usage": self._usage()}
        return {**message, "stop_sequence": self.head.stop_sequence, **self.extra}

    def add_text(self, kind: str, text: str, logprobs: list[JSON]) -> Iterator[JSON]:
        """Add to the thinking or the text. A refusal becomes text, because this endpoint has no field for it."""
        name = "thinking" if kind == "reasoning_content" else "text"
        yield from self._block_of(name)
        self._blocks[-1].pieces.append(text)
        yield self._delta(self._blocks[-1], {"type": f"{name}_delta", name: text})

    def add_annotation(self, annotation: JSON) -> Iterator[JSON]:
        """Add a citation, in the form of a web search's."""
        yield from self._block_of("text")
        nested = annotation.get(annotation.get("type", ""))
        found = nested if isinstance(nested, dict) else annotation
        citation = {
            "type": "web_search_result_location",
            "url": found.get("url"),
            "title": found.get("title"),
            "cited_text": found.get("content") or found.get("cited_text") or "",
            "encrypted_index": "",
        }
        self._blocks[-1].citations.append(citation)
        yield self._delta(self._blocks[-1], {"type": "citations_delta", "citation": citation})

    def add_call(self, piece: JSON) -> Iterator[JSON]:
        """Add a piece of a tool call."""
        function = piece.get("function") or {}
        block = self._calls.get(piece["index"])
        if block is None:
            start: JSON = {"type": "tool_use", "id": piece.get("id"), "name": function.get("name"), "input": {}}
            yield from self._begin(start)
            block = self._calls[piece["index"]] = self._blocks[-1]
            yield self._delta(block, {"type": "input_json_delta", "partial_json": ""})
        if function.get("arguments"):
            block.pieces.append(function["arguments"])
            yield self._delta(block, {"type": "input_json_delta", "partial_json": function["arguments"]})

    def _delta(self, block: _Block, delta: JSON) -> JSON:
        return {"type": "content_block_delta", "index": block.place, "delta": delta}

    def _begin(self, start: JSON) -> Iterator[JSON]:
        """Yield the end of the previous block and the start of a new one."""
        yield from self._close()
        self._open = _Block(start, len(self._blocks))
        self._blocks.append(self._open)
        yield {"type": "content_block_start", "index": self._open.place, "content_block": start}

    def _block_of(self, name: str) -> Iterator[JSON]:
        if self._open is None or self._open.start["type"] != name:
            signature = {"signature": ""} if name == "thinking" else {}
            yield from self._begin({"type": name, name: "", **signature})

    def _close(self) -> Iterator[JSON]:
        """Yield the end of the open block. Its signature is the message's id, as recorded at DeepSeek."""
        block, self._open = self._open, None
        if block is None:
            return
        if block.start["type"] == "thinking":
            block.signature = f"msg_{self.head.id}"
            yield self._delta(block, {"type": "signature_delta", "signature": block.signature})
        yield {"type": "content_block_stop", "index": block.place}

    def _stop_reason(self) -> str | None:
        if self.finish_reason == "stop" and self.head.stop_sequence is not None:
            return "stop_sequence"
        return _STOP_REASONS.get(self.finish_reason or "", self.finish_reason)

    def _message(self, stop_reason: str | None) -> JSON:
        return {
            "id": f"msg_{self.head.id}",
            "type": "message",
            "role": "assistant",
            "model": self.wire["model"],
            "content": [],
            "stop_reason": stop_reason,
            "stop_sequence": None,
        }

    def _usage(self) -> JSON:
        return usage_of(self.usage or self.head.usage)


def _input(text: str) -> JSON:
    """Return the arguments of a call. Anything but a JSON object is wrapped in one, as Anthropic advises (inferred)."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"invalid_json": text}
    return value if isinstance(value, dict) else {"invalid_json": text}


def usage_of(usage: JSON) -> JSON:
    """Return token counts under this endpoint's names. Here, `input_tokens` excludes cached tokens."""
    cached = _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    prompt: Any = usage.get("prompt_tokens", 0)
    return {
        "input_tokens": prompt - cached if isinstance(prompt, int) else prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.get("completion_tokens", 0),
        **({} if thought is None else {"output_tokens_details": {"thinking_tokens": thought}}),
        "service_tier": "standard",
        **{name: value for name, value in usage.items() if name not in _USAGE},
    }


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
