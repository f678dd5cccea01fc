"""Build the sandbox's answers without a model: scripted, or derived from the request. Deterministic."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from empiriolabs_core.errors import excerpt
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown
from empiriolabs_core.sandbox.schema_filler import SchemaError, fill

JSON = dict[str, Any]

SOURCES = (
    "\n\n**Sources**\n"
    "1. [Field notes](https://field-notes.example/today)\n"
    "2. [The daily record](https://daily-record.example/archive)\n"
)
"""The footer of a web search. The footer is documented; its markdown is inferred."""

_MOST_KEYS, _MOST_OBJECTS, _MOST_OF_TEXT = 100, 200, 100_000
"""Limits on how much of a prompt is searched for a schema or repeated, so that a long prompt stays cheap."""

_SENTENCES = {"low": 1, "medium": 2, "high": 4, "max": 8}


STREAM_FORMS = {
    "usual": "one piece of a call in each delta, with its index",
    "pieces_together": "all pieces of a call in a single delta, as vLLM sends with speculative decoding",
    "no_index": "calls without index and id",
    "rising_index": "the index of a call increases with every piece",
    "second_choice": "the stream also contains a second choice, which was not requested",
    "half_characters": "characters such as emoji are split over two deltas, half a surrogate pair in each",
}
"""Forms of streams that real servers have been seen to send."""


@dataclass(frozen=True)
class Answer:
    """The answer to one chat request.

    Attributes:
        content: the visible text; `None` for an answer without text.
        reasoning: the reasoning before the text.
        tool_calls: dictionaries with `name`, `arguments` (a dict, or JSON text that is sent unchanged) and optionally
            `id`.
        finish_reason: default `"tool_calls"` with tool calls, else `"stop"`.
        usage: token counts that replace the counted ones.
        extra: additional keys of the message, such as `annotations`.
        choice: additional keys of the choice, such as `native_finish_reason`.
        stream_form: how the answer is streamed: a key of `STREAM_FORMS`. Default: `"usual"`.
        chunks: chunk dictionaries or strings to stream unchanged, instead of the answer.
        body: JSON value to return unchanged as the whole reply, instead of the answer. Also replaces a stream.

    Raises:
        TypeError: if an argument has the wrong type or cannot be sent as JSON.
        ValueError: if `stream_form` is unknown, or a tool call lacks a name or arguments.
    """

    content: str | None = ""
    reasoning: str | None = None
    tool_calls: Sequence[JSON] = ()
    finish_reason: str | None = None
    usage: JSON | None = None
    extra: JSON = field(default_factory=dict)
    choice: JSON = field(default_factory=dict)
    stream_form: str = "usual"
    chunks: Sequence[JSON | str] | None = None
    body: Any = None

    def __post_init__(self) -> None:
        for name, (kind, wanted) in _ANSWER_FIELDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be {wanted}, got {shown(value)}.")
            check_sendable(name, value)
        if self.stream_form not in STREAM_FORMS:
            raise ValueError(f"stream_form must be one of {', '.join(STREAM_FORMS)}, got {shown(self.stream_form)}.")
        for call in self.tool_calls:
            _check_call(call)
        for chunk in self.chunks or ():
            if not isinstance(chunk, dict | str):
                raise TypeError(f"chunks must contain only dictionaries and strings, got {shown(chunk)}.")


_TEXT = (str | None, "a string or None")
_ANSWER_FIELDS: dict[str, tuple[Any, str]] = {
    "content": _TEXT,
    "reasoning": _TEXT,
    "tool_calls": ((list, tuple), "a list of dictionaries with name and arguments"),
    "finish_reason": _TEXT,
    "usage": (dict | None, "a dict of the token counts to replace, such as {'total_tokens': 7}, or None"),
    "extra": (dict, "a dict of additional keys of the message"),
    "choice": (dict, "a dict of additional keys of the choice"),
    "stream_form": (str, "one of STREAM_FORMS"),
    "chunks": ((list, tuple, type(None)), "a list of dictionaries and strings, or None"),
    "body": (object, ""),
}


def check_sendable(name: str, value: Any) -> None:
    """Check that a value can be sent as JSON.

    Raises:
        TypeError: if the value cannot be sent as JSON.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name} must be JSON serializable, got {shown(value)}: {error}.") from None


def _check_call(call: Any) -> None:
    if not isinstance(call, dict):
        raise TypeError(f"tool_calls must contain dictionaries with name and arguments, got {shown(call)}.")
    if not isinstance(call.get("name"), str) or not isinstance(call.get("arguments"), dict | str):
        raise ValueError(f"A tool call must have a name and arguments (a dict or JSON text), got {shown(call)}.")


def text_of(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def generate(body: JSON, *, thinking: bool) -> Answer:
    """Return an answer to a request that has passed all checks."""
    messages = body["messages"]
    asked = next((text_of(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
    calls = _tool_calls(body, asked)
    if calls:
        names = " and ".join(call["name"] for call in calls)
        return Answer(content=None, tool_calls=calls, reasoning=_reasoning(body, f"I should call {names}.", thinking))
    text = _json_text(body, asked) or _text(messages, asked)
    if body.get("web_search_linkup") and not body.get("disable_formatting"):
        text += SOURCES
    return Answer(content=text, reasoning=_reasoning(body, f"The user says: {asked[:60]}", thinking))


def _text(messages: list[JSON], asked: str) -> str:
    if messages[-1]["role"] == "tool":
        results: list[str] = []
        for message in reversed(messages):
            if message["role"] != "tool":
                break
            results.insert(0, text_of(message["content"]))
        return f"The tools say: {' | '.join(results)[:_MOST_OF_TEXT]}"
    return f"You said: {asked[-300:].strip()} That is all there is to say."


def _reasoning(body: JSON, first: str, thinking: bool) -> str | None:
    if not thinking:
        return None
    sentences = _SENTENCES.get(body.get("reasoning_effort") or "medium", 2)
    return " ".join([first, *[f"Step {n}: weigh what follows from that." for n in range(1, sentences)]])


def _tool_calls(body: JSON, asked: str) -> list[JSON]:
    tools = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return []
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    elif choice == "auto":
        if body["messages"][-1]["role"] == "tool":
            return []
        tools = [tool for tool in tools if _mentions(asked, tool)]
        if body.get("parallel_tool_calls") is False:
            tools = tools[:1]
    else:
        done = _called_since_asked(body["messages"])
        tools = [tool for tool in tools if tool["name"] not in done] or tools
        tools = [tool for tool in tools if _mentions(asked, tool)][:1] or tools[:1]
    return [{"name": tool["name"], "arguments": _arguments(tool, asked)} for tool in tools]


def _arguments(tool: JSON, asked: str) -> str:
    schema = {"type": "object", **(tool.get("parameters") or {})}
    text = _filled(schema, asked, "tools", f"The parameters of {tool['name']!r}")
    if not text.startswith("{"):
        raise bad("tools", f"The parameters of {tool['name']!r} allow {excerpt(text)}; they must describe an object.")
    return text


def _filled(schema: JSON, asked: str, param: str, where: str) -> str:
    """Return the JSON text of a value that fits a schema. Any error in the schema rejects the request.

    Raises:
        Refusal: if no value fits the schema.
    """
    try:
        return _compact(fill(schema, asked))
    except Exception as error:
        why = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {excerpt(str(error))}"
        raise bad(param, f"{where} cannot be filled: {why}") from error


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _called_since_asked(messages: list[JSON]) -> set[str]:
    asked_at = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=0)
    calls = [call for message in messages[asked_at:] for call in message.get("tool_calls") or ()]
    return {call["function"]["name"] for call in calls}


def _mentions(asked: str, tool: JSON) -> bool:
    """Return True if a question contains a tool's name, or a word of more than three letters from that name."""
    lowered = asked.lower()
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[^\W_]+", tool["name"]) if len(word) > 3]
    return tool["name"].lower() in lowered or any(word in lowered for word in words)


def _json_text(body: JSON, asked: str) -> str | None:
    response_format = body.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"].get("schema") or {}
        return _filled(schema, asked, "response_format", "response_format.json_schema.schema")
    if response_format.get("type") != "json_object" and not _is_told_to_answer_in_json(body["messages"]):
        return None
    schema = _schema_in([text_of(message.get("content")) for message in body["messages"]])
    # Text in a prompt may only look like a schema. In that case, the quoted words of the prompt become the keys.
    with contextlib.suppress(Refusal):
        if schema is not None:
            return _filled(schema, asked, "messages", "The schema")
    keys = re.findall(r"""["'`]([A-Za-z_]\w*)["'`]""", asked)[:_MOST_KEYS] or ["answer"]
    return _compact(fill({"properties": {key: {"type": "string"} for key in keys}}, asked))


def _is_told_to_answer_in_json(messages: list[JSON]) -> bool:
    """Return whether a system message asks for JSON in words, as it must on an endpoint without a JSON mode."""
    told = [text_of(message.get("content")) for message in messages if message.get("role") in ("system", "developer")]
    return any("answer with one json object and nothing else" in text.lower() for text in told)


def _schema_in(texts: list[str]) -> JSON | None:
    """Return the first JSON schema among the first objects in the texts, or None."""
    for text in (text[:_MOST_OF_TEXT] for text in texts if '"properties"' in text):
        for match in itertools.islice(re.finditer(r"\{", text), _MOST_OBJECTS):
            try:
                found, _ = json.JSONDecoder().raw_decode(text, match.start())
            except (ValueError, RecursionError):
                continue
            if _is_schema(found):
                return dict(found)
    return None


def _is_schema(found: JSON) -> bool:
    """Return True for a schema, False for data that also have `properties`, such as GeoJSON."""
    properties = found.get("properties")
    return isinstance(properties, dict) and all(isinstance(value, dict) for value in properties.values())
