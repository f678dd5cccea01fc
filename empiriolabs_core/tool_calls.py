"""Read, assemble, name and write the tool calls of requests and replies."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from empiriolabs_core.errors import JSON, UnsupportedContentError, excerpt
from empiriolabs_core.surrogates import Halves

_MARKS = re.compile(r'[\\"{}\[\]]')


class Brackets:
    """Tracks the brackets and quotes of JSON text that arrives in fragments.

    Attributes:
        stack: the missing closing brackets, outermost first.
        in_string: whether the text ends inside a string.
        escaped: whether the text ends with a backslash that escapes the next character.
        closed: whether the outermost bracket was opened and closed.
    """

    __slots__ = ("closed", "escaped", "in_string", "stack")

    def __init__(self) -> None:
        self.stack: list[str] = []
        self.in_string = self.escaped = self.closed = False

    def feed(self, text: str) -> None:
        """Read the next fragment."""
        if not text:
            return
        skip = 0 if self.escaped else -1
        for match in _MARKS.finditer(text):
            mark, at = match.group(), match.start()
            if self.in_string:
                if at == skip:
                    continue
                if mark == "\\":
                    skip = at + 1
                elif mark == '"':
                    self.in_string = False
            elif mark == '"':
                self.in_string = True
            elif mark in "{[":
                self.stack.append("}" if mark == "{" else "]")
            elif self.stack and self.stack[-1] == mark:
                self.stack.pop()
                self.closed = not self.stack
        self.escaped = skip == len(text)


class ToolCall:
    """A tool call, complete or still being streamed.

    Attributes:
        position: index of the call in its message, from 0.
        id: id of the call, unique in its message; `None` until it is received.
        name: name of the tool; `None` until it is received.
        wire_id: the id that the server sent, which may not be unique.
        length: number of characters of the arguments so far.
    """

    __slots__ = ("_brackets", "_halves", "_pieces", "_unread", "id", "length", "name", "position", "wire_id")

    def __init__(self, position: int) -> None:
        self.position = position
        self.id: str | None = None
        self.name: str | None = None
        self.wire_id: str | None = None
        self.length = 0
        self._pieces: list[str] = []
        self._unread: list[str] = []
        self._halves, self._brackets = Halves(), Brackets()

    def add(self, arguments: str) -> str:
        """Add a fragment of the arguments. Returns the text to emit, which never ends with half a character."""
        shown = self._halves.join(arguments)
        if shown:
            self._pieces.append(shown)
            self._unread.append(shown)
            self.length += len(shown)
        return shown

    def end(self) -> str:
        """Return the text that was held back, when no more fragments will arrive."""
        return self.add(self._halves.rest())

    @property
    def arguments(self) -> str:
        """The JSON text of the arguments so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def brackets(self) -> Brackets:
        """The brackets of the arguments so far. Every character is read only once."""
        for piece in self._unread:
            self._brackets.feed(piece)
        self._unread.clear()
        return self._brackets


class ToolCallPiece(NamedTuple):
    """The fragment that one delta added to a call.

    Attributes:
        call: the call so far.
        id: the id of the call, in the fragment that introduces it; otherwise `None`.
        name: the name of the tool, in the fragment that introduces it; otherwise `None`.
        arguments: the fragment of JSON text.
    """

    call: ToolCall
    id: str | None
    name: str | None
    arguments: str


class ToolCalls:
    """Assembles streamed tool calls, in all formats that servers send.

    Attributes:
        calls: the calls so far, in the order in which they started.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._at: dict[Any, ToolCall] = {}
        self._by_id: dict[str, ToolCall] = {}
        self._ids: set[str] = set()
        self._named_again: ToolCall | None = None

    def add(self, deltas: Sequence[JSON]) -> list[ToolCallPiece]:
        """Read the `tool_calls` of one delta. Returns one fragment per call that the delta changes."""
        if len(deltas) == 1:
            return [piece for piece in (self._add(deltas[0], ()),) if piece is not None]
        found: dict[int, ToolCallPiece] = {}
        for delta in deltas:
            piece = self._add(delta, found)
            if piece is not None:
                before = found.get(piece.call.position)
                found[piece.call.position] = piece if before is None else _both(before, piece)
        return list(found.values())

    def finish(self) -> list[ToolCallPiece]:
        """Return the last fragments of a stream: generated ids for calls without an id, and text that was held back."""
        late = []
        for call in self.calls:
            new_id, rest = None, call.end()
            if not call.id:
                new_id = call.id = new_call_id()
            if new_id or rest:
                late.append(ToolCallPiece(call, new_id, None, rest))
        return late

    def _add(self, delta: JSON, touched: Collection[int]) -> ToolCallPiece | None:
        function = delta.get("function") or {}
        index, wire_id, name = delta.get("index"), delta.get("id"), function.get("name")
        arguments = _text(function.get("arguments"))
        call = self._at.get(index)
        if call is not None and call is self._named_again and arguments and not name:
            name = call.name
        if call is None or wire_id or name:
            call = self._find(call, index, wire_id, name, arguments, touched)
            if call is None:
                return None
            self._at[index] = call
        new_name = name if name and call.name is None else None
        if new_name:
            call.name = new_name
        new_id = self._name(call, wire_id) if wire_id and call.id is None else None
        return ToolCallPiece(call, new_id, new_name, call.add(arguments))

    def _name(self, call: ToolCall, wire_id: str) -> str:
        """Set a call's id. If the id is already used, set a different one."""
        call.wire_id = wire_id
        self._by_id[wire_id] = call
        call.id = unused_id(wire_id, self._ids)
        self._ids.add(call.id)
        return call.id

    def _find(
        self,
        known: ToolCall | None,
        index: int | None,
        wire_id: str | None,
        name: str | None,
        arguments: str,
        touched: Collection[int],
    ) -> ToolCall | None:
        """Return the call that a fragment belongs to, which may be new; `None` if the fragment is empty."""
        if known is None:
            return self._at_new_index(wire_id, name, arguments)
        if wire_id and known.wire_id and known.wire_id != wire_id:
            # The index is reused for another call, unless the server generates a new id for every fragment of a call.
            earlier = self._by_id.get(wire_id)
            if earlier is not None and not (name and earlier.brackets.closed):
                return earlier
            return self._new() if name or not arguments or known.brackets.closed else known
        if name and known.name:
            # Some servers repeat the name in every fragment. It starts a new call only if the last call is complete.
            again = index is None and not wire_id and known.position in touched
            if name != known.name or again or (arguments and known.brackets.closed):
                return self._new()
            if index is None and known.brackets.closed:
                # If arguments follow, this is another call of the tool. If not, the name is repeated at the end.
                self._named_again = known
        return known

    def _at_new_index(self, wire_id: str | None, name: str | None, arguments: str) -> ToolCall | None:
        earlier = self._by_id.get(wire_id) if wire_id else None
        if earlier is not None:
            # The index counts fragments, or two calls have the same id.
            both_empty = not arguments and not earlier.length
            return self._new() if name and (earlier.brackets.closed or both_empty) else earlier
        if wire_id or name:
            return self._new()
        if not self.calls:
            return self._new() if arguments else None
        return self.calls[-1] if arguments else None

    def _new(self) -> ToolCall:
        call = ToolCall(len(self.calls))
        self.calls.append(call)
        return call


def _both(one: ToolCallPiece, other: ToolCallPiece) -> ToolCallPiece:
    return ToolCallPiece(one.call, one.id or other.id, one.name or other.name, one.arguments + other.arguments)


def _text(arguments: Any) -> str:
    """Return arguments as JSON text. Some servers send an object instead of text."""
    if not arguments:
        return "" if arguments is None or isinstance(arguments, str) else json.dumps(arguments)
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def read_calls(wire: Iterable[JSON] | None) -> list[ToolCall]:
    """Return the calls of a complete message: one per entry, with unique ids."""
    calls: list[ToolCall] = []
    ids: set[str] = set()
    for entry in wire or ():
        function = entry.get("function") or {}
        call = ToolCall(len(calls))
        call.wire_id, call.name = entry.get("id"), function.get("name")
        call.id = unused_id(call.wire_id, ids) if call.wire_id else new_call_id()
        call.add(_text(function.get("arguments")))
        call.end()
        ids.add(call.id)
        calls.append(call)
    return calls


def new_call_id() -> str:
    """Return a new id for a tool call that was received without an id."""
    return f"call_{uuid.uuid4().hex}"


def unused_id(call_id: str, used: Collection[str]) -> str:
    """Return the id if it is unused; otherwise append the lowest number, from 2, that makes it unique."""
    if call_id not in used:
        return call_id
    number = 2
    while f"{call_id}_{number}" in used:
        number += 1
    return f"{call_id}_{number}"


INVALID_JSON, NO_NAME = "invalid_json", "no_name"
"""Reasons why a call cannot be run. For a truncated call, the reason is the finish reason of its answer."""


def unusable_calls(calls: Iterable[ToolCall], truncated: str | None) -> dict[str, JSON]:
    """Return the calls of a complete answer that must not be run.

    Args:
        calls: the calls of the answer.
        truncated: why the answer was truncated, such as `"length"`; `None` if it was not.

    Returns:
        A dictionary from call ids to `args`, the arguments' text as received, and `reason`: the value of `truncated`,
        `"invalid_json"` or `"no_name"`.
    """
    found: dict[str, JSON] = {}
    for call in calls:
        text = call.arguments
        if not text.strip():
            reason = truncated
        else:
            reason = None if read_arguments(text) is not None else truncated or INVALID_JSON
        if reason is None and not call.name:
            reason = NO_NAME
        if reason is not None:
            found[call.id or ""] = {"args": text, "reason": reason}
    return found


def why_unusable(reason: str, arguments: str) -> str:
    """Return the end of a sentence that starts with "The call was not run: "."""
    if reason == NO_NAME:
        return "it has no name"
    if reason == INVALID_JSON:
        return f"its arguments are not a JSON object: {excerpt(arguments)!r}"
    return f"it was truncated (finish_reason {reason!r}), its arguments are {excerpt(arguments)!r}"


def read_arguments(text: str | None) -> JSON | None:
    """Parse the arguments of a call. Returns `None` if they are not a JSON object. Empty text and `null` mean `{}`."""
    try:
        # Models write raw line breaks into JSON strings; strict JSON forbids them.
        value = json.loads(text if text and text.strip() else "{}", strict=False)
    except (json.JSONDecodeError, RecursionError):
        return None
    return {} if value is None else value if isinstance(value, dict) else None


def write_call(call_id: str | None, name: str | None, arguments: Any) -> JSON:
    """Return a tool call in wire format.

    Args:
        call_id: the id of the call.
        name: the name of the tool.
        arguments: an object, or the JSON text as the model wrote it.

    Raises:
        UnsupportedContentError: if the arguments cannot be serialised as JSON.
    """
    text = arguments if isinstance(arguments, str) else write_arguments(arguments, name or "")
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def write_arguments(arguments: Any, tool: str) -> str:
    """Return the arguments of a tool call as JSON text, in wire format.

    Raises:
        UnsupportedContentError: if the arguments cannot be serialised as JSON.
    """
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UnsupportedContentError(
            f"The arguments of the call of {tool!r} cannot be sent: {error}. They are: {excerpt(repr(arguments))}."
        ) from error


def known_id(call_id: Any, of: str) -> str:
    """Return the id of a call or result. Another adapter may have omitted it, but only ids match results to calls.

    Raises:
        UnsupportedContentError: if the id is missing.
    """
    if not isinstance(call_id, str):
        raise UnsupportedContentError(
            f"{of} has no tool_call_id, so call and result cannot be matched. Set one id on both, such as 'call_1'."
        )
    return call_id


class Leftover(dict[str, Any]):
    """A call that exists only as a content block of a message. It is sent only if it has a result."""


_HOLDERS = ("function", "toolUse", "function_call", "functionCall")
_IDS = ("call_id", "toolUseId", "tool_call_id", "tool_use_id", "tool_id", "id")
_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "input", "args", "parameters", "tool_kwargs")


def read_stored_call(entry: Any) -> JSON:
    """Convert a call that another adapter stored to wire format.

    Supports the formats of OpenAI (both endpoints), Anthropic, Bedrock, Google, Ollama, Mistral and Cohere:
    dictionaries, or objects with the same attributes.

    Raises:
        UnsupportedContentError: if the entry has another format.
    """
    holder = next((inner for key in _HOLDERS if (inner := _get(entry, key)) is not None), entry)
    call_id = next((found for one in (entry, holder) for key in _IDS if (found := _get(one, key))), None)
    name = next((found for key in _NAMES if isinstance(found := _get(holder, key), str)), None)
    key = next((key for key in _ARGUMENTS if _has(holder, key)), None)
    if name is None or key is None:
        raise UnsupportedContentError(
            f"A stored tool call cannot be sent: {excerpt(repr(entry))}. Set its id, name and arguments."
        )
    arguments = _get(holder, key)
    if isinstance(arguments, Mapping) or arguments is None:
        arguments = dict(arguments or {})
    return write_call(call_id, name, arguments)


def _get(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)


def _has(holder: Any, key: str) -> bool:
    return key in holder if isinstance(holder, Mapping) else hasattr(holder, key)


def settle_calls(messages: Sequence[JSON]) -> list[JSON]:
    """Return wire messages whose calls upstreams accept. The given dictionaries are not changed.

    - Ids become unique in the conversation. The first call with an id keeps it. Later calls get a new id, as do the
      results that directly follow them.
    - Invalid tool names, which models invent, are replaced by valid names.
    - A call that cannot be run and has no result directly after it becomes text, since it would be rejected.
    - A call that exists only as a content block is omitted if no result directly follows it.

    Raises:
        UnsupportedContentError: if a call has no id.
    """
    ids = {call["id"] for message in messages for call in message.get("tool_calls") or () if call["id"]}
    used: set[str] = set()
    renamed: dict[str, list[str]] = {}
    settled = []
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            settled.append(_renamed(message, renamed))
            continue
        renamed = {}
        if message["role"] == "assistant" and message.get("tool_calls"):
            message = _settled(message, _answered(messages, number))
            if message.get("tool_calls"):
                message = {**message, "tool_calls": [_unique(c, ids, used, renamed) for c in message["tool_calls"]]}
        settled.append(message)
    return settled


def _answered(messages: Sequence[JSON], number: int) -> set[str]:
    """Return the call ids of the results that directly follow a message."""
    answered = set()
    for message in messages[number + 1 :]:
        if message["role"] != "tool":
            break
        answered.add(message["tool_call_id"])
    return answered


def _settled(message: JSON, answered: set[str]) -> JSON:
    """Return an assistant turn without calls that cannot be sent as calls."""
    kept, lines = [], [message["content"] or ""]
    for call in message["tool_calls"]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if call["id"] in answered:
            kept.append(call)
        elif isinstance(call, Leftover):
            continue
        elif not name or not arguments.strip() or read_arguments(arguments) is None:
            lines.append(f"[A call of {name or 'a tool without a name'} was truncated: {arguments}]")
        else:
            known_id(call["id"], f"The call of the tool {name!r}")
            kept.append(call)
    turn = {key: value for key, value in message.items() if key != "tool_calls"}
    turn["content"] = "\n".join(lines).lstrip() if len(lines) > 1 else lines[0]
    return {**turn, "content": turn["content"] or None, "tool_calls": kept} if kept else turn


def _unique(call: JSON, ids: set[str], used: set[str], renamed: dict[str, list[str]]) -> JSON:
    """Return a call with a valid name and an id that no earlier call has. Records the id for its results."""
    call_id = call["id"]
    new_id = unused_id(call_id, ids) if call_id in used else call_id
    used.add(new_id)
    ids.add(new_id)
    renamed.setdefault(call_id, []).append(new_id)
    name = call["function"]["name"]
    return {**call, "id": new_id, "function": {**call["function"], "name": plain_name(name) if name else "unknown"}}


def _renamed(result: JSON, renamed: dict[str, list[str]]) -> JSON:
    """Return a result with the id of its call. If several calls share an id, results are matched in order."""
    new_ids = renamed.get(result["tool_call_id"])
    if not new_ids:
        return result
    new_id = new_ids.pop(0) if len(new_ids) > 1 else new_ids[0]
    return result if new_id == result["tool_call_id"] else {**result, "tool_call_id": new_id}


def plain_name(name: str) -> str:
    """Return a name with only the characters that are allowed in names of tools and schemas. (OpenAI, DeepSeek)"""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "response"
