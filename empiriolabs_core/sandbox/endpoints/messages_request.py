"""Translate requests of `POST /v1/messages` to the form of chat completions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.endpoints.base import refuse_fields, typed, without_none
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown

_ELSEWHERE = [
    "n",
    "seed",
    "stop",
    "logprobs",
    "top_logprobs",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "response_format",
    "stream_options",
    "user",
    "parallel_tool_calls",
    "modalities",
    "audio",
    "prediction",
    "store",
    "prompt_cache_key",
    "verbosity",
    "reasoning_effort",
    "max_completion_tokens",
    "web_search_options",
    "functions",
    "function_call",
    "input",
    "instructions",
    "max_output_tokens",
    "reasoning",
    "text",
    "include",
    "previous_response_id",
]
"""Fields of the two other endpoints. Anthropic rejects them; for the gateway, this is inferred."""

_TRANSLATED = [
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "stop_sequences",
    "metadata",
    "output_config",
    "cache_control",
    "service_tier",
]
_LEAST_BUDGET = 1024
"""Anthropic's minimum for `budget_tokens`."""

_TEXT, _OBJECT = "a string", "an object"
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_request(wire: JSON, *, strict: bool) -> JSON:
    """Return a request in the form of chat completions.

    Args:
        wire: the request.
        strict: whether to also reject valid requests that Anthropic or DeepSeek reject.

    Raises:
        Refusal: if the request is not valid on this endpoint.
    """
    refuse_fields(wire, None, _ELSEWHERE)
    if wire.get("max_tokens") is None:
        raise _missing("max_tokens")
    same = {name: value for name, value in wire.items() if name not in _TRANSLATED}
    fields = {
        "tools": _tools(wire.get("tools")),
        **_tool_choice(wire),
        **_thinking(wire),
        "stop": _stops(wire.get("stop_sequences")),
        "user": _user(wire),
        **_output_config(wire),
    }
    messages = [*_system(wire.get("system")), *_messages(wire.get("messages"))]
    if strict:
        _check_strictly(wire)
    return {**same, "messages": messages, **without_none(fields)}


def _missing(name: str) -> Refusal:
    return bad(name, f"{name}: Field required")


def _check_strictly(wire: JSON) -> None:
    """Reject requests that Anthropic rejects, and, like DeepSeek, an effort while thinking is off."""
    messages = wire["messages"]
    if messages[0]["role"] != "user":
        raise bad("messages", 'messages: first message must use the "user" role')
    if messages[-1]["role"] == "assistant":
        raise bad(
            "messages",
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        )
    thinking = wire.get("thinking") or {}
    off = wire.get("enable_thinking") is False or thinking.get("type") == "disabled"
    if off and (wire.get("output_config") or {}).get("effort") is not None:
        raise bad("thinking", "thinking options type cannot be disabled when reasoning_effort is set")
    budget = thinking.get("budget_tokens")
    limit = wire["max_tokens"]
    if isinstance(budget, int) and isinstance(limit, int) and not _LEAST_BUDGET <= budget < limit:
        wanted = f"at least {_LEAST_BUDGET} and below max_tokens={limit}"
        raise bad("thinking", f"thinking.budget_tokens must be {wanted}, got {budget}.")


def _thinking(wire: JSON) -> JSON:
    thinking = typed(wire.get("thinking"), dict | None, "thinking", _OBJECT)
    if thinking is None:
        return {}
    if wire.get("enable_thinking") is not None or wire.get("thinking_budget") is not None:
        raise bad("thinking", "Send either thinking, or enable_thinking and thinking_budget, but not both.")
    kind = thinking.get("type")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise bad("thinking", f"thinking.type must be one of enabled, disabled, adaptive, got {shown(kind)}.")
    if kind == "enabled":
        typed(thinking.get("budget_tokens"), int, "thinking.budget_tokens", "an integer")
    return {"enable_thinking": kind != "disabled", "thinking_budget": thinking.get("budget_tokens")}


def _user(wire: JSON) -> Any:
    metadata = typed(wire.get("metadata"), dict | None, "metadata", _OBJECT) or {}
    for name in metadata:
        if name != "user_id":
            raise bad("metadata", f"metadata.{name}: Extra inputs are not permitted")
    return metadata.get("user_id")


def _output_config(wire: JSON) -> JSON:
    config = typed(wire.get("output_config"), dict | None, "output_config", _OBJECT) or {}
    refuse_fields(config, ("effort", "format"), (), "output_config.")
    given = typed(config.get("format"), dict | None, "output_config.format", _OBJECT)
    effort = {"reasoning_effort": config.get("effort")}
    if given is None:
        return effort
    if given.get("type") != "json_schema":
        raise bad("output_config", f"output_config.format.type must be 'json_schema', got {shown(given.get('type'))}.")
    schema = typed(given.get("schema"), dict, "output_config.format.schema", _OBJECT)
    return {**effort, "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}}


def _stops(given: Any) -> Any:
    stops = typed(given, list | None, "stop_sequences", "a list of strings")
    for number, stop in enumerate(stops or ()):
        if not isinstance(stop, str) or not stop.strip():
            raise bad("stop_sequences", f"stop_sequences[{number}] must be a non-blank string, got {shown(stop)}.")
    return stops or None


def _system(given: Any) -> list[JSON]:
    if given is None or given == "":
        return []
    content = given if isinstance(given, str) else _texts(given, "system")
    return [{"role": "system", "content": content}]


def _texts(given: Any, where: str) -> str:
    blocks = typed(given, list, where, "a string or a list of text blocks")
    texts = []
    for number, block in enumerate(blocks):
        at = f"{where}[{number}]"
        if typed(block, dict, at, _OBJECT).get("type") != "text":
            raise bad(where, f"{at}.type must be 'text', got {shown(block.get('type'))}.")
        texts.append(_text_of(block, at))
    return "\n\n".join(texts)


def _text_of(block: JSON, where: str) -> str:
    text: str = typed(block.get("text"), str, f"{where}.text", _TEXT)
    if not text:
        raise bad(where.partition("[")[0], f"{where}: text content blocks must be non-empty")
    return text


def _tools(given: Any) -> list[JSON] | None:
    tools = typed(given, list | None, "tools", "a list of objects")
    return None if tools is None else [_tool(tool, f"tools[{number}]") for number, tool in enumerate(tools)]


def _tool(tool: Any, where: str) -> JSON:
    """Return a tool in the form of chat completions. The shared rules of all endpoints check server tools."""
    typed(tool, dict, where, _OBJECT)
    if tool.get("type") not in (None, "custom"):
        if "function" in tool:
            raise bad("tools", f"{where}.type must be 'custom', with name and input_schema, got {shown(tool['type'])}.")
        return dict(tool)
    for name in ("name", "input_schema"):
        if name not in tool:
            raise bad("tools", f"{where}.{name}: Field required")
    schema = typed(tool["input_schema"], dict, f"{where}.input_schema", _OBJECT)
    if schema.get("type") != "object":
        raise bad("tools", f"{where}.input_schema.type must be 'object', got {shown(schema.get('type'))}.")
    strict = typed(tool.get("strict"), bool | None, f"{where}.strict", "true or false")
    function = without_none({"name": tool["name"], "description": tool.get("description"), "parameters": schema})
    return {"type": "function", "function": {**function, **({"strict": True} if strict else {})}}


def _tool_choice(wire: JSON) -> JSON:
    choice = typed(wire.get("tool_choice"), dict | None, "tool_choice", _OBJECT)
    if choice is None:
        return {}
    if not wire.get("tools"):
        raise bad("tool_choice", "tool_choice: may only be specified while providing tools")
    kind, single = choice.get("type"), choice.get("disable_parallel_tool_use")
    if kind == "none" and single is not None:
        raise bad("tool_choice", "tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted")
    parallel = {} if single is None else {"parallel_tool_calls": not typed(single, bool, _PARALLEL, "true or false")}
    if kind == "tool":
        name = typed(choice.get("name"), str, "tool_choice.name", _TEXT)
        return {"tool_choice": {"type": "function", "function": {"name": name}}, **parallel}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise bad("tool_choice", f"tool_choice.type must be one of auto, any, tool, none, got {shown(kind)}.")
    return {"tool_choice": _CHOICES[kind], **parallel}


_PARALLEL = "tool_choice.disable_parallel_tool_use"


def _messages(given: Any) -> list[JSON]:
    if not isinstance(given, list) or not given:
        raise bad("messages", f"messages must be a non-empty list, got {shown(given)}.")
    messages: list[JSON] = []
    for turn in _combined(given):
        read = _assistant if turn.role == "assistant" else _user_turn
        messages.extend(read(turn.blocks, turn.where))
    return messages


class _Turn:
    def __init__(self, role: str, where: str) -> None:
        self.role, self.where = role, where
        self.blocks: list[tuple[JSON, str]] = []


def _combined(given: list[Any]) -> list[_Turn]:
    """Return each turn with its blocks. Consecutive messages of the same role are combined, as Anthropic does."""
    turns: list[_Turn] = []
    for number, message in enumerate(given):
        where = f"messages[{number}]"
        role = typed(message, dict, where, _OBJECT).get("role")
        if role not in ("user", "assistant"):
            raise bad(
                "messages",
                f"{where}.role must be 'user' or 'assistant', got {shown(role)}. Send system at the top level.",
            )
        refuse_fields(message, ("role", "content"), (), f"{where}.")
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role, where))
        turns[-1].blocks.extend(_blocks(message.get("content"), f"{where}.content"))
    return turns


def _blocks(content: Any, where: str) -> list[tuple[JSON, str]]:
    if not isinstance(content, str | list):
        raise bad("messages", f"{where} must be a string or a list of blocks, got {shown(content)}.")
    if not content:
        raise bad("messages", f"{where}: all messages must have non-empty content")
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)]
    return [(typed(block, dict, f"{where}[{n}]", _OBJECT), f"{where}[{n}]") for n, block in enumerate(content)]


def _assistant(blocks: list[tuple[JSON, str]], where: str) -> list[JSON]:
    """Return the single message of an assistant's turn: its thinking, its text, then its calls."""
    message: JSON = {"role": "assistant", "content": None}
    for block, at in blocks:
        kind = block.get("type")
        if kind == "thinking":
            if message["content"] is not None or "tool_calls" in message:
                raise bad("messages", f"{at}: thinking blocks must come first in a turn.")
            typed(block.get("signature"), str, f"{at}.signature", _TEXT)
            text = typed(block.get("thinking"), str, f"{at}.thinking", _TEXT)
            message["reasoning_content"] = message.get("reasoning_content", "") + text
        elif kind == "text":
            if "tool_calls" in message:
                raise bad("messages", f"{at}: text must come before the tool_use blocks of a turn.")
            message["content"] = (message["content"] or "") + _text_of(block, at)
        elif kind == "tool_use":
            message["tool_calls"] = [*message.get("tool_calls", ()), _call(block, at)]
        else:
            raise bad("messages", f"{at}.type must be one of thinking, text, tool_use, got {shown(kind)}.")
    if message["content"] is None and "tool_calls" not in message:
        raise bad("messages", f"{where}: a turn must hold more than thinking.")
    return [message]


def _call(block: JSON, where: str) -> JSON:
    for name in ("id", "name"):
        typed(block.get(name), str, f"{where}.{name}", _TEXT)
    given = typed(block.get("input"), dict, f"{where}.input", _OBJECT)
    function = {"name": block["name"], "arguments": json.dumps(given, ensure_ascii=False)}
    return {"id": block["id"], "type": "function", "function": function}


def _user_turn(blocks: list[tuple[JSON, str]], where: str) -> list[JSON]:
    """Return the tool messages of a user's turn, then the user message."""
    results: list[JSON] = []
    parts: list[JSON] = []
    for block, at in blocks:
        if block.get("type") != "tool_result":
            parts.append(_part(block, at))
            continue
        if parts:
            raise bad("messages", f"{at}: tool_result blocks must come before all other blocks of a turn.")
        name = typed(block.get("tool_use_id"), str, f"{at}.tool_use_id", _TEXT)
        results.append({"role": "tool", "tool_call_id": name, "content": _result(block.get("content"), at)})
    if not parts:
        return results
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if only_text else parts}]


def _result(content: Any, where: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    blocks = typed(content, list, f"{where}.content", "a string or a list of blocks")
    return [_part(block, f"{where}.content[{number}]") for number, block in enumerate(blocks)]


def _part(block: Any, where: str) -> JSON:
    """Return a block of a user's turn as a chat-completions content part."""
    kind = typed(block, dict, where, _OBJECT).get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise bad("messages", f"{where}.type must be one of {', '.join(_PARTS)}, tool_result, got {shown(kind)}.")
    return _PARTS[kind](block, where)


def _image(block: JSON, where: str) -> JSON:
    return {"type": "image_url", "image_url": {"url": _source(block, where)}}


def _document(block: JSON, where: str) -> JSON:
    file = {"file_data": _source(block, where), "filename": block.get("title")}
    return {"type": "file", "file": without_none(file)}


def _source(block: JSON, where: str) -> str:
    """Return the URL of an image or a document, or its content as a data URL."""
    source = typed(block.get("source"), dict, f"{where}.source", _OBJECT)
    if source.get("type") == "url":
        url: str = typed(source.get("url"), str, f"{where}.source.url", _TEXT)
        return url
    if source.get("type") != "base64":
        raise bad("messages", f"{where}.source.type must be 'base64' or 'url', got {shown(source.get('type'))}.")
    for name in ("media_type", "data"):
        typed(source.get(name), str, f"{where}.source.{name}", _TEXT)
    return f"data:{source['media_type']};base64,{source['data']}"


_PARTS: dict[str, Callable[[JSON, str], JSON]] = {
    "text": lambda block, where: {"type": "text", "text": _text_of(block, where)},
    "image": _image,
    "document": _document,
}
