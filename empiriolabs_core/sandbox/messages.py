"""What the gateway refuses of a conversation. Checked before anything is answered."""

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
"""The types of content parts, and what models that take them list among their modalities."""
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_messages(messages: Any, card: ModelCard | None) -> None:
    """Refuse messages that are not of the documented form, or hold what the model does not take."""
    if not isinstance(messages, list) or not messages:
        raise bad("messages", f"messages={shown(messages)} must be a list that is not empty.")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise bad("messages", f"{where}.role={shown(role)} must be one of {', '.join(_ROLES)}.")
        _check_content(message, where, card)
        _check_calls(message.get("tool_calls"), where)
        needed = (("tool_call_id", str),) if role == "tool" else ()
        for name, kind in (("reasoning_content", str | None), *needed):
            if not isinstance(message.get(name), kind):
                raise bad("messages", f"{where}.{name}={shown(message.get(name))} must be text.")


def _check_content(message: JSON, where: str, card: ModelCard | None) -> None:
    content = message.get("content")
    if content is None and message["role"] == "assistant" and message.get("tool_calls"):
        return
    if not isinstance(content, str | list):
        raise bad("messages", f"{where}.content={shown(content)} must be text or a list of parts.")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        _check_part(part, f"{where}.content[{number}]", card)


def _check_part(part: Any, where: str, card: ModelCard | None) -> None:
    """Refuse a part of a type that the model's card does not list, in DeepSeek's words."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise bad("messages", f"{where}={shown(part)} must be an object with a type.")
    modalities = card.input_modalities if card else None
    taken = [known for known, modality in _PARTS.items() if modality in (modalities or ())]
    if modalities and kind not in taken:
        told = ", ".join(f"`{known}`" for known in taken)
        raise bad("messages", f"{where}.type: unknown variant `{excerpt(kind)}`, expected {told}")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise bad("messages", f"{where}.text={shown(part.get('text'))} must be text.")


def _check_calls(calls: Any, where: str) -> None:
    if calls is not None and not isinstance(calls, list):
        raise bad("messages", f"{where}.tool_calls={shown(calls)} must be a list of objects.")
    for number, call in enumerate(calls or ()):
        at = f"{where}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise bad("messages", f"{at}={shown(call)} must be an object with id and function.")
        if not isinstance(call.get("id"), str):
            raise bad("messages", f"{at}.id={shown(call.get('id'))} must be text.")
        check_tool_name("messages", f"{at}.function.name", function.get("name"))
        if not isinstance(function.get("arguments"), str):
            raise bad("messages", f"{at}.function.arguments={shown(function.get('arguments'))} must be JSON text.")


def check_tool_name(param: str, where: str, name: Any) -> None:
    """Refuse a name that no tool may have: OpenAI's and DeepSeek's documented rule."""
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise bad(param, f"{where}={shown(name)} must match '^[a-zA-Z0-9_-]{{1,64}}$'.")


def check_reasoning_is_back(body: JSON, reasoned: Collection[str]) -> None:
    """Reject a conversation with tools that lacks the reasoning of an assistant turn, in DeepSeek's words.

    Args:
        body: the request.
        reasoned: the texts of answers that had reasoning. Turns with such a text must carry it, as DeepSeek's documents
            say; that it enforces this for turns without tool calls is not recorded.
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
    """Reject calls without a result each, right after them, results of calls that were not made, and repeated ids."""
    open_calls: set[str] = set()
    made: dict[str, int] = {}
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            said = message["tool_call_id"]
            if said not in open_calls:
                told = f"messages[{number}] answers tool call {shown(said)}, which was not made before it."
                raise bad("messages", told)
            open_calls.discard(said)
            continue
        if open_calls:
            raise bad("messages", f"messages[{number}] comes before the answers to tool calls {sorted(open_calls)}.")
        if message["role"] == "assistant":
            open_calls = _new_calls(message, number, made)
    if open_calls:
        raise bad("messages", f"Tool calls {sorted(open_calls)} have no answer.")


def _new_calls(message: JSON, number: int, made: dict[str, int]) -> set[str]:
    """Return the ids of a message's calls, and note them. Relays of Kimi and MiMo reject an id that was used before."""
    for call in message.get("tool_calls") or ():
        if call["id"] in made:
            raise bad(
                "messages",
                f"messages[{number}] has a tool call with the id {shown(call['id'])}, which messages"
                f"[{made[call['id']]}] has too. Ids must be unique in the conversation.",
            )
        made[call["id"]] = number
    return {call["id"] for call in message.get("tool_calls") or ()}
