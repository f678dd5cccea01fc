"""Translate requests of `POST /v1/responses` to the form of chat completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import refuse_fields, typed, without_none
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown

_ELSEWHERE = [
    "messages",
    "stop",
    "seed",
    "n",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "response_format",
    "reasoning_effort",
    "max_tokens",
    "max_completion_tokens",
    "verbosity",
    "functions",
    "function_call",
    "system",
    "stop_sequences",
    "output_config",
    "thinking",
]
"""Fields of the two other endpoints. OpenAI rejects unknown fields here; for the gateway, this is inferred."""

_NO_STATE = ("previous_response_id", "conversation", "background", "prompt")
"""Fields that need stored conversations. DeepSeek stores none; the gateway does not document it."""

_TRANSLATED = [
    "input",
    "instructions",
    "max_output_tokens",
    "reasoning",
    "text",
    "tools",
    "tool_choice",
    "top_logprobs",
    "include",
    "stream_options",
    "store",
    "truncation",
    "max_tool_calls",
]

_TEXT, _OBJECT = "a string", "an object"
_USER_PARTS = ("input_text", "input_image", "input_file")
_ASSISTANT_PARTS = ("output_text", "refusal")
_ROLES = ("user", "assistant", "system", "developer")


def read_request(wire: JSON) -> JSON:
    """Return a request in the form of chat completions.

    Raises:
        Refusal: if the request is not valid on this endpoint.
    """
    refuse_fields(wire, None, _ELSEWHERE)
    _refuse_state(wire)
    same = {name: value for name, value in wire.items() if name not in (*_TRANSLATED, *_NO_STATE)}
    instructions = typed(wire.get("instructions"), str | None, "instructions", _TEXT)
    first = [{"role": "system", "content": instructions}] if instructions else []
    fields = {
        "max_tokens": wire.get("max_output_tokens"),
        "reasoning_effort": _object(wire, "reasoning").get("effort"),
        "tools": _tools(wire),
        "tool_choice": _tool_choice(wire.get("tool_choice")),
        **_text_fields(_object(wire, "text")),
        **_logprobs(wire),
    }
    return {**same, "messages": [*first, *_messages(wire.get("input"))], **without_none(fields)}


def _refuse_state(wire: JSON) -> None:
    for name in _NO_STATE:
        if wire.get(name):
            raise bad(name, f"{name} is not supported: conversations are not stored. Send the whole history as input.")
    if wire.get("truncation") not in (None, "disabled"):
        raise bad("truncation", f"truncation must be 'disabled', got {shown(wire['truncation'])}.")
    if not isinstance(wire.get("store"), bool | None):
        raise bad("store", f"store must be true or false, got {shown(wire['store'])}.")
    refuse_fields(_object(wire, "stream_options"), ["include_obfuscation"], (), "stream_options.")


def _object(wire: JSON, name: str) -> JSON:
    value: JSON | None = typed(wire.get(name), dict | None, name, _OBJECT)
    return value or {}


def _logprobs(wire: JSON) -> JSON:
    include = typed(wire.get("include"), list | None, "include", "a list of strings") or []
    wanted = "message.output_text.logprobs" in include
    return {"logprobs": wanted or None, "top_logprobs": wire.get("top_logprobs") if wanted else None}


def _text_fields(text: JSON) -> JSON:
    given = typed(text.get("format"), dict | None, "text.format", _OBJECT, "text.format")
    if given is None or given.get("type") == "text":
        return {"response_format": None, "verbosity": text.get("verbosity")}
    if given.get("type") != "json_schema":
        return {"response_format": given, "verbosity": text.get("verbosity")}
    for name, kind, wanted in (("name", str, _TEXT), ("schema", dict, _OBJECT), ("strict", bool | None, "a boolean")):
        typed(given.get(name), kind, f"text.format.{name}", wanted, "text.format")
    schema = {name: value for name, value in given.items() if name != "type"}
    return {
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": text.get("verbosity"),
    }


def _tools(wire: JSON) -> list[JSON] | None:
    given = typed(wire.get("tools"), list | None, "tools", "a list of objects")
    return None if given is None else [_tool(tool, f"tools[{number}]") for number, tool in enumerate(given)]


def _tool(tool: Any, where: str) -> JSON:
    """Return a tool in the nested form. The shared rules of all endpoints check tools that are not functions."""
    typed(tool, dict, where, _OBJECT)
    if tool.get("type") != "function":
        return dict(tool)
    if "function" in tool:
        raise Refusal(400, "unknown_parameter", f"Unknown parameter: '{where}.function'.", "tools")
    if "name" not in tool:
        raise Refusal(400, "missing_required_parameter", f"Missing required parameter: '{where}.name'.", "tools")
    typed(tool.get("strict"), bool | None, f"{where}.strict", "true, false or null")
    function = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}
    return {"type": "function", "function": {**function, **({"strict": True} if tool.get("strict") else {})}}


def _tool_choice(choice: Any) -> Any:
    if not isinstance(choice, dict) or choice.get("type") != "function":
        return choice
    if "name" not in choice:
        raise Refusal(
            400, "missing_required_parameter", "Missing required parameter: 'tool_choice.name'.", "tool_choice"
        )
    return {"type": "function", "function": {"name": choice["name"]}}


def _messages(given: Any) -> list[JSON]:
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise bad("input", f"input must be a non-empty string or a non-empty list of items, got {shown(given)}.")
    history = _History()
    for number, item in enumerate(given):
        history.add(item, f"input[{number}]")
    return history.messages()


class _History:
    """Collects the items of a conversation.

    The items of one assistant turn become one message: its reasoning, its text, then its calls. An item that breaks
    this order begins another turn.
    """

    def __init__(self) -> None:
        self._messages: list[JSON] = []
        self._turn: JSON | None = None
        self._alone = ""

    def add(self, item: Any, where: str) -> None:
        """Add an item.

        Raises:
            Refusal: if the item is not valid.
        """
        typed(item, dict, where, _OBJECT)
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in _ITEMS:
            raise bad("input", f"{where}.type must be one of {', '.join(_ITEMS)}, got {shown(kind)}.")
        _ITEMS[kind](self, item, where)

    def messages(self) -> list[JSON]:
        """Return the messages.

        Raises:
            Refusal: if reasoning is the last item.
        """
        self._end_turn()
        return self._messages

    def _end_turn(self) -> None:
        if self._alone:
            raise bad(
                "input", f"Item '{self._alone}' of type 'reasoning' was provided without its required following item."
            )
        self._turn = None

    def _in_turn(self, *later: str) -> JSON:
        """Return the message of the assistant's turn, or a new one if it already has one of the `later` keys."""
        if self._turn is None or any(self._turn.get(name) is not None for name in later):
            self._end_turn()
            self._turn = {"role": "assistant", "content": None}
            self._messages.append(self._turn)
        return self._turn

    def _reasoning(self, item: JSON, where: str) -> None:
        for name, kind, wanted in (("id", str, _TEXT), ("summary", list, "a list")):
            if name not in item:
                told = f"Missing required parameter: '{where}.{name}'."
                raise Refusal(400, "missing_required_parameter", told, "input")
            typed(item[name], kind, f"{where}.{name}", wanted)
        parts = typed(item.get("content"), list | None, f"{where}.content", "a list of parts") or []
        texts = [
            _part_text(part, f"{where}.content[{number}]", ("reasoning_text",)) for number, part in enumerate(parts)
        ]
        turn = self._in_turn("content", "tool_calls")
        if texts:
            turn["reasoning_content"] = turn.get("reasoning_content", "") + "".join(texts)
        self._alone = item["id"] or "without an id"

    def _message(self, item: JSON, where: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise bad("input", f"{where}.role must be one of {', '.join(_ROLES)}, got {shown(role)}.")
        if role == "assistant":
            content = _content(item.get("content"), f"{where}.content", _ASSISTANT_PARTS)
            turn, self._alone = self._in_turn("content", "tool_calls"), ""
            turn["content"] = content if isinstance(content, str) else "".join(part["text"] for part in content)
            return
        self._end_turn()
        self._messages.append({"role": role, "content": _content(item.get("content"), f"{where}.content", _USER_PARTS)})

    def _call(self, item: JSON, where: str) -> None:
        for name in ("call_id", "name", "arguments"):
            typed(item.get(name), str, f"{where}.{name}", _TEXT)
        turn, self._alone = self._in_turn(), ""
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        turn["tool_calls"] = [*turn.get("tool_calls", ()), call]

    def _output(self, item: JSON, where: str) -> None:
        typed(item.get("call_id"), str, f"{where}.call_id", _TEXT)
        content = _content(item.get("output"), f"{where}.output", _USER_PARTS)
        self._end_turn()
        self._messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


_ITEMS: dict[str, Callable[[_History, JSON, str], None]] = {
    "message": _History._message,
    "reasoning": _History._reasoning,
    "function_call": _History._call,
    "function_call_output": _History._output,
}


def _content(content: Any, where: str, kinds: tuple[str, ...]) -> Any:
    if isinstance(content, str):
        return content
    parts = typed(content, list, where, "a string or a list of parts")
    return [_part(part, f"{where}[{number}]", kinds) for number, part in enumerate(parts)]


def _part(part: Any, where: str, kinds: tuple[str, ...]) -> JSON:
    """Return a part as a chat-completions content part."""
    kind = typed(part, dict, where, _OBJECT).get("type")
    if kind == "input_image" and kind in kinds:
        url = typed(part.get("image_url"), str, f"{where}.image_url", "a URL string")
        return {"type": "image_url", "image_url": without_none({"url": url, "detail": part.get("detail")})}
    if kind == "input_file" and kind in kinds:
        return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
    return {"type": "text", "text": _part_text(part, where, kinds)}


def _part_text(part: Any, where: str, kinds: tuple[str, ...]) -> str:
    kind = typed(part, dict, where, _OBJECT).get("type")
    if kind not in kinds:
        raise bad("input", f"{where}.type must be one of {', '.join(kinds)}, got {shown(kind)}.")
    name = "refusal" if kind == "refusal" else "text"
    text: str = typed(part.get(name), str, f"{where}.{name}", _TEXT)
    return text
