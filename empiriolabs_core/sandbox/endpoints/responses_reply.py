"""Build the replies and streams of `POST /v1/responses`. They conform to the types of the `openai` package.

The form of reasoning items and the missing `[DONE]` were recorded at DeepSeek. For the gateway, they are inferred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import Head, Translator

_KINDS = {
    "reasoning_content": ("reasoning", "reasoning_text", "response.reasoning_text"),
    "content": ("message", "output_text", "response.output_text"),
    "refusal": ("message", "refusal", "response.refusal"),
}
"""For each text of the chat form: the type of its item, the type of its part, and the prefix of its events."""

_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details")


@dataclass
class _Part:
    type: str
    events: str
    pieces: list[str] = field(default_factory=list)
    annotations: list[JSON] = field(default_factory=list)
    logprobs: list[JSON] = field(default_factory=list)

    def whole(self) -> JSON:
        """Return a part of an item. A text part also has citations and log probabilities."""
        text = "".join(self.pieces)
        if self.type == "refusal":
            return {"type": self.type, "refusal": text}
        if self.type == "reasoning_text":
            return {"type": self.type, "text": text}
        return {"type": self.type, "text": text, "annotations": self.annotations, "logprobs": self.logprobs}


@dataclass
class _Item:
    type: str
    id: str
    place: int
    parts: list[_Part] = field(default_factory=list)
    call: JSON = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    status: str = "in_progress"

    def whole(self, **extra: Any) -> JSON:
        """Return the item with its current content."""
        item = {"id": self.id, "type": self.type, "status": self.status}
        if self.type == "function_call":
            return {**item, **self.call, "arguments": "".join(self.pieces)}
        content = [part.whole() for part in self.parts]
        if self.type == "reasoning":
            return {**item, "summary": [], "content": content}
        return {**item, "role": "assistant", "content": content, **extra}


class ResponsesWriter(Translator):
    """Writes the events of one response, in OpenAI's order."""

    def __init__(self, wire: JSON, head: Head) -> None:
        super().__init__(wire, head)
        self._items: list[_Item] = []
        self._calls: dict[int, _Item] = {}
        self._open: _Item | None = None
        self._sent = 0

    def begin(self) -> Iterator[JSON]:
        """Yield the events that announce the response."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))

    def end(self) -> Iterator[JSON]:
        """Yield the end of the last item and the whole response."""
        said = any(item.type != "reasoning" for item in self._items)
        if not said and self._status() == "completed":
            yield from self._part_of("content")
        if self._open is not None:
            yield from self._close(self._status())
        yield self._event(f"response.{self._status()}", response=self.reply())

    def reply(self) -> JSON:
        """Return the whole response."""
        return self._response(self._status(), [item.whole(**self.extra) for item in self._items])

    def add_text(self, kind: str, text: str, logprobs: list[JSON]) -> Iterator[JSON]:
        """Add to the reasoning, text or refusal."""
        yield from self._part_of(kind)
        item, part = self._here()
        part.pieces.append(text)
        part.logprobs.extend(logprobs)
        more = {"logprobs": logprobs} if kind == "content" else {}
        yield self._event(f"{part.events}.delta", **_at(item), delta=text, **more)

    def add_annotation(self, annotation: JSON) -> Iterator[JSON]:
        """Add a citation, in this endpoint's flat form."""
        yield from self._part_of("content")
        item, part = self._here()
        nested = annotation.get(annotation.get("type", ""))
        flat = {"type": annotation.get("type"), **nested} if isinstance(nested, dict) else annotation
        part.annotations.append(flat)
        number = len(part.annotations) - 1
        yield self._event(
            "response.output_text.annotation.added", **_at(item), annotation_index=number, annotation=flat
        )

    def add_call(self, piece: JSON) -> Iterator[JSON]:
        """Add a piece of a tool call."""
        function = piece.get("function") or {}
        item = self._calls.get(piece["index"])
        if item is None:
            call = {"call_id": piece.get("id"), "name": function.get("name")}
            yield from self._begin("function_call", "fc", call)
            item = self._calls[piece["index"]] = self._items[-1]
        if function.get("arguments"):
            item.pieces.append(function["arguments"])
            yield self._event(
                "response.function_call_arguments.delta",
                item_id=item.id,
                output_index=item.place,
                delta=function["arguments"],
            )

    def _event(self, kind: str, **fields: Any) -> JSON:
        self._sent += 1
        return {"type": kind, "sequence_number": self._sent - 1, **fields}

    def _here(self) -> tuple[_Item, _Part]:
        item = self._items[-1]
        return item, item.parts[-1]

    def _begin(self, kind: str, prefix: str, call: JSON | None = None) -> Iterator[JSON]:
        """Yield the end of the previous item and the start of a new one."""
        if self._open is not None:
            yield from self._close("completed")
        place = len(self._items)
        self._open = _Item(kind, f"{prefix}_{self.head.id}{place:02}", place, call=call or {})
        self._items.append(self._open)
        yield self._event("response.output_item.added", output_index=place, item=self._open.whole())

    def _part_of(self, kind: str) -> Iterator[JSON]:
        """Yield the events that open a part of this kind, unless the last item already ends with one."""
        item_type, part_type, events = _KINDS[kind]
        if self._open is None or self._open.type != item_type:
            yield from self._begin(item_type, "rs" if item_type == "reasoning" else "msg")
        item = self._items[-1]
        if item.parts and item.parts[-1].type == part_type:
            return
        if item.parts:
            yield from self._end_part(item)
        item.parts.append(_Part(part_type, events))
        yield self._event("response.content_part.added", **_at(item), part=item.parts[-1].whole())

    def _end_part(self, item: _Item) -> Iterator[JSON]:
        part = item.parts[-1].whole()
        text = {"refusal" if part["type"] == "refusal" else "text": "".join(item.parts[-1].pieces)}
        more = {"logprobs": part["logprobs"]} if part["type"] == "output_text" else {}
        yield self._event(f"{item.parts[-1].events}.done", **_at(item), **text, **more)
        yield self._event("response.content_part.done", **_at(item), part=part)

    def _close(self, status: str) -> Iterator[JSON]:
        """Yield the end of the open item."""
        item, self._open = self._items[-1], None
        item.status = status
        if item.type == "function_call":
            yield self._event(
                "response.function_call_arguments.done",
                item_id=item.id,
                output_index=item.place,
                name=item.call["name"],
                arguments="".join(item.pieces),
            )
        elif item.parts:
            yield from self._end_part(item)
        yield self._event("response.output_item.done", output_index=item.place, item=item.whole(**self.extra))

    def _status(self) -> str:
        return "completed" if self.finish_reason in (None, "stop", "tool_calls", "function_call") else "incomplete"

    def _response(self, status: str, output: list[JSON] | None = None) -> JSON:
        reason = {"length": "max_output_tokens"}.get(self.finish_reason or "", self.finish_reason)
        return {
            "id": f"resp_{self.head.id}",
            "object": "response",
            "created_at": self.head.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            **_echo(self.wire),
            "output": output or [],
            "usage": None if status == "in_progress" else usage_of(self.usage),
        }


def _at(item: _Item) -> JSON:
    return {"item_id": item.id, "output_index": item.place, "content_index": len(item.parts) - 1}


def _echo(wire: JSON) -> JSON:
    """Return the fields of the request that a response repeats. `strict` defaults to true, as at OpenAI."""
    tools = [{"strict": True, **tool} if tool.get("type") == "function" else tool for tool in wire.get("tools") or ()]
    text = wire.get("text") or {}
    return {
        "model": wire["model"],
        "instructions": wire.get("instructions"),
        "max_output_tokens": wire.get("max_output_tokens"),
        "metadata": wire.get("metadata") or {},
        "parallel_tool_calls": wire.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **(wire.get("reasoning") or {})},
        "store": False,
        "temperature": 1.0 if wire.get("temperature") is None else wire["temperature"],
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": wire.get("tool_choice") or "auto",
        "tools": tools,
        "top_p": 1.0 if wire.get("top_p") is None else wire["top_p"],
        "truncation": "disabled",
        "user": wire.get("user"),
    }


def usage_of(usage: JSON) -> JSON:
    """Return token counts under this endpoint's names. Other keys are kept."""
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **prompt},
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": 0, **completion},
        "total_tokens": usage.get("total_tokens", 0),
        **{name: value for name, value in usage.items() if name not in _USAGE},
    }
