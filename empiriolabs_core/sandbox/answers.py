"""Scripted answers: what the sandbox says where no model is behind it. Deterministic from the request."""

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
"""The footer of a web search. Inferred: that there is one is documented, its markdown is not."""

_MOST_KEYS, _MOST_OBJECTS, _MOST_OF_TEXT = 100, 200, 100_000
"""How much of a prompt is searched for a schema, or repeated, so that none keeps the sandbox busy."""

_SENTENCES = {"low": 1, "medium": 2, "high": 4, "max": 8}


STREAM_FORMS = {
    "usual": "one piece of a call in each delta, with its index",
    "pieces_together": "all pieces of a call in a single delta, as vLLM with speculative decoding",
    "no_index": "calls have neither index nor id",
    "rising_index": "the index of a call increases with every piece",
    "second_choice": "a second choice, which was not requested, is mixed into the stream",
    "half_characters": "characters such as emoji are split over two deltas, half a surrogate pair in each",
}
"""Forms of streams that servers were seen to send."""


@dataclass(frozen=True)
class Answer:
    """What to answer one chat request with.

    Attributes:
        content: the visible text; `None` for none.
        reasoning: the reasoning before it.
        tool_calls: dictionaries with `name`, `arguments` (a dict, or JSON text as it is) and perhaps `id`.
        finish_reason: default `"tool_calls"` with tool calls, else `"stop"`.
        usage: keys that replace those of the counted usage.
        extra: further keys of the message, such as `annotations`.
        choice: further keys of the choice, such as `native_finish_reason`.
        stream_form: one of `STREAM_FORMS`, how the answer is streamed. Default: `"usual"`.
        chunks: chunk dictionaries, or texts, to stream just as they are.
        body: the reply of a request that is not streamed, just as it is.

    Raises:
        TypeError, ValueError: an argument is of another type, or cannot be sent as JSON.
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
                raise TypeError(f"{name}={shown(value)} is no {wanted}.")
            check_sendable(name, value)
        if self.stream_form not in STREAM_FORMS:
            raise ValueError(f"stream_form must be one of {', '.join(STREAM_FORMS)}, got {shown(self.stream_form)}.")
        for call in self.tool_calls:
            _check_call(call)
        for chunk in self.chunks or ():
            if not isinstance(chunk, dict | str):
                raise TypeError(f"chunks holds {shown(chunk)}. Pass dictionaries, or texts.")


_TEXT = (str | None, "text. Pass a str, or None for none")
_ANSWER_FIELDS: dict[str, tuple[Any, str]] = {
    "content": _TEXT,
    "reasoning": _TEXT,
    "tool_calls": ((list, tuple), "list. Pass a list of dictionaries with name and arguments"),
    "finish_reason": _TEXT,
    "usage": (dict | None, "dict. Pass the keys to replace, such as {'total_tokens': 7}"),
    "extra": (dict, "dict. Pass further keys of the message"),
    "choice": (dict, "dict. Pass further keys of the choice"),
    "stream_form": (str, "text. Pass one of STREAM_FORMS"),
    "chunks": ((list, tuple, type(None)), "list. Pass a list of dictionaries or texts, or None"),
    "body": (object, ""),
}


def check_sendable(name: str, value: Any) -> None:
    """Refuse what JSON cannot hold.

    Raises:
        TypeError: it cannot be sent.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name}={shown(value)} cannot be sent as JSON: {error}.") from None


def _check_call(call: Any) -> None:
    if not isinstance(call, dict):
        raise TypeError(f"tool_calls holds {shown(call)}. Pass dictionaries with name and arguments.")
    if not isinstance(call.get("name"), str) or not isinstance(call.get("arguments"), dict | str):
        raise ValueError(f"A tool call needs name and arguments, as a dict or JSON text; {shown(call)} lacks one.")


def text_of(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def generate(body: JSON, *, thinking: bool) -> Answer:
    """Return an answer to a request that has passed the rules."""
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
    """Return the JSON text of a value that fits a schema. Whatever is wrong with the schema is the request's fault.

    Raises:
        Refusal: nothing fits it.
    """
    try:
        return _compact(fill(schema, asked))
    except Exception as error:
        told = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {excerpt(str(error))}"
        raise bad(param, f"{where} cannot be filled: {told}") from error


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _called_since_asked(messages: list[JSON]) -> set[str]:
    asked_at = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=0)
    calls = [call for message in messages[asked_at:] for call in message.get("tool_calls") or ()]
    return {call["function"]["name"] for call in calls}


def _mentions(asked: str, tool: JSON) -> bool:
    """Tell whether a question is about a tool: it has its name, or a telling word of it."""
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
    # What stands in a prompt may look like a schema and be none. Then its words say what the keys are.
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
    """Return the first JSON schema that stands in a text, among its first objects."""
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
    """Tell a schema from data that have properties too, such as GeoJSON."""
    properties = found.get("properties")
    return isinstance(properties, dict) and all(isinstance(value, dict) for value in properties.values())
