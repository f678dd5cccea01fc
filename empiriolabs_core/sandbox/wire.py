"""Build replies and chunks in the wire format of chat completions, and count their tokens."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from empiriolabs_core.sandbox.answers import JSON, Answer, text_of

IMPLICIT_SYSTEM_TOKENS = 12
"""Tokens that the gateway's own system prompt adds to a request without one. The prompt is documented; its size is
inferred."""

# Only the first token may begin with spaces. A pattern with optional spaces before every token would take hours on a
# long row of spaces.
_TOKEN = re.compile(r"(?:\A\s+)?(?:\w+|[^\w\s])\s*")
_CACHE_BLOCK = 64


def pieces(text: str) -> list[str]:
    """Split a text into pieces of about one token."""
    return _TOKEN.findall(text) or ([text] if text else [])


def count(text: str) -> int:
    """Return the number of tokens in a text: its words and punctuation marks."""
    return len(pieces(text))


@dataclass(frozen=True)
class Turn:
    """An answer, truncated to the requested length, and its token usage."""

    id: str
    created: int
    model: str
    answers: tuple[Answer, ...]
    finish_reasons: tuple[str, ...]
    usage: JSON
    logprobs: bool = False
    stop_sequence: str | None = None


_MOST_KNOWN = 100_000
"""How many beginnings of conversations are remembered. The oldest is dropped first."""


class PrefixCache:
    """Remembers the beginnings of conversations, like an upstream's implicit cache. Inferred, with its block size."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._lock = threading.Lock()

    def cached_tokens(self, model: str, messages: list[JSON]) -> int:
        """Return how many prompt tokens of a conversation are cached, and cache the conversation."""
        digest, tokens, cached = hashlib.sha256(model.encode()), 0, 0
        with self._lock:
            for message in messages:
                digest.update(json.dumps(message, sort_keys=True).encode())
                tokens += message_tokens(message)
                if digest.hexdigest() in self._known:
                    cached = tokens
                self._known[digest.hexdigest()] = None
            while len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return cached // _CACHE_BLOCK * _CACHE_BLOCK


def message_tokens(message: JSON) -> int:
    """Return the number of tokens in a message."""
    calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
    return 4 + count(text_of(message.get("content"))) + count(message.get("reasoning_content") or "") + count(calls)


def prompt_tokens(body: JSON) -> int:
    """Return the number of prompt tokens in a request."""
    implicit = not any(message["role"] in ("system", "developer") for message in body["messages"])
    tools = count(json.dumps(body["tools"])) if body.get("tools") else 0
    return sum(map(message_tokens, body["messages"])) + tools + implicit * IMPLICIT_SYSTEM_TOKENS


def shorten(answer: Answer, body: JSON) -> tuple[Answer, str]:
    """Truncate an answer at a stop sequence and at `max_tokens`, and return it with its finish reason.

    Reasoning counts towards `max_tokens`. DeepSeek documents this; for the gateway, it is inferred. Tool calls are
    truncated as recorded at DeepSeek: earlier calls stay complete, and the last one loses some or all of its arguments.
    """
    reasoning, content = answer.reasoning or "", answer.content or ""
    stops = body.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        content = content.split(stop)[0]
    left = body.get("max_tokens") or body.get("max_completion_tokens") or 4096
    thoughts = pieces(reasoning)
    allowed = thoughts[: body.get("thinking_budget") or 32768]
    thought = allowed[:left]
    said = pieces(content)[: left - len(thought)]
    calls, whole = _shorten_calls(answer.tool_calls, left - len(thought) - len(said))
    cut = not whole or len(thought) < len(allowed) or len(said) < count(content)
    reasoning = reasoning if len(thought) == len(thoughts) else "".join(thought)
    content = content if len(said) == count(content) else "".join(said)
    short = replace(answer, reasoning=reasoning or None, content=content or (None if calls else ""), tool_calls=calls)
    return short, answer.finish_reason or ("length" if cut else "tool_calls" if calls else "stop")


def stop_sequence(answer: Answer, short: Answer, body: JSON) -> str | None:
    """Return the stop sequence that ended the text, or None."""
    stops = body.get("stop") or []
    content, kept = answer.content or "", short.content or ""
    found = [stop for stop in ([stops] if isinstance(stops, str) else stops) if content.startswith(kept + stop)]
    return found[0] if found else None


def _shorten_calls(calls: Sequence[JSON], left: int) -> tuple[tuple[JSON, ...], bool]:
    """Return the calls that fit into the remaining tokens, and whether that is all of them, untruncated."""
    kept: list[JSON] = []
    for call in calls:
        left -= count(call["name"])
        if left < 0:
            return tuple(kept), False
        text = _arguments(call)
        arguments = pieces(text)
        if len(arguments) > left:
            return (*kept, {**call, "arguments": "".join(arguments[:left])}), False
        left -= len(arguments)
        kept.append(call)
    return tuple(kept), True


def usage_of(body: JSON, answers: tuple[Answer, ...], cached: int) -> JSON:
    """Return the token usage of a turn."""
    prompt = prompt_tokens(body)
    first, times = answers[0], len(answers)  # All answers are the same.
    reasoning = times * count(first.reasoning or "")
    called = sum(count(call["name"]) + count(_arguments(call)) for call in first.tool_calls)
    said = times * (count(first.content or "") + called)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reasoning + said,
        "total_tokens": prompt + reasoning + said,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        **(first.usage or {}),
    }


def _arguments(call: JSON) -> str:
    arguments = call["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _call(turn: Turn, number: int, call: JSON) -> JSON:
    call_id = call.get("id") or f"call_{turn.id[-8:]}_{number}"
    return {"id": call_id, "type": "function", "function": {"name": call["name"], "arguments": _arguments(call)}}


def completion(turn: Turn) -> JSON:
    """Return a turn as a whole reply."""
    choices = []
    for index, (answer, finish_reason) in enumerate(zip(turn.answers, turn.finish_reasons, strict=True)):
        message: JSON = {"role": "assistant", "content": answer.content}
        if answer.reasoning is not None:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [_call(turn, number, call) for number, call in enumerate(answer.tool_calls)]
        logprobs = _logprobs(answer.content or "") if turn.logprobs else None
        message.update(answer.extra)
        choice = {"index": index, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}
        choices.append({**choice, **answer.choice})
    return {**_head(turn, "chat.completion"), "choices": choices, "usage": turn.usage}


def chunks(turn: Turn, *, include_usage: bool, usage_on_finish: bool = False) -> Iterator[JSON]:
    """Yield a turn as the chunks of a stream: role, reasoning, text, tool calls, finish reason and usage.

    Args:
        turn: the answer.
        include_usage: whether the request asked for usage. If so, a separate chunk contains it, as at Model Studio.
        usage_on_finish: whether the chunk with the finish reason always contains the usage instead, and all earlier
            chunks contain null. Recorded at DeepSeek.
    """
    for one in _chunks_without_usage(turn):
        finished = any(choice["finish_reason"] for choice in one["choices"])
        yield {**one, "usage": turn.usage if finished else None} if usage_on_finish else one
    if include_usage and not usage_on_finish:
        yield {**chunk(turn, {}, 0), "choices": [], "usage": turn.usage}


def _chunks_without_usage(turn: Turn) -> Iterator[JSON]:
    for index, (answer, finish_reason) in enumerate(zip(turn.answers, turn.finish_reasons, strict=True)):
        yield chunk(turn, {"role": "assistant", "content": ""}, index)
        halved = answer.stream_form == "half_characters"
        for piece in _streamed(answer.reasoning, halved):
            yield chunk(turn, {"content": None, "reasoning_content": piece}, index)
        for piece in _streamed(answer.content, halved):
            if answer.stream_form == "second_choice":
                yield chunk(turn, {"content": "(not requested) "}, index + 1)
            logprobs = _logprobs(piece) if turn.logprobs else None
            yield chunk(turn, {"content": piece}, index, logprobs=logprobs)
        for deltas in _calls_deltas(turn, answer):
            yield chunk(turn, {"tool_calls": deltas}, index)
        end = chunk(turn, dict(answer.extra), index, finish_reason=finish_reason)
        end["choices"][0].update(answer.choice)
        yield end


def chunk(turn: Turn, delta: JSON, index: int, finish_reason: str | None = None, logprobs: Any = None) -> JSON:
    """Return one chunk."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return {**_head(turn, "chat.completion.chunk"), "choices": [choice]}


def _head(turn: Turn, kind: str) -> JSON:
    """Return the keys before the choices. DeepSeek documents the fingerprint; for the gateway, it is inferred."""
    head = {"id": turn.id, "object": kind, "created": turn.created, "model": turn.model}
    return {**head, "system_fingerprint": "fp_sandbox"}


def _streamed(text: str | None, halved: bool) -> Iterator[str]:
    """Yield the pieces of a text. With `halved`, characters above U+FFFF are split into surrogates over two pieces."""
    for piece in pieces(text or ""):
        wide = next((at for at, letter in enumerate(piece) if letter > "\uffff"), None) if halved else None
        if wide is None:
            yield piece
        else:
            code = ord(piece[wide]) - 0x10000
            yield piece[:wide] + chr(0xD800 + (code >> 10))
            yield chr(0xDC00 + (code & 0x3FF)) + piece[wide + 1 :]


def _calls_deltas(turn: Turn, answer: Answer) -> Iterator[list[JSON]]:
    """Yield the `tool_calls` of each delta, in the answer's stream form."""
    form, count_of_pieces = answer.stream_form, itertools.count()
    for number, call in enumerate(answer.tool_calls):
        deltas = list(_call_deltas(_call(turn, number, call), number))
        for delta in deltas:
            if form == "rising_index":
                delta["index"] = next(count_of_pieces)
            elif form == "no_index":
                delta.pop("index")
                delta.pop("id", None)
        yield from [deltas] if form == "pieces_together" else [[delta] for delta in deltas]


def _call_deltas(call: JSON, number: int) -> Iterator[JSON]:
    arguments = call["function"]["arguments"]
    yield {"index": number, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
    for start in range(0, len(arguments), 6):
        yield {"index": number, "function": {"arguments": arguments[start : start + 6]}}


def _logprobs(text: str) -> JSON:
    tokens = [{"token": piece, "logprob": -0.25, "bytes": list(piece.encode())} for piece in pieces(text)]
    return {"content": [{**token, "top_logprobs": [token]} for token in tokens]}


def event(data: JSON | str) -> bytes:
    """Return one server-sent event. A lone surrogate is sent as a JSON escape."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    try:
        return f"data: {text}\n\n".encode()
    except UnicodeEncodeError:
        return f"data: {json.dumps(data)}\n\n".encode()
