"""Read wire dictionaries: complete replies and chunks of streams.

The module performs no I/O. It contains functions, and small objects that receive one chunk after the other, so that
sync and async callers share it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from empiriolabs_core.citations import SOURCE_KEYS, note_sources
from empiriolabs_core.errors import (
    JSON,
    IncompleteStreamError,
    InterruptedAnswerError,
    InvalidReplyError,
    ReportedError,
    described,
    excerpt,
    readable,
    warn_once,
)
from empiriolabs_core.surrogates import Halves, encodable
from empiriolabs_core.tool_calls import ToolCallPiece, ToolCalls, unusable_calls


class Usage(NamedTuple):
    """Token counts of one call.

    Attributes:
        input_tokens: tokens of the prompt; 0 if not reported.
        output_tokens: generated tokens, including reasoning; 0 if not reported.
        total_tokens: sum of prompt and generated tokens.
        cached_tokens: tokens of the prompt that were read from the cache; `None` if not reported.
        reasoning_tokens: generated tokens that were reasoning; `None` if not reported.
        partial: whether the prompt or generated tokens were not reported, so that the cost is unknown.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    partial: bool = False


def read_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Read a `usage` object.

    Supports the names of Chat Completions and the Responses API, and DeepSeek's name for cached tokens. A count may be
    an integer, `10.0` or `"10"`. Negative counts, fractions, booleans, and more cached tokens than prompt tokens are
    invalid and count as not reported. A missing count of prompt or generated tokens is derived from the total. If only
    a total is reported, as for rerank, all of it is input.

    Returns:
        The counts, or `None` if neither prompt, generated nor total tokens are reported.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt = _first_count(usage, "prompt_tokens", "input_tokens")
    completion = _first_count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    partial = prompt is None or completion is None
    if total is not None and (prompt is None) != (completion is None):
        rest = total - (prompt or completion or 0)
        prompt, completion = (rest, completion) if prompt is None else (prompt, rest)
        # If the counts are equal, either nothing was generated or the server did not count it.
        partial = rest <= 0
    elif prompt is None and completion is None:
        prompt = total
    prompt, completion = max(prompt or 0, 0), max(completion or 0, 0)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _first_count(details, "cached_tokens")
    cached = _count(usage, "prompt_cache_hit_tokens") if cached is None else cached
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=total or prompt + completion,
        cached_tokens=None if cached is not None and cached > prompt else cached,
        reasoning_tokens=_count(
            usage.get("completion_tokens_details") or usage.get("output_tokens_details"), "reasoning_tokens"
        ),
        partial=partial,
    )


def _first_count(counts: object, *names: str) -> int | None:
    """Return the first valid count."""
    found = (_count(counts, name) for name in names)
    return next((count for count in found if count is not None), None)


def _count(counts: object, name: str) -> int | None:
    """Return a count, or `None` if it is missing or not an integer >= 0."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    if isinstance(value, str):
        # No count has more digits, and Python raises an error for texts with thousands of digits.
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15 or value != int(value):
        return None
    return int(value)


def read_reasoning(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning of a message or delta. Some upstreams name the field `reasoning`."""
    found = message.get("reasoning_content")
    if found is None:
        found = message.get("reasoning")
    return found if isinstance(found, str) else None


def read_text(message: Mapping[str, Any]) -> str:
    """Return the visible text of a message or delta. Some servers send it as a list of parts.

    Raises:
        InvalidReplyError: if the content is neither text nor such a list.
    """
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(_text_of(part) for part in (content if isinstance(content, list) else [content]))


def _text_of(part: Any) -> str:
    found = part
    if isinstance(part, Mapping):
        if part.get("type") in ("thinking", "reasoning"):
            warn_once(f"A part of type {part['type']!r} was dropped from an answer's content. The text was kept.")
            return ""
        found = part["text"] or "" if "text" in part else part.get("refusal")
    if not isinstance(found, str):
        raise InvalidReplyError(f"The gateway returned content that is not text: {excerpt(part)}.")
    return found


def read_refusal(message: Mapping[str, Any]) -> str | None:
    """Return the text of a refusal, from the message's `refusal` field or from parts of its content."""
    if isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    refused = [part.get("refusal") for part in parts if part.get("type") == "refusal"]
    return "".join(text for text in refused if isinstance(text, str)) if refused else None


def check_object(reply: object) -> JSON:
    """Check that a complete reply is a JSON object, and return it.

    Raises:
        ReportedError: if the body contains an error object.
        InvalidReplyError: if the body is anything else, such as an HTML page.
    """
    if not isinstance(reply, dict):
        raise InvalidReplyError(
            "The gateway returned 200, but the body is not a JSON object: "
            f"{repr(excerpt(reply)) if reply else 'an empty body'}. "
            "Check that base_url ends with the API's path, such as /v1."
        )
    check_error(reply)
    return reply


def check_completion(body: object) -> JSON:
    """Check that a complete reply is a chat completion, and return it.

    Raises:
        ReportedError: if the body contains an error object.
        InterruptedAnswerError: if a choice contains an error object, or its `finish_reason` reports an interruption or
            is `null`. A missing `finish_reason` is accepted, since some servers never send it.
        InvalidReplyError: if the body is anything else.
    """
    reply: JSON = encodable(check_object(body))
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidReplyError(f"The gateway returned 200, but no choices: {excerpt(reply)}. Retry.")
    for choice in choices:
        if isinstance(choice, dict):
            _check_interrupted(choice, whole=True)
            if choice.get("message") is None and choice.get("finish_reason") == "content_filter":
                # Azure omits the message if the complete answer was filtered.
                choice["message"] = {"role": "assistant", "content": None}
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise InvalidReplyError(f"The gateway returned 200, but a choice has no message: {excerpt(choice)}.")
    return reply


def check_error(reply: JSON) -> None:
    """Raise `ReportedError` if a body or chunk contains an error object."""
    error = reply.get("error")
    if not error:
        return
    raise ReportedError(f"The gateway reported an error after status 200: {described(error)}", error)


_INTERRUPTED = frozenset({"insufficient_system_resource", "error"})
"""Finish reasons of an interrupted generation, from DeepSeek and from relays such as OpenRouter."""


def _check_interrupted(choice: JSON, *, whole: bool) -> None:
    """Raise `InterruptedAnswerError` if generation was interrupted; see `check_completion`."""
    error, reason = choice.get("error"), choice.get("finish_reason", ...)
    if error:
        raise InterruptedAnswerError(
            f"The gateway reported an error during the answer: {described(error)}. Retry.", error
        )
    if (isinstance(reason, str) and reason in _INTERRUPTED) or (whole and reason is None):
        raise InterruptedAnswerError(
            f"The model stopped before its answer was complete (finish_reason={reason!r}). Retry.",
            choice,
            reason if isinstance(reason, str) else None,
        )


class StreamCheck:
    """Checks the chunks of a stream, so that a truncated stream raises an error.

    Only the choice with index 0 is checked: no other choice was requested.

    Attributes:
        usage: the usage that was reported last, if any.
        begun: whether a part of the answer was received.
        done: whether `[DONE]` was received. It also ends an answer without a finish_reason, as Snowflake sends it.
    """

    def __init__(self) -> None:
        self.usage: JSON | None = None
        self.done = False
        self.begun = False
        self._finished = False
        self._has_content = False

    @readable
    def see(self, chunk: object) -> JSON:
        """Check a chunk and return it. Records whether the answer has started and whether it has finished.

        Raises:
            ReportedError: if the chunk contains an error object.
            InterruptedAnswerError: if generation was interrupted.
            InvalidReplyError: if the chunk is not a JSON object, or its choices are not a list of objects.
        """
        if not isinstance(chunk, dict):
            raise InvalidReplyError(f"The stream contained a chunk that is not a JSON object: {excerpt(chunk)}.")
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        if "error" in chunk:
            check_error(chunk)
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict):
                raise InvalidReplyError(f"The stream contained a choice that is not a JSON object: {excerpt(choice)}.")
            if choice.get("index"):
                continue
            self.begun = True
            if choice.get("finish_reason") or "error" in choice:
                _check_interrupted(choice, whole=False)
            if choice.get("finish_reason"):
                # Usage, sources or a footer may still follow.
                self._finished = True
            elif not self._has_content:
                self._has_content = _adds_something(choice.get("delta"))
        return chunk

    def end(self) -> None:
        """Raise `IncompleteStreamError` if the stream ended before the answer finished.

        `[DONE]` finishes an answer that has started.
        """
        if not self.begun:
            raise IncompleteStreamError("The stream ended before the answer started. Retry.")
        if not self._finished and not (self.done and self._has_content):
            raise IncompleteStreamError(
                "The stream ended without a finish_reason, so the answer is not complete. "
                "Chunks that were received stay valid. Retry to get a complete answer."
            )


def _adds_something(delta: Any) -> bool:
    return isinstance(delta, Mapping) and any(value for name, value in delta.items() if name != "role")


def warn_if_cut_short(finish_reason: str | None, text: object, tool_calls: object) -> None:
    """Warn that an answer is empty because the reasoning used all of `max_tokens`."""
    if finish_reason == "length" and not text and not tool_calls:
        warnings.warn(
            "The answer is empty: reasoning used all of max_tokens (finish_reason='length'). "
            "Raise max_tokens, or lower thinking_budget or reasoning_effort.",
            stacklevel=2,
        )


_TRUNCATED = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "content_filter",
        "insufficient_system_resource",
        "error",
    }
)
"""Finish reasons of answers that were truncated or filtered. The second to fourth are from other upstreams; relays
report them as `native_finish_reason`."""


def why_truncated(choice: Mapping[str, Any], usage: Mapping[str, Any] | None, body: Mapping[str, Any]) -> str | None:
    """Return why a call at the end of an answer may be truncated; `None` if the answer is complete.

    Relays report `tool_calls` even for a truncated call, so the upstream's own reason and the number of generated
    tokens are checked too.

    Args:
        choice: the choice, or its last chunk.
        usage: the usage of the answer, if it was reported.
        body: the body of the request.
    """
    finish_reason = choice.get("finish_reason")
    if finish_reason is None:
        return "incomplete"
    for reason in (finish_reason, choice.get("native_finish_reason")):
        if isinstance(reason, str) and reason.lower() in _TRUNCATED:
            return reason
    limit, counts = body.get("max_tokens") or body.get("max_completion_tokens"), read_usage(usage)
    used_up = isinstance(limit, int) and counts is not None and counts.output_tokens >= limit
    return "length" if used_up and (body.get("n") or 1) == 1 else None


class Delta(NamedTuple):
    """The content that one chunk of a stream adds to the message.

    Attributes:
        text: visible text.
        reasoning: text of the reasoning.
        tool_calls: fragments of tool calls.
        logprobs: log probabilities, as received.
        finish_reason: why the answer ended, in its last chunk.
    """

    text: str
    reasoning: str
    tool_calls: list[ToolCallPiece]
    logprobs: JSON | None
    finish_reason: str | None


_MESSAGE_KEYS = frozenset({"role", "content", "reasoning_content", "reasoning", "tool_calls"})
_PIECES = frozenset({"refusal", "reasoning_details", "data", "transcript", "other_items"})
"""Keys whose values arrive in fragments. The first and those in `audio` are OpenAI's, the second is OpenRouter's.
The last is the key under which `endpoints` stores items that only the server understands, such as its web searches."""


class StreamedReply:
    """Reads the chunks of one stream, and stores the values that apply to the whole message.

    Attributes:
        last: the first chunk with a finish_reason.
        usage: the usage that the stream reported last.
        texts: the fragments of visible text so far.
        tool_calls: the calls so far.
        sources: the input of `read_citations`.
        unknown: keys of deltas that this package does not support.
    """

    def __init__(self) -> None:
        self.last: JSON = {"choices": [{}]}
        self._finished = False
        self.usage: JSON | None = None
        self.texts: list[str] = []
        self.tool_calls = ToolCalls()
        self._text_halves, self._reasoning_halves = Halves(), Halves()
        self.sources: JSON = {}
        self.unknown: JSON = {}

    def read(self, chunk: JSON) -> Delta | None:
        """Read one chunk. Returns `None` if it adds nothing to the message."""
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        if not SOURCE_KEYS.isdisjoint(chunk):
            note_sources(self.sources, chunk)
        choices = chunk.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if len(choices) > 1 or choice.get("index"):
            # Ignore choices that were not requested.
            choice = next((one for one in choices if not one.get("index")), None)
            if choice is None:
                return None
        delta, finish_reason = choice.get("delta") or {}, None if self._finished else choice.get("finish_reason")
        if finish_reason:
            self.last, self._finished = {**chunk, "choices": [choice]}, True
        if not _MESSAGE_KEYS.issuperset(delta) or isinstance(delta.get("content"), list):
            note_sources(self.sources, delta)
            _add_up(self.unknown, unknown_keys(delta))
        text, calls = self._text_halves.join(read_text(delta)), delta.get("tool_calls")
        reasoning = self._reasoning_halves.join(read_reasoning(delta) or "")
        pieces = self.tool_calls.add(calls) if calls else []
        logprobs = choice.get("logprobs")
        if text:
            self.texts.append(text)
        elif not (reasoning or pieces or logprobs or finish_reason):
            return None
        return Delta(text, reasoning, pieces, logprobs, finish_reason)

    @property
    def text(self) -> str:
        """The visible text so far."""
        return "".join(self.texts)

    def finish(self) -> Delta:
        """Return the last delta: generated ids for calls without an id, and U+FFFD for an unpaired surrogate.

        Warns if the answer is empty because the reasoning used all of `max_tokens`.
        """
        text, reasoning = self._text_halves.rest(), self._reasoning_halves.rest()
        if text:
            self.texts.append(text)
        warn_if_cut_short(self.last["choices"][0].get("finish_reason"), self.texts, self.tool_calls.calls)
        return Delta(text, reasoning, self.tool_calls.finish(), None, None)

    def unusable_calls(self, body: Mapping[str, Any]) -> dict[str, JSON]:
        """Return the calls of the finished stream that must not be run; see `tool_calls.unusable_calls`."""
        return unusable_calls(self.tool_calls.calls, why_truncated(self.last["choices"][0], self.usage, body))


def _add_up(whole: JSON, piece: JSON) -> None:
    """Add the unknown keys of another delta. Fragments are joined; for other keys the last value is kept."""
    for name, value in piece.items():
        before = whole.get(name)
        if isinstance(value, dict):
            whole[name] = before if isinstance(before, dict) else {}
            _add_up(whole[name], value)
        elif isinstance(value, list):
            whole[name] = before if name in _PIECES and isinstance(before, list) else []
            whole[name].extend(value)
        else:
            joined = name in _PIECES and isinstance(before, str) and isinstance(value, str)
            whole[name] = before + value if joined else value


def unknown_keys(message: Mapping[str, Any]) -> JSON:
    """Return the keys of a message or delta that this package does not read, and a refusal under `refusal`."""
    unknown = {n: value for n, value in message.items() if n not in _MESSAGE_KEYS and value is not None}
    refusal = read_refusal(message) if isinstance(message.get("content"), list) else None
    return unknown if refusal is None else {**unknown, "refusal": refusal}
