"""Translate to and from Anthropic's Messages format, for `POST /v1/messages`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from empiriolabs_core.catalog.cards import card
from empiriolabs_core.endpoints.shared import (
    CHAT_ONLY,
    call,
    check_messages,
    completion,
    head,
    merged,
    parts,
    response_format,
    same_fields,
    system_text,
    tool_function,
    unsupported_part,
)
from empiriolabs_core.errors import JSON, InvalidReplyError, SettingsError, excerpt, readable
from empiriolabs_core.replies import check_error, read_reasoning, read_text
from empiriolabs_core.tool_calls import read_arguments

NAME = "messages"
PATH = "/messages"
HEADERS = {"anthropic-version": "2023-06-01"}

DEFAULT_MAX_TOKENS = 4096
"""`max_tokens` for a model without a card: the gateway default on chat completions. The field is required here."""

_MISSING = CHAT_ONLY | {
    "logprobs",
    "metadata",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "top_logprobs",
    "verbosity",
}
_TRANSLATED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "stop",
        "stream_options",
        "tool_choice",
        "tools",
        "user",
    }
)
_HEAD = {"id": "id", "model": "model"}
_JSON_OBJECT = "Answer with one JSON object and nothing else."
_CHOICES = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}
_ORDER = {"thinking": 0, "tool_result": 0, "tool_use": 2}
"""Order of blocks: in an assistant turn, thinking is first and calls are last; in a user turn, results are first."""

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Maps `stop_reason` values to finish reasons of the internal form. Unknown values are kept."""


def write_body(body: JSON) -> JSON:
    """Translate a request body from the internal form.

    Raises:
        SettingsError: if a field or a message cannot be expressed on this endpoint.
    """
    check_messages(body["messages"], NAME)
    same = same_fields(body, _TRANSLATED, _MISSING, NAME)
    wanted = response_format(body)
    wire: JSON = {"model": same.pop("model"), "max_tokens": _limit(body)}
    system = system_text([m for m in body["messages"] if m["role"] in ("system", "developer")], NAME)
    if wanted is not None and wanted["type"] == "json_object":
        system = f"{system}\n\n{_JSON_OBJECT}".lstrip()
    if system:
        wire["system"] = system
    wire["messages"] = _turns(body["messages"])
    wire.update(_tools(body))
    output = _output(body, wanted)
    if output:
        wire["output_config"] = output
    if body.get("reasoning_effort") == "none":
        same.setdefault("enable_thinking", False)
    if body.get("stop") is not None:
        wire["stop_sequences"] = [body["stop"]] if isinstance(body["stop"], str) else list(body["stop"])
    if body.get("user") is not None:
        wire["metadata"] = {"user_id": body["user"]}
    return merged(wire, same, NAME)


def _limit(body: JSON) -> Any:
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if limit is not None:
        return limit
    known = card(body["model"])
    listed = [parameter.default for parameter in known.parameters if parameter.name == "max_tokens"] if known else []
    return next((default for default in listed if default), DEFAULT_MAX_TOKENS)


def _turns(messages: Sequence[JSON]) -> list[JSON]:
    """Return the turns of a conversation. Roles must alternate, so adjacent turns of the same role are joined.

    Empty turns are left out, since servers reject them.

    Raises:
        SettingsError: if no turn is left to send.
    """
    turns: list[JSON] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _assistant(message) if role == "assistant" else _user(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise SettingsError(
            f"endpoint={NAME!r} requires at least one user or assistant message that is not empty. Add one."
        )
    return [{**turn, "content": _ordered(turn["content"])} for turn in turns]


def _ordered(blocks: list[JSON]) -> str | list[JSON]:
    if len(blocks) == 1 and blocks[0]["type"] == "text":
        return str(blocks[0]["text"])
    return sorted(blocks, key=lambda block: _ORDER.get(block["type"], 1))


def _user(message: JSON) -> list[JSON]:
    blocks = [_block(part) for part in parts(message["content"]) if part.get("type") != "text" or part["text"]]
    if message["role"] == "user":
        return blocks
    content = _ordered(blocks) if blocks else ""
    return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}]


def _assistant(message: JSON) -> list[JSON]:
    reasoning, text, calls = read_reasoning(message), read_text(message), message.get("tool_calls") or []
    if not text and not calls:
        # A turn that contains only thinking is rejected. (Anthropic)
        return []
    blocks: list[JSON] = []
    if reasoning is not None:
        # The gateway translates to chat completions and back, which loses signatures. An empty signature is safe.
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks + [_tool_use(made) for made in calls]


def _tool_use(made: JSON) -> JSON:
    function = made["function"]
    arguments = read_arguments(function["arguments"])
    if arguments is None:
        arguments = {"invalid_json": function["arguments"]}
    return {"type": "tool_use", "id": made["id"], "name": function["name"], "input": arguments}


def _block(part: JSON) -> JSON:
    match part.get("type"):
        case "text":
            return {"type": "text", "text": part["text"]}
        case "image_url":
            return {"type": "image", "source": _source(part["image_url"]["url"])}
        case "file" if part["file"].get("file_data"):
            file = part["file"]
            title = {"title": file["filename"]} if file.get("filename") else {}
            return {"type": "document", "source": _source(file["file_data"]), **title}
        case _:
            raise unsupported_part(part, NAME)


def _source(url: str) -> JSON:
    """Return the source of an image or document: base64 for a data URL, any other URL unchanged."""
    kind, comma, data = url.partition(";base64,")
    if comma and kind.startswith("data:"):
        return {"type": "base64", "media_type": kind.removeprefix("data:"), "data": data}
    return {"type": "url", "url": url}


def _tools(body: JSON) -> JSON:
    if not body.get("tools"):
        return {}
    wire: JSON = {"tools": [_tool(tool) for tool in body["tools"]]}
    choice = _tool_choice(body.get("tool_choice"))
    if body.get("parallel_tool_calls") is False and choice != _CHOICES["none"]:
        choice = {**(choice or _CHOICES["auto"]), "disable_parallel_tool_use": True}
    return wire if choice is None else {**wire, "tool_choice": choice}


def _tool(tool: JSON) -> JSON:
    function = tool_function(tool, NAME)
    if function is None:
        return tool
    wire = {name: function[name] for name in ("name", "description", "strict") if function.get(name) is not None}
    wire["input_schema"] = {"type": "object", **(function.get("parameters") or {"properties": {}})}
    return wire


def _tool_choice(choice: Any) -> JSON | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _CHOICES:
        return _CHOICES[choice]
    if isinstance(choice, Mapping) and "function" in choice:
        return {"type": "tool", "name": choice["function"]["name"]}
    raise SettingsError(
        f"endpoint={NAME!r} does not support tool_choice={excerpt(choice)}. Use 'auto', 'none', 'required' or the name "
        "of one tool."
    )


def _output(body: JSON, wanted: Mapping[str, Any] | None) -> JSON:
    output: JSON = {}
    if wanted is not None and wanted["type"] == "json_schema":
        output["format"] = {"type": "json_schema", "schema": (wanted.get("json_schema") or {}).get("schema")}
    effort = body.get("reasoning_effort")
    if effort not in (None, "none"):
        output["effort"] = effort
    return output


_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def read_usage(usage: Any) -> Any:
    """Return token counts in the internal form. Counts under unknown names are kept.

    `input_tokens` excludes tokens that were read from the cache or written to it. (Anthropic)
    """
    if not isinstance(usage, Mapping) or "prompt_tokens" in usage:
        return usage
    used = {*_COUNTS, "output_tokens", "output_tokens_details"}
    out = {name: count for name, count in usage.items() if name not in used and count is not None}
    prompt = [usage[name] for name in _COUNTS if isinstance(usage.get(name), int)]
    if prompt:
        out["prompt_tokens"] = sum(prompt)
    if isinstance(usage.get("output_tokens"), int):
        out["completion_tokens"] = usage["output_tokens"]
        if prompt:
            out["total_tokens"] = out["prompt_tokens"] + out["completion_tokens"]
    if usage.get("cache_read_input_tokens") is not None:
        out["prompt_tokens_details"] = {"cached_tokens": usage["cache_read_input_tokens"]}
    details = usage.get("output_tokens_details")
    if isinstance(details, Mapping) and details.get("thinking_tokens") is not None:
        out["completion_tokens_details"] = {"reasoning_tokens": details["thinking_tokens"]}
    return out


def read_reply(reply: JSON) -> JSON:
    """Translate a complete reply to the internal form.

    Raises:
        InvalidReplyError: if the reply is not a message.
    """
    check_error(reply)
    blocks = reply.get("content")
    if not isinstance(blocks, list):
        raise InvalidReplyError(f"The gateway returned 200, but no message: {excerpt(reply)}. Retry.")
    calls = [
        call(block.get("id"), block.get("name"), _arguments(block.get("input")))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    text = "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")
    message: JSON = {"role": "assistant", "content": text or None if calls else text}
    thoughts = [block.get("thinking") or "" for block in blocks if block.get("type") == "thinking"]
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    named = {
        "tool_calls": calls,
        "citations": [entry for block in blocks for entry in block.get("citations") or ()],
        "other_items": [block for block in blocks if block.get("type") not in ("text", "thinking", "tool_use")],
        "stop_sequence": reply.get("stop_sequence"),
    }
    message.update({name: found for name, found in named.items() if found})
    reason = _finish_reason(reply.get("stop_reason"), bool(calls))
    return completion(head(reply, _HEAD), message, reason, read_usage(reply.get("usage")))


def _arguments(given: Any) -> str:
    """Return the arguments of a call as JSON text, in the order in which they were received."""
    return given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)


def _finish_reason(stop_reason: Any, called: bool) -> Any:
    """Return the reason in the internal form. A reply without one is complete: some servers (vLLM) never send it."""
    if stop_reason in ("end_turn", None):
        return "tool_calls" if called else "stop"
    return FINISH_REASONS.get(stop_reason, stop_reason)


class _Block:
    """A content block of a stream.

    Attributes:
        content: the block's content at its start.
        index: index of the call; `None` if the block is not a call.
        pieces: the fragments of JSON so far.
    """

    __slots__ = ("content", "index", "pieces")

    def __init__(self, content: JSON, index: int | None) -> None:
        self.content = content
        self.index = index
        self.pieces: list[str] = []


class StreamReader:
    """Reads the events of one stream. An event without a known index belongs to the block that started last."""

    def __init__(self) -> None:
        self._head: JSON = {}
        self._open: dict[Any, _Block] = {}
        self._calls = 0
        self._usage: JSON = {}
        self._finished = False

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
        return {**self._head, "choices": [{"index": 0, "delta": delta}]}

    def _message_start(self, event: JSON) -> None:
        message = event["message"]
        self._head = {**head(message, _HEAD), "object": "chat.completion.chunk"}
        self._count(message)

    def _block_start(self, event: JSON) -> JSON | None:
        content = event["content_block"]
        kind = content.get("type")
        if kind == "text":
            return self._chunk({"content": content["text"]}) if content.get("text") else None
        if kind == "thinking":
            return self._chunk({"reasoning_content": content["thinking"]}) if content.get("thinking") else None
        if kind != "tool_use":
            self._open[event.get("index")] = _Block(content, None)
            return None
        index = self._calls
        self._calls += 1
        self._open[event.get("index")] = _Block(content, index)
        return self._chunk({"tool_calls": [{"index": index, **call(content.get("id"), content.get("name"), "")}]})

    def _block_delta(self, event: JSON) -> JSON | None:
        delta = event["delta"]
        match delta.get("type"):
            case "text_delta":
                return self._chunk({"content": delta["text"]})
            case "thinking_delta":
                return self._chunk({"reasoning_content": delta["thinking"]})
            case "input_json_delta":
                return self._piece(event.get("index"), delta["partial_json"])
            case "citations_delta":
                return self._chunk({"citations": [delta["citation"]]})
            case _:
                return None

    def _piece(self, index: Any, piece: str) -> JSON | None:
        block = self._open.get(index) or next(reversed(self._open.values()), None)
        if block is None or not piece:
            return None
        block.pieces.append(piece)
        return None if block.index is None else self._call_piece(block.index, piece)

    def _call_piece(self, index: int, arguments: str) -> JSON:
        return self._chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})

    def _block_stop(self, event: JSON) -> JSON | None:
        block = self._open.pop(event.get("index"), None)
        return None if block is None else self._whole(block)

    def _whole(self, block: _Block) -> JSON | None:
        """Return content of a block that was not streamed: arguments in its first event, or a server tool's block."""
        if block.index is not None:
            return None if block.pieces else self._call_piece(block.index, _arguments(block.content.get("input")))
        given = read_arguments("".join(block.pieces)) if block.pieces else None
        return self._chunk({"other_items": [block.content if given is None else {**block.content, "input": given}]})

    def _message_delta(self, event: JSON) -> JSON | None:
        delta = event.get("delta") or {}
        self._count(event)
        if delta.get("stop_reason") and not self._finished:
            return self._finish(delta["stop_reason"], delta.get("stop_sequence"))
        return {**self._head, "choices": [], "usage": read_usage(self._usage)} if self._finished else None

    def _message_stop(self, event: JSON) -> JSON | None:
        self._count(event)
        # Some servers (vLLM) end an answer without a stop reason.
        return None if self._finished else self._finish("end_turn", None)

    def _finish(self, stop_reason: str, stop_sequence: Any) -> JSON:
        self._finished = True
        delta: JSON = {"stop_sequence": stop_sequence} if stop_sequence else {}
        for chunk in [self._whole(block) for block in self._open.values()]:
            if chunk is not None:
                for name, found in chunk["choices"][0]["delta"].items():
                    delta.setdefault(name, []).extend(found)
        self._open.clear()
        chunk = self._chunk(delta)
        chunk["choices"][0]["finish_reason"] = _finish_reason(stop_reason, bool(self._calls))
        return {**chunk, "usage": read_usage(self._usage)} if self._usage else chunk

    def _count(self, part: Mapping[str, Any]) -> None:
        """Record token counts. Servers report them in the first or last event. A zero does not overwrite a count."""
        for name, count in (part.get("usage") or {}).items():
            if count or name not in self._usage:
                self._usage[name] = count

    def _error(self, event: JSON) -> JSON:
        error = event.get("error") or {"type": "error", "message": "The gateway sent an error without a message."}
        return {**self._head, "choices": [], "error": error}


_EVENTS: dict[Any, Callable[[StreamReader, JSON], JSON | None]] = {
    "message_start": StreamReader._message_start,
    "content_block_start": StreamReader._block_start,
    "content_block_delta": StreamReader._block_delta,
    "content_block_stop": StreamReader._block_stop,
    "message_delta": StreamReader._message_delta,
    "message_stop": StreamReader._message_stop,
    "error": StreamReader._error,
}
"""Handlers by event type. Events of other types are ignored."""
