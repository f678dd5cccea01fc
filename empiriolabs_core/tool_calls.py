"""Tool calls on the wire: reading, assembling, naming and writing them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from empiriolabs_core.errors import JSON, UnsupportedContentError, excerpt


@dataclass
class ToolCall:
    """A tool call that is being streamed.

    Attributes:
        position: its place among the calls, from 0.
        id: its id, once it has come.
        name: the tool's name, once it has come.
        arguments: the JSON text so far.
    """

    position: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ToolCallPiece(NamedTuple):
    """What one delta added to a call.

    Attributes:
        call: the call so far.
        id: the call's id, only where it is new.
        name: the tool's name, only where it is new.
        arguments: the piece of JSON text.
    """

    call: ToolCall
    id: str | None
    name: str | None
    arguments: str


class ToolCalls:
    """Puts streamed tool calls together, in every shape that servers send.

    Calls are told apart by `index`, and by `id` where a server reuses an index. A name or id that is
    repeated on every delta is taken once; a null name and a missing `function` are tolerated. A call without
    an id gets one from `add_ids`. `calls` is the list so far, in order of first appearance.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._by_index: dict[int | None, ToolCall] = {}
        self._by_id: dict[tuple[int | None, str], ToolCall] = {}

    def add(self, deltas: list[JSON]) -> Iterator[ToolCallPiece]:
        """Take the `tool_calls` of one delta; yield what each entry added."""
        for delta in deltas:
            function = delta.get("function") or {}
            call = self._find(delta.get("index"), delta.get("id"))
            new_id = delta.get("id") if call.id is None else None
            new_name = function.get("name") if call.name is None else None
            arguments = function.get("arguments") or ""
            if new_id:
                call.id = new_id
                self._by_id[delta.get("index"), new_id] = call
            if new_name:
                call.name = new_name
            if arguments:
                call.arguments += arguments
            yield ToolCallPiece(call, new_id or None, new_name or None, arguments)

    def add_ids(self) -> list[ToolCall]:
        """Give an id to each call that came without; return those calls. Frameworks match results by it."""
        without = [call for call in self.calls if not call.id]
        for call in without:
            call.id = new_call_id()
        return without

    def _find(self, index: int | None, call_id: str | None) -> ToolCall:
        call = self._by_index.get(index)
        if call is not None and call_id and call.id and call.id != call_id:
            call = self._by_id.get((index, call_id))
        if call is None:
            call = ToolCall(position=len(self.calls))
            self.calls.append(call)
        self._by_index[index] = call
        return call


def new_call_id() -> str:
    """Return an id for a tool call that came without one."""
    return f"call_{uuid.uuid4().hex}"


def read_arguments(text: str | None) -> JSON | None:
    """Return the arguments of a tool call; `None` if they are no JSON object. No text and `null` are no arguments."""
    try:
        # Models write raw line breaks into JSON strings; strict JSON forbids them.
        value = json.loads(text or "{}", strict=False)
    except json.JSONDecodeError:
        return None
    return {} if value is None else value if isinstance(value, dict) else None


def write_arguments(arguments: Any, tool: str) -> str:
    """Return the arguments of a tool call as the JSON text that is sent.

    Raises:
        UnsupportedContentError: there is no JSON for them.
    """
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UnsupportedContentError(
            f"The arguments of the call of {tool!r} cannot be sent: {error}. They are: {excerpt(repr(arguments))}."
        ) from error


def plain_name(name: str) -> str:
    """Return a name with only such characters as a tool or schema may have in its name. (OpenAI, DeepSeek)"""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "response"
