"""Functions that the endpoints other than chat completions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from empiriolabs_core.errors import JSON, SettingsError, UnsupportedContentError, excerpt, warn_once
from empiriolabs_core.replies import read_text

CHAT_ONLY = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "modalities",
        "n",
        "prediction",
        "presence_penalty",
        "seed",
        "web_search_options",
    }
)
"""Standard Chat Completions fields that no other endpoint supports."""

_SAYS_NOTHING: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "store": (False,),
    "top_logprobs": (0,),
}
"""Values that request the default behaviour of an endpoint."""

_ROLES = ("system", "developer", "user", "assistant", "tool")
_SYSTEM = ("system", "developer")


def same_fields(body: JSON, translated: frozenset[str], missing: frozenset[str], endpoint: str) -> JSON:
    """Return the fields of a body that keep their names.

    Args:
        body: the body in the internal form.
        translated: fields that the caller translates.
        missing: fields that the endpoint does not support.
        endpoint: the name of the endpoint.

    Raises:
        SettingsError: if the body has a field that the endpoint does not support.
    """
    for name in body.keys() & missing:
        if body[name] not in _SAYS_NOTHING.get(name, ()):
            raise SettingsError(
                f"endpoint={endpoint!r} does not support {name}. Leave {name} out, or use another endpoint such as "
                "'chat/completions'."
            )
    return {name: value for name, value in body.items() if name not in translated and name not in missing}


def merged(wire: JSON, same: JSON, endpoint: str) -> JSON:
    """Add the fields that keep their names to a translated body.

    Raises:
        SettingsError: if a field of `extra_body` was already set by the translation.
    """
    out = dict(wire)
    for name, value in same.items():
        before = out.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = merged(dict(before), dict(value), endpoint)
        elif name in out:
            raise SettingsError(
                f"extra_body contains {name!r}, which endpoint={endpoint!r} sets from the messages and the other "
                "arguments. Set it in one place."
            )
        out[name] = value
    return out


def split_system(messages: Sequence[JSON]) -> tuple[list[JSON], list[JSON]]:
    """Return the leading system and developer messages, and the other messages."""
    count = next((n for n, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
    return list(messages[:count]), list(messages[count:])


def system_text(messages: Sequence[JSON], endpoint: str) -> str:
    """Return the text of system messages, separated by blank lines.

    Raises:
        UnsupportedContentError: if a message contains content other than text.
    """
    for message in messages:
        for part in parts(message["content"]):
            if part.get("type") != "text":
                raise unsupported_part(part, endpoint, "in a system message")
    return "\n\n".join(text for text in map(read_text, messages) if text)


def check_messages(messages: Sequence[JSON], endpoint: str) -> None:
    """Check the roles of messages, and warn once if names cannot be sent.

    Raises:
        UnsupportedContentError: if a message has a role that the endpoint does not support.
    """
    for message in messages:
        if message["role"] not in _ROLES:
            raise UnsupportedContentError(
                f"endpoint={endpoint!r} does not support messages of role {message['role']!r}. Use one of "
                f"{', '.join(_ROLES)}."
            )
        if message.get("name"):
            warn_once(f"endpoint={endpoint!r} does not support names of messages, so they were not sent.")


def parts(content: Any) -> list[JSON]:
    """Return the content of a message as a list of parts."""
    if isinstance(content, str) or content is None:
        return [{"type": "text", "text": content}] if content else []
    return list(content)


def unsupported_part(part: Mapping[str, Any], endpoint: str, where: str = "") -> UnsupportedContentError:
    """Return the error for a content part that an endpoint does not support."""
    kind = part.get("type")
    return UnsupportedContentError(
        f"endpoint={endpoint!r} does not support a content part of type {kind!r}{where and ' '}{where}. Leave it out, "
        "or use endpoint='chat/completions'."
    )


def tool_function(tool: Mapping[str, Any], endpoint: str) -> Mapping[str, Any] | None:
    """Return the function of a tool; `None` for a server tool, which is sent unchanged.

    Raises:
        SettingsError: if only chat completions supports this type of tool.
    """
    if "custom" in tool:
        raise SettingsError(f"endpoint={endpoint!r} does not support custom tools. Use a function tool.")
    function = tool.get("function")
    return function if isinstance(function, Mapping) else None


def response_format(body: JSON) -> Mapping[str, Any] | None:
    """Return the `response_format` of a body; `None` if it is not set.

    Raises:
        SettingsError: if it is not a dict with a type.
    """
    wanted = body.get("response_format")
    if wanted is not None and not (isinstance(wanted, Mapping) and "type" in wanted):
        raise SettingsError(f"response_format must be a dict such as {{'type': 'json_object'}}, got {excerpt(wanted)}.")
    return wanted


def call(call_id: Any, name: Any, arguments: str) -> JSON:
    """Return a tool call in the internal form."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def completion(head: JSON, message: JSON, finish_reason: Any, usage: JSON | None, logprobs: Any = None) -> JSON:
    """Build a complete reply in the internal form."""
    choice: JSON = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}
    reply: JSON = {**head, "object": "chat.completion", "choices": [choice]}
    return reply if usage is None else {**reply, "usage": usage}


def head(reply: Mapping[str, Any], names: Mapping[str, str]) -> JSON:
    """Return the metadata of a reply. `names` maps names of the wire format to names of the internal form."""
    return {ours: reply[theirs] for theirs, ours in names.items() if reply.get(theirs) is not None}
