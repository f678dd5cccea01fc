"""Reject conversations that the gateway would reject, before answering."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.errors import excerpt
from empiriolabs_core.sandbox.answers import JSON, text_of
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown

_ROLES = ("system", "developer", "user", "assistant", "tool")
_PARTS = {"text": "text", "image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file"}
"""The types of content parts, and the modality that a model must list to accept each type."""
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_messages(messages: Any, card: ModelCard | None) -> None:
    """Reject messages that break the documented form, or whose content the model does not support."""
    if not isinstance(messages, list) or not messages:
        raise bad("messages", f"messages must be a non-empty list, got {shown(messages)}.")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise bad("messages", f"{where}.role must be one of {', '.join(_ROLES)}, got {shown(role)}.")
        _check_content(message, where, card)
        _check_calls(message.get("tool_calls"), where)
        needed = (("tool_call_id", str),) if role == "tool" else ()
        for name, kind in (("reasoning_content", str | None), *needed):
            if not isinstance(message.get(name), kind):
                raise bad("messages", f"{where}.{name} must be a string, got {shown(message.get(name))}.")


def _check_content(message: JSON, where: str, card: ModelCard | None) -> None:
    content = message.get("content")
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return
    if not isinstance(content, str | list):
        raise bad("messages", f"{where}.content must be a string or a list of parts, got {shown(content)}.")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        _check_part(part, f"{where}.content[{number}]", card)


def _check_part(part: Any, where: str, card: ModelCard | None) -> None:
    """Reject a part whose type the model's card does not list, in DeepSeek's words."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise bad("messages", f"{where} must be an object with a type, got {shown(part)}.")
    modalities = card.input_modalities if card else None
    accepted = [known for known, modality in _PARTS.items() if modality in (modalities or ())]
    if modalities and kind not in accepted:
        expected = ", ".join(f"`{known}`" for known in accepted)
        raise bad("messages", f"{where}.type: unknown variant `{excerpt(kind)}`, expected {expected}")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise bad("messages", f"{where}.text must be a string, got {shown(part.get('text'))}.")


def _check_calls(calls: Any, where: str) -> None:
    if calls is not None and not isinstance(calls, list):
        raise bad("messages", f"{where}.tool_calls must be a list of objects, got {shown(calls)}.")
    for number, call in enumerate(calls or ()):
        at = f"{where}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise bad("messages", f"{at} must be an object with id and function, got {shown(call)}.")
        if not isinstance(call.get("id"), str):
            raise bad("messages", f"{at}.id must be a string, got {shown(call.get('id'))}.")
        check_tool_name("messages", f"{at}.function.name", function.get("name"))
        if not isinstance(function.get("arguments"), str):
            given = shown(function.get("arguments"))
            raise bad("messages", f"{at}.function.arguments must be a string with JSON, got {given}.")


def check_tool_name(param: str, where: str, name: Any) -> None:
    """Reject an invalid tool name, by the rule that OpenAI and DeepSeek document."""
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise bad(param, f"{where} must match '^[a-zA-Z0-9_-]{{1,64}}$', got {shown(name)}.")


def check_reasoning_is_back(body: JSON, reasoned: Collection[str]) -> None:
    """Reject a conversation with tools that lacks the reasoning of an assistant turn, in DeepSeek's words.

    Args:
        body: the request.
        reasoned: the texts of answers that had reasoning. DeepSeek's documents require the reasoning in turns with such
            a text. No recording shows that DeepSeek enforces this for turns without tool calls.
    """
    messages = body["messages"]
    in_loop = body.get("tools") or any(message.get("tool_calls") for message in messages)
    for message in messages if in_loop else ():
        if message["role"] != "assistant" or "reasoning_content" in message:
            continue
        if message.get("tool_calls") or text_of(message.get("content")) in reasoned:
            raise Refusal(
                400,
                "invalid_request_error",
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
                "messages",
            )


def check_tool_results(messages: list[JSON]) -> None:
    """Reject tool calls that are not directly followed by one result each, results without a call, and repeated ids."""
    open_calls: set[str] = set()
    made: dict[str, int] = {}
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            said = message["tool_call_id"]
            if said not in open_calls:
                problem = f"messages[{number}] is the result of tool call {shown(said)}, which is not open."
                raise bad("messages", f"{problem} Send it directly after the message with that tool call, and once.")
            open_calls.discard(said)
            continue
        if open_calls:
            raise bad(
                "messages",
                f"messages[{number}] must not precede the results of the tool calls {sorted(open_calls)}.",
            )
        if message["role"] == "assistant":
            open_calls = _new_calls(message, number, made)
    if open_calls:
        raise bad("messages", f"The tool calls {sorted(open_calls)} have no result. Send a tool message for each call.")


def _new_calls(message: JSON, number: int, made: dict[str, int]) -> set[str]:
    """Return the ids of a message's calls, and record them. Relays of Kimi and MiMo reject a reused id."""
    for call in message.get("tool_calls") or ():
        if call["id"] in made:
            raise bad(
                "messages",
                f"messages[{number}] repeats the tool call id {shown(call['id'])} of messages[{made[call['id']]}]. "
                "Ids must be unique in the conversation.",
            )
        made[call["id"]] = number
    return {call["id"] for call in message.get("tool_calls") or ()}
