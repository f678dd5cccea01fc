"""What the gateway refuses, and in which words. Checked before anything is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.sandbox.answers import JSON, text_of
from empiriolabs_core.sandbox.wire import prompt_tokens

_ROLES = ("system", "developer", "user", "assistant", "tool")
_EFFORTS = ("none", "low", "medium", "high", "max")
_TOOL_CHOICES = ("auto", "none", "required")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BOOLEANS = ("enable_thinking", "web_search_linkup", "disable_formatting", "stream", "parallel_tool_calls")


class Refusal(Exception):
    """The request is refused: a status, and the documented error envelope."""

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})

    def envelope(self) -> JSON:
        """Return the body. Its further keys are inferred from OpenAI's."""
        kind = "invalid_request_error" if self.status < 500 else "api_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def _bad(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_parameter_error", message, param)


def check_key(headers: Mapping[str, str], key: str) -> None:
    """Refuse a request without the key, or with another one."""
    given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
    if not given:
        raise Refusal(401, "missing_api_key", "No API key was sent. Send Authorization: Bearer <key>.")
    if given != key:
        raise Refusal(401, "invalid_api_key", "The API key is not known.")


def check_body(body: Any) -> JSON:
    """Refuse a body that is no JSON object, or has no messages or a wrong one."""
    if not isinstance(body, dict):
        raise _bad("body", "The body must be a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages", f"messages={messages!r} must be a list that is not empty.")
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise _bad("messages", f"messages[{number}].role={role!r} must be one of {', '.join(_ROLES)}.")
        content = message.get("content")
        if not isinstance(content, str | list) and not (role == "assistant" and message.get("tool_calls")):
            raise _bad("messages", f"messages[{number}].content={content!r} must be text or a list of parts.")
    return body


def check_parameters(body: JSON, card: ModelCard | None) -> None:
    """Refuse parameters out of the documented ranges."""
    limit = (card.max_output_tokens if card else None) or 10**9
    for name, low, high in (
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("max_tokens", 1, limit),
        ("thinking_budget", 1, limit),
    ):
        value = body.get(name)
        kind = (int, float) if name in ("temperature", "top_p") else int
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high):
            raise _bad(name, f"{name}={value!r} must be a number from {low} to {high}.")
    for name in _BOOLEANS:
        if body.get(name) not in (None, True, False):
            raise _bad(name, f"{name}={body[name]!r} must be true or false.")
    if body.get("reasoning_effort") not in (None, *_EFFORTS):
        raise _bad("reasoning_effort", f"reasoning_effort={body['reasoning_effort']!r} must be one of {_EFFORTS}.")
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > 4:
        raise _bad("stop", f"stop has {len(stop)} entries; at most 4 are taken.")
    wanted = (body.get("response_format") or {}).get("type")
    if card and card.json_object_only and wanted == "json_schema":
        raise _bad("response_format", f"response_format.type={wanted!r} is not supported by {card.id}.")


def check_tools(body: JSON) -> None:
    """Refuse tools and a tool choice that upstreams refuse: the names are OpenAI's and DeepSeek's documented rule.

    Whether the gateway itself looks at them is not documented.
    """
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise _bad("tools", f"tools={tools!r} must be a list of objects.")
    names = []
    for number, tool in enumerate(tools):
        if tool.get("type") != "function":
            continue
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise _bad("tools", f"tools[{number}].function.name={name!r} must match '^[a-zA-Z0-9_-]{{1,64}}$'.")
        names.append(name)
    choice = body.get("tool_choice")
    if choice is None or (isinstance(choice, str) and choice in _TOOL_CHOICES):
        return
    if choice not in [{"type": "function", "function": {"name": name}} for name in names]:
        raise _bad(
            "tool_choice",
            f"tool_choice={choice!r} must be one of {', '.join(_TOOL_CHOICES)}, or "
            "{'type': 'function', 'function': {'name': ...}} with the name of one of the tools.",
        )


def check_window(body: JSON, card: ModelCard | None) -> None:
    """Refuse a conversation that is longer than the model's window, in DeepSeek's words."""
    window = card.context_window if card else None
    # A token has at least one character, so most requests need no counting.
    if window is None or sum(len(text_of(message.get("content"))) for message in body["messages"]) < window:
        return
    tokens = prompt_tokens(body)
    if tokens > window:
        raise _bad(
            "messages",
            f"This model's maximum context length is {window} tokens. However, you requested {tokens} tokens "
            "in the messages. Please reduce the length of the messages.",
        )


def is_thinking(body: JSON, card: ModelCard | None) -> bool:
    """Tell whether the model would think. Which control wins is not documented: off wins here, an inference."""
    if body.get("enable_thinking") is False or body.get("reasoning_effort") == "none":
        return False
    asked = any(body.get(name) is not None for name in ("enable_thinking", "thinking_budget", "reasoning_effort"))
    return asked or bool(card and card.thinks)


def check_upstream(body: JSON, card: ModelCard | None) -> None:
    """Refuse what DeepSeek refuses. Whether the gateway does is not documented."""
    _check_tool_results(body["messages"])
    wants_json = (body.get("response_format") or {}).get("type") == "json_object"
    if wants_json and not any("json" in text_of(message.get("content")).lower() for message in body["messages"]):
        raise _bad("messages", "With response_format json_object, the messages must contain the word 'json'.")
    if not is_thinking(body, card):
        return
    for message in body["messages"]:
        if message["role"] == "assistant" and message.get("tool_calls") and "reasoning_content" not in message:
            raise Refusal(
                400,
                "invalid_request_error",
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
                "messages",
            )
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise Refusal(400, "invalid_request_error", "Thinking mode does not support this tool_choice", "tool_choice")


def _check_tool_results(messages: list[JSON]) -> None:
    open_calls: set[str] = set()
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                said = message.get("tool_call_id")
                raise _bad("messages", f"messages[{number}] answers tool call {said!r}, which was not made before it.")
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise _bad("messages", f"messages[{number}] comes before the answers to tool calls {sorted(open_calls)}.")
        if message["role"] == "assistant":
            open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    if open_calls:
        raise _bad("messages", f"Tool calls {sorted(open_calls)} have no answer.")
