"""Translate to and from OpenAI's Responses format, for `POST /v1/responses`.

Every request contains the complete conversation, without `previous_response_id`. `store: false` is sent unless the
user sets `store`: without it, OpenAI stores conversations, which chat completions does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from empiriolabs_core.endpoints.shared import (
    CHAT_ONLY,
    call,
    check_messages,
    completion,
    head,
    merged,
    response_format,
    same_fields,
    split_system,
    system_text,
    tool_function,
    unsupported_part,
)
from empiriolabs_core.errors import JSON, InvalidReplyError, ReportedError, excerpt, readable
from empiriolabs_core.replies import check_error, read_reasoning, read_text

NAME = "responses"
PATH = "/responses"
HEADERS: dict[str, str] = {}

_MISSING = CHAT_ONLY | {"stop"}
_TRANSLATED = frozenset(
    {
        "include",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "reasoning_effort",
        "response_format",
        "stream_options",
        "tool_choice",
        "tools",
        "top_logprobs",
        "verbosity",
    }
)
_LOGPROBS = "message.output_text.logprobs"
_HEAD = {"id": "id", "created_at": "created", "model": "model", "service_tier": "service_tier"}


def write_body(body: JSON) -> JSON:
    """Translate a request body from the internal form.

    Raises:
        SettingsError: if a field or a message cannot be expressed on this endpoint.
    """
    check_messages(body["messages"], NAME)
    same = same_fields(body, _TRANSLATED, _MISSING, NAME)
    wire: JSON = {"model": same.pop("model"), **_conversation(body["messages"])}
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if limit is not None:
        wire["max_output_tokens"] = limit
    wire.update(_tools(body))
    wire.update(_output(body))
    effort = body.get("reasoning_effort")
    if effort == "none":
        same.setdefault("enable_thinking", False)
    elif effort is not None:
        wire["reasoning"] = {"effort": effort}
    same.setdefault("store", False)
    return merged(wire, same, NAME)


def _conversation(messages: list[JSON]) -> JSON:
    leading, rest = split_system(messages)
    if not rest:
        # `input` is required and must not be empty.
        return {"input": [item for n, message in enumerate(leading) for item in _items(message, n)]}
    wire: JSON = {}
    instructions = system_text(leading, NAME)
    if instructions:
        wire["instructions"] = instructions
    wire["input"] = [item for n, message in enumerate(rest) for item in _items(message, n)]
    return wire


def _items(message: JSON, number: int) -> list[JSON]:
    match message["role"]:
        case "system" | "developer":
            # DeepSeek treats the role `developer` as `user`.
            return [{"type": "message", "role": "system", "content": system_text([message], NAME)}]
        case "user":
            return [{"type": "message", "role": "user", "content": _content(message["content"])}]
        case "tool":
            output = _content(message["content"])
            return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": output}]
        case _:
            return _assistant(message, number)


def _assistant(message: JSON, number: int) -> list[JSON]:
    """Return the items of an assistant turn: reasoning, then message, then calls.

    Servers reject any other order. Ids are derived from the position, so that equal conversations result in equal
    bodies.
    """
    reasoning, text, calls = read_reasoning(message), read_text(message), message.get("tool_calls") or []
    items: list[JSON] = []
    if reasoning is not None:
        thought = [{"type": "reasoning_text", "text": reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{number}", "summary": [], "content": thought})
    if text or not calls:
        # A reasoning item must be followed by a message or a call, so an empty message is sent too.
        said = [{"type": "output_text", "text": text, "annotations": []}]
        item = {"type": "message", "role": "assistant", "id": f"msg_{number}", "status": "completed", "content": said}
        items.append(item)
    for made in calls:
        function = made["function"]
        items.append(
            {
                "type": "function_call",
                "call_id": made["id"],
                "name": function["name"],
                "arguments": function["arguments"],
                "status": "completed",
            }
        )
    return items


def _content(content: Any) -> str | list[JSON]:
    return content or "" if isinstance(content, str) or not content else [_part(part) for part in content]


def _part(part: JSON) -> JSON:
    match part.get("type"):
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            image = part["image_url"]
            detail = image.get("detail") or "auto"
            return {"type": "input_image", "image_url": image["url"], "detail": detail}
        case "file":
            file = dict(part["file"])
            if str(file.get("file_data") or "").startswith(("http://", "https://")):
                file["file_url"] = file.pop("file_data")
            return {"type": "input_file", **{name: value for name, value in file.items() if value is not None}}
        case _:
            raise unsupported_part(part, NAME)


def _tools(body: JSON) -> JSON:
    wire: JSON = {}
    if body.get("tools"):
        wire["tools"] = [_tool(tool) for tool in body["tools"]]
    choice = body.get("tool_choice")
    if choice is not None:
        wire["tool_choice"] = _tool_choice(choice)
    return wire


def _tool(tool: JSON) -> JSON:
    function = tool_function(tool, NAME)
    if function is None:
        return tool
    # A tool without `strict` is strict on this endpoint, and strict schemas have no optional parameters. (OpenAI)
    return {
        "type": "function",
        **function,
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": function.get("strict") or False,
    }


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    if "function" in choice:
        return {"type": "function", "name": choice["function"]["name"]}
    if "allowed_tools" in choice:
        allowed = choice["allowed_tools"]
        return {"type": "allowed_tools", **allowed, "tools": [_tool_choice(tool) for tool in allowed["tools"]]}
    return dict(choice)


def _output(body: JSON) -> JSON:
    """Return the fields that set the format of the answer."""
    text: JSON = {}
    wanted = response_format(body)
    if wanted is not None:
        text["format"] = {"type": wanted["type"], **(wanted.get("json_schema") or {})}
    if body.get("verbosity") is not None:
        text["verbosity"] = body["verbosity"]
    wire: JSON = {"text": text} if text else {}
    include = list(body.get("include") or ())
    if body.get("logprobs") or body.get("top_logprobs"):
        include.append(_LOGPROBS)
        if body.get("top_logprobs") is not None:
            wire["top_logprobs"] = body["top_logprobs"]
    if include:
        wire["include"] = include
    return wire


def read_usage(usage: Any) -> Any:
    """Return token counts in the internal form. Counts under unknown names are kept."""
    if not isinstance(usage, Mapping) or "prompt_tokens" in usage:
        return usage
    names = {
        "input_tokens": "prompt_tokens",
        "output_tokens": "completion_tokens",
        "input_tokens_details": "prompt_tokens_details",
        "output_tokens_details": "completion_tokens_details",
    }
    return {names.get(name, name): count for name, count in usage.items() if count is not None}


def read_reply(reply: JSON) -> JSON:
    """Translate a complete reply to the internal form.

    Raises:
        ReportedError: if the response failed.
        InvalidReplyError: if the reply is not a finished response.
    """
    output, status = reply.get("output"), reply.get("status")
    check_error(reply)
    if status in ("failed", "cancelled"):
        raise ReportedError(f"The gateway returned a response with status {status!r}.", {"code": status})
    if not isinstance(output, list) or status in ("queued", "in_progress"):
        raise InvalidReplyError(f"The gateway returned 200, but no finished response: {excerpt(reply)}. Retry.")
    message = _Message()
    for item in output:
        message.add(item)
    usage = read_usage(reply.get("usage"))
    wire, logprobs = message.wire(), {"content": message.logprobs} if message.logprobs else None
    return completion(head(reply, _HEAD), wire, _finish_reason(reply, bool(message.calls)), usage, logprobs)


def _finish_reason(response: Mapping[str, Any], called: bool) -> str:
    reason = (response.get("incomplete_details") or {}).get("reason")
    if reason == "content_filter":
        return "content_filter"
    if reason or response.get("status") == "incomplete":
        return "length"
    return "tool_calls" if called else "stop"


class _Message:
    """Collects the output items of a complete reply."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[JSON] = []
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []
        self.others: list[JSON] = []

    def add(self, item: JSON) -> None:
        """Add an output item."""
        match item.get("type"):
            case "message":
                self.texts.append(_text(item, "text"))
                self.refusals.append(_text(item, "refusal"))
                self.annotations += _of_parts(item, "annotations")
                self.logprobs += _of_parts(item, "logprobs")
            case "reasoning":
                self.reasoning.append(_reasoning(item))
            case "function_call":
                arguments = item.get("arguments") or ""
                self.calls.append(call(_call_id(item), item.get("name"), arguments))
            case _:
                self.others.append(item)

    def wire(self) -> JSON:
        """Return the message in the internal form."""
        text = "".join(self.texts)
        message: JSON = {"role": "assistant", "content": text or None if self.calls else text}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        named = {
            "refusal": "".join(self.refusals),
            "tool_calls": self.calls,
            "annotations": self.annotations,
            "other_items": self.others,
        }
        message.update({name: found for name, found in named.items() if found})
        return message


def _call_id(item: Mapping[str, Any]) -> Any:
    return item.get("call_id") or item.get("id")


def _text(item: Mapping[str, Any], name: str) -> str:
    """Return the text or the refusal of a message item."""
    return "".join(part.get(name) or "" for part in item.get("content") or ())


def _reasoning(item: Mapping[str, Any]) -> str:
    """Return the text of a reasoning item: the reasoning, or its summary if there is no reasoning."""
    content = "".join(part.get("text") or "" for part in item.get("content") or ())
    return content or "\n\n".join(part.get("text") or "" for part in item.get("summary") or ())


def _of_parts(item: Mapping[str, Any], name: str) -> list[Any]:
    return [entry for part in item.get("content") or () for entry in part.get(name) or ()]


class _Item:
    """State of an output item of a stream.

    Attributes:
        index: index of the call; `None` if the item is not a call.
        begun: whether text, reasoning or arguments of the item were emitted.
        source: the type of event from which its reasoning is read.
        annotated: whether annotations were emitted.
        arguments: the fragments of arguments that were emitted.
    """

    __slots__ = ("annotated", "arguments", "begun", "index", "source")

    def __init__(self, index: int | None = None) -> None:
        self.index = index
        self.begun = False
        self.source: str | None = None
        self.annotated = False
        self.arguments: list[str] = []


class StreamReader:
    """Reads the events of one stream.

    Items are looked up by `output_index`, or by id if it is missing. A fragment of arguments that matches no call
    belongs to the call that started last.
    """

    def __init__(self) -> None:
        self._head: JSON = {}
        self._items: dict[Any, _Item] = {}
        self._last_call: _Item | None = None
        self._call_ids: set[Any] = set()
        self._begun = False

    @readable
    def read(self, event: Any) -> JSON | None:
        """Convert an event to a chunk; `None` if the event adds nothing."""
        read = _EVENTS.get(event.get("type"))
        if read is None:
            if "error" in event:
                check_error(event)
            return None
        return read(self, event)

    def _chunk(self, delta: JSON) -> JSON:
        self._begun = True
        return {**self._head, "choices": [{"index": 0, "delta": delta}]}

    def _item(self, event: Mapping[str, Any]) -> _Item:
        """Return the item that an event belongs to."""
        found = self._items.get(event.get("output_index"))
        if found is None:
            found = self._items.get(event.get("item_id"))
            if found is None:
                found = self._add_item(event, event.get("item_id"), _Item())
        return found

    def _add_item(self, event: Mapping[str, Any], item_id: Any, item: _Item) -> _Item:
        for key in (event.get("output_index"), item_id):
            if key is not None:
                self._items[key] = item
        return item

    def _created(self, event: JSON) -> None:
        self._head = {**head(event["response"], _HEAD), "object": "chat.completion.chunk"}

    def _text_delta(self, event: JSON) -> JSON:
        self._item(event).begun = True
        chunk = self._chunk({"content": event["delta"]})
        if event.get("logprobs"):
            chunk["choices"][0]["logprobs"] = {"content": event["logprobs"]}
        return chunk

    def _refusal_delta(self, event: JSON) -> JSON:
        self._item(event).begun = True
        return self._chunk({"refusal": event["delta"]})

    def _reasoning_delta(self, event: JSON) -> JSON | None:
        item, source = self._item(event), event["type"]
        if item.source is None:
            item.source = source
        elif item.source != source:
            return None
        item.begun = True
        return self._chunk({"reasoning_content": event["delta"]})

    def _summary_part(self, event: JSON) -> JSON | None:
        item = self._item(event)
        return self._chunk({"reasoning_content": "\n\n"}) if item.begun and item.source == _SUMMARY else None

    def _annotation(self, event: JSON) -> JSON:
        self._item(event).annotated = True
        return self._chunk({"annotations": [event["annotation"]]})

    def _item_added(self, event: JSON) -> JSON | None:
        item = event["item"]
        if item.get("type") != "function_call":
            self._add_item(event, item.get("id"), _Item())
            return None
        return self._begin_call(event, item)

    def _begin_call(self, event: JSON, item: JSON) -> JSON:
        begun = _Item(len(self._call_ids))
        self._last_call = self._add_item(event, item.get("id"), begun)
        call_id = _call_id(item)
        # A call without an id counts too.
        self._call_ids.add(begun if call_id is None else call_id)
        # Arguments that are already present are sent again, in fragments or complete.
        return self._chunk({"tool_calls": [{"index": begun.index, **call(call_id, item.get("name"), "")}]})

    def _call_of(self, event: Mapping[str, Any]) -> _Item | None:
        """Return the call that an event refers to; `None` if the call is unknown."""
        for key in (event.get("output_index"), event.get("item_id")):
            found = self._items.get(key)
            if found is not None and found.index is not None:
                return found
        return None

    def _arguments_delta(self, event: JSON) -> JSON | None:
        item, piece = self._call_of(event) or self._last_call, event["delta"]
        if item is None or not piece:
            return None
        item.arguments.append(piece)
        return self._arguments(item, piece)

    def _arguments(self, item: _Item, piece: str) -> JSON:
        return self._chunk({"tool_calls": [{"index": item.index, "function": {"arguments": piece}}]})

    def _arguments_done(self, event: JSON) -> JSON | None:
        item = self._call_of(event) or self._last_call
        return None if item is None else self._rest(item, event.get("arguments"))

    def _rest(self, item: _Item, whole: Any) -> JSON | None:
        """Return the arguments that were not emitted yet.

        Final arguments that do not continue the emitted fragments are ignored: fragments cannot be withdrawn.
        """
        sent = "".join(item.arguments)
        if not isinstance(whole, str) or len(whole) <= len(sent) or not whole.startswith(sent):
            return None
        item.arguments = [whole]
        return self._arguments(item, whole[len(sent) :])

    def _item_done(self, event: JSON) -> JSON | None:
        whole = event["item"]
        kind = whole.get("type")
        if kind == "function_call":
            return self._call_done(event, whole)
        item = self._item({**event, "item_id": whole.get("id")})
        if kind == "reasoning":
            text = "" if item.begun else _reasoning(whole)
            return self._chunk({"reasoning_content": text}) if text else None
        if kind == "message":
            return self._message_done(item, whole)
        return self._chunk({"other_items": [whole]})

    def _call_done(self, event: JSON, whole: JSON) -> JSON | None:
        item = self._call_of({**event, "item_id": whole.get("id")})
        if item is None and not self._is_new(whole):
            item = self._last_call
        return self._whole_call(event, whole) if item is None else self._rest(item, whole.get("arguments"))

    def _is_new(self, whole: JSON) -> bool:
        """Return whether no event announced a call. A call without an id is new only if there is no other call."""
        call_id = _call_id(whole)
        return not self._call_ids if call_id is None else call_id not in self._call_ids

    def _whole_call(self, event: JSON, whole: JSON) -> JSON:
        """Return the chunk for a call that was not announced by an event."""
        chunk = self._begin_call(event, whole)
        arguments = whole.get("arguments") or ""
        chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] = arguments
        if self._last_call is not None:
            self._last_call.arguments.append(arguments)
        return chunk

    def _message_done(self, item: _Item, whole: JSON) -> JSON | None:
        named = {
            "content": "" if item.begun else _text(whole, "text"),
            "refusal": "" if item.begun else _text(whole, "refusal"),
            "annotations": [] if item.annotated else _of_parts(whole, "annotations"),
        }
        delta = {name: found for name, found in named.items() if found}
        return self._chunk(delta) if delta else None

    def _finished(self, event: JSON) -> JSON:
        response = event["response"]
        self._head = {**self._head, **head(response, _HEAD)}
        delta: JSON = {} if self._begun else self._unstreamed(response)
        late = [i for i in response.get("output") or () if i.get("type") == "function_call" and self._is_new(i)]
        calls = [self._whole_call({}, item)["choices"][0]["delta"]["tool_calls"][0] for item in late]
        if calls:
            delta["tool_calls"] = calls
        chunk = self._chunk(delta)
        chunk["choices"][0]["finish_reason"] = _finish_reason(response, bool(self._call_ids))
        if response.get("usage"):
            chunk["usage"] = read_usage(response["usage"])
        return chunk

    def _unstreamed(self, response: JSON) -> JSON:
        """Return the content of a response if none of it was streamed. The caller adds the tool calls."""
        message = _Message()
        for item in response.get("output") or ():
            message.add(item)
        return {name: found for name, found in message.wire().items() if found and name not in ("role", "tool_calls")}

    def _failed(self, event: JSON) -> JSON:
        """Return a chunk with the error and the tokens that were used."""
        response = event["response"]
        error = response.get("error") or {"code": "failed", "message": "The response failed."}
        return {**self._head, "choices": [], "error": error, "usage": read_usage(response.get("usage"))}

    def _error(self, event: JSON) -> JSON:
        error = event.get("error") or {name: event.get(name) for name in ("code", "message", "param")}
        return {**self._head, "choices": [], "error": error}


_SUMMARY = "response.reasoning_summary_text.delta"
_EVENTS: dict[Any, Callable[[StreamReader, JSON], JSON | None]] = {
    "response.created": StreamReader._created,
    "response.output_text.delta": StreamReader._text_delta,
    "response.refusal.delta": StreamReader._refusal_delta,
    "response.reasoning_text.delta": StreamReader._reasoning_delta,
    _SUMMARY: StreamReader._reasoning_delta,
    "response.reasoning_summary_part.added": StreamReader._summary_part,
    "response.output_text.annotation.added": StreamReader._annotation,
    "response.output_item.added": StreamReader._item_added,
    "response.function_call_arguments.delta": StreamReader._arguments_delta,
    "response.function_call_arguments.done": StreamReader._arguments_done,
    "response.output_item.done": StreamReader._item_done,
    "response.completed": StreamReader._finished,
    "response.incomplete": StreamReader._finished,
    "response.failed": StreamReader._failed,
    "error": StreamReader._error,
}
"""Handlers by event type. Events of other types are ignored."""
