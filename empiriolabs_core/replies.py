"""Reads wire dictionaries: whole replies and stream chunks.

Everything is a function without input or output of its own, or a small object that is fed one chunk after the other,
so that sync and async callers share it.
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
        output_tokens: generated tokens, reasoning included; 0 if not reported.
        total_tokens: both together.
        cached_tokens: tokens of the prompt that were read from the cache; `None` if not reported.
        reasoning_tokens: generated tokens that were reasoning; `None` if not reported.
        partial: whether the count of prompt or generated tokens was not reported, so that the cost is not known.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    partial: bool = False


def read_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Read a `usage` object.

    Counts are read under the names of Chat Completions and of the Responses API; cached tokens also where DeepSeek
    puts them. A count may be a whole number, `10.0` or `"10"`. Negative counts, fractions, booleans, and more cached
    tokens than the prompt has cannot be right, so they count as not reported. A missing count of prompt or generated
    tokens is derived from the total. If only a total is reported, as for rerank, all of it is input.

    Returns:
        The counts, or `None` if none of prompt, generated and total tokens can be read.
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
        # Equal counts say that nothing was generated, or that the server did not count it.
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
    """Return the first of several counts that can be read."""
    found = (_count(counts, name) for name in names)
    return next((count for count in found if count is not None), None)


def _count(counts: object, name: str) -> int | None:
    """Return a count, or `None` if it is missing or not a whole number of 0 or more."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    if isinstance(value, str):
        # More digits than any count has; Python refuses to read thousands of them.
        return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15 or value != int(value):
        return None
    return int(value)


def read_reasoning(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning of a message or delta; some upstreams call the field `reasoning`."""
    found = message.get("reasoning_content")
    if found is None:
        found = message.get("reasoning")
    return found if isinstance(found, str) else None


def read_text(message: Mapping[str, Any]) -> str:
    """Return the visible text of a message or delta. Some servers send it as a list of parts.

    Raises:
        InvalidReplyError: the content is neither text nor such a list.
    """
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(_text_of(part) for part in (content if isinstance(content, list) else [content]))


def _text_of(part: Any) -> str:
    found = part
    if isinstance(part, Mapping):
        if part.get("type") in ("thinking", "reasoning"):
            warn_once(f"A part of type {part['type']!r} of an answer's content is left out. Its text stays.")
            return ""
        found = part["text"] or "" if "text" in part else part.get("refusal")
    if not isinstance(found, str):
        raise InvalidReplyError(f"The gateway answered with content that is no text: {excerpt(part)}.")
    return found


def read_refusal(message: Mapping[str, Any]) -> str | None:
    """Return the text with which the model refused, from the message's own field or from parts of its content."""
    if isinstance(message.get("refusal"), str):
        return str(message["refusal"])
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    refused = [part.get("refusal") for part in parts if part.get("type") == "refusal"]
    return "".join(text for text in refused if isinstance(text, str)) if refused else None


def check_object(reply: object) -> JSON:
    """Return a whole reply if it is a JSON object.

    Raises:
        ReportedError: the body holds an error object.
        InvalidReplyError: the body is anything else, an HTML page for instance.
    """
    if not isinstance(reply, dict):
        raise InvalidReplyError(
            "The gateway answered 200 with something that is no JSON object: "
            f"{repr(excerpt(reply)) if reply else 'an empty body'}. "
            "Check that base_url ends with the API's path, such as /v1."
        )
    check_error(reply)
    return reply


def check_completion(body: object) -> JSON:
    """Return a whole reply if it is a chat completion.

    Raises:
        ReportedError: the body holds an error object.
        InterruptedAnswerError: a choice holds an error object, or its `finish_reason` says that generation was
            interrupted or, with `null`, that it has not finished. Some servers never send a `finish_reason`.
        InvalidReplyError: the body is anything else.
    """
    reply: JSON = encodable(check_object(body))
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidReplyError(f"The gateway answered 200 without a choice: {excerpt(reply)}. Try again.")
    for choice in choices:
        if isinstance(choice, dict):
            _check_interrupted(choice, whole=True)
            if choice.get("message") is None and choice.get("finish_reason") == "content_filter":
                # Azure leaves out the message of an answer that was filtered as a whole.
                choice["message"] = {"role": "assistant", "content": None}
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise InvalidReplyError(f"The gateway answered 200 with a choice without a message: {excerpt(choice)}.")
    return reply


def check_error(reply: JSON) -> None:
    """Raise `ReportedError` if a body or chunk holds an error object."""
    error = reply.get("error")
    if not error:
        return
    raise ReportedError(f"The gateway reported an error after it had answered 200: {described(error)}", error)


_INTERRUPTED = frozenset({"insufficient_system_resource", "error"})
"""Finish reasons of an interrupted generation: DeepSeek's, and that of relays such as OpenRouter."""


def _check_interrupted(choice: JSON, *, whole: bool) -> None:
    """Raise `InterruptedAnswerError` if generation was interrupted; see `check_completion`."""
    error, reason = choice.get("error"), choice.get("finish_reason", ...)
    if error:
        raise InterruptedAnswerError(
            f"The gateway reported an error in the middle of the answer: {described(error)}. Retry.", error
        )
    if (isinstance(reason, str) and reason in _INTERRUPTED) or (whole and reason is None):
        raise InterruptedAnswerError(
            f"The model stopped before its answer was complete (finish_reason={reason!r}). Retry.",
            choice,
            reason if isinstance(reason, str) else None,
        )


class StreamCheck:
    """Watches a stream, so that one that broke off is never taken for a whole answer.

    Only the choice with index 0 counts: no other was requested.

    Attributes:
        usage: what the stream reported last, if anything.
        begun: whether a piece of an answer has come.
        done: whether `[DONE]` has come. It ends an answer without a finish_reason too, as Snowflake sends them.
    """

    def __init__(self) -> None:
        self.usage: JSON | None = None
        self.done = False
        self.begun = False
        self._finished = False
        self._has_content = False

    @readable
    def see(self, chunk: object) -> JSON:
        """Return a chunk if it is one; note whether the answer has begun, and whether it has finished.

        Raises:
            ReportedError: the chunk holds an error object.
            InterruptedAnswerError: generation was interrupted.
            InvalidReplyError: the chunk is no JSON object, or its choices are no list of objects.
        """
        if not isinstance(chunk, dict):
            raise InvalidReplyError(f"The stream held something that is no JSON object: {excerpt(chunk)}.")
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        if "error" in chunk:
            check_error(chunk)
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict):
                raise InvalidReplyError(f"The stream held a choice that is no JSON object: {excerpt(choice)}.")
            if choice.get("index"):
                continue
            self.begun = True
            if choice.get("finish_reason") or "error" in choice:
                _check_interrupted(choice, whole=False)
            if choice.get("finish_reason"):
                # After it, usage, sources or a footer may still come with the choice.
                self._finished = True
            elif not self._has_content:
                self._has_content = _adds_something(choice.get("delta"))
        return chunk

    def end(self) -> None:
        """Raise `IncompleteStreamError` if the stream ended before the answer had finished.

        `[DONE]` finishes an answer, if there is any of it.
        """
        if not self.begun:
            raise IncompleteStreamError("The stream ended before the first piece of an answer. Try again.")
        if not self._finished and not (self.done and self._has_content):
            raise IncompleteStreamError(
                "The stream ended without a finish_reason, so the answer is not complete. "
                "What had come before stays valid; ask again for a whole one."
            )


def _adds_something(delta: Any) -> bool:
    return isinstance(delta, Mapping) and any(value for name, value in delta.items() if name != "role")


def warn_if_cut_short(finish_reason: str | None, text: object, tool_calls: object) -> None:
    """Warn that an answer is empty since the reasoning before it took all of `max_tokens`."""
    if finish_reason == "length" and not text and not tool_calls:
        warnings.warn(
            "The answer is empty: max_tokens was used up before it began (finish_reason='length'). "
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
"""Finish reasons of answers that did not end by themselves. The second to fourth are those of other upstreams, which
relays report as `native_finish_reason`."""


def why_truncated(choice: Mapping[str, Any], usage: Mapping[str, Any] | None, body: Mapping[str, Any]) -> str | None:
    """Return the reason why a call at the end of an answer may be truncated; `None` if the answer is whole.

    Relays report `tool_calls` for a truncated call too. What the upstream said, or `max_tokens` used up, tells.

    Args:
        choice: the choice, or the last chunk of it.
        usage: the usage of the answer, if it was reported.
        body: the request.
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
    """What one chunk of a stream adds to the message.

    Attributes:
        text: visible text.
        reasoning: text of the reasoning.
        tool_calls: pieces of tool calls.
        logprobs: log probabilities as they came.
        finish_reason: why the answer ended, in the chunk that ends it.
    """

    text: str
    reasoning: str
    tool_calls: list[ToolCallPiece]
    logprobs: JSON | None
    finish_reason: str | None


_MESSAGE_KEYS = frozenset({"role", "content", "reasoning_content", "reasoning", "tool_calls"})
_PIECES = frozenset({"refusal", "reasoning_details", "data", "transcript", "other_items"})
"""Names of what comes in pieces: the first and those within `audio` are OpenAI's, the second is OpenRouter's. The last
is the name that `endpoints` gives to output items that only the server understands, such as its own web searches."""


class StreamedReply:
    """Reads the chunks of one stream, and keeps what is told once for the whole message.

    Attributes:
        last: the first chunk with a finish_reason.
        usage: the usage that the stream reported last.
        texts: the pieces of visible text so far.
        tool_calls: the calls so far.
        sources: what `read_citations` reads.
        unknown: keys of deltas that this package does not know.
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
        """Take one chunk; `None` where it adds nothing to the message."""
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        if not SOURCE_KEYS.isdisjoint(chunk):
            note_sources(self.sources, chunk)
        choices = chunk.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if len(choices) > 1 or choice.get("index"):
            # A choice that was not requested is not read.
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
        """Return what is still missing: ids of calls without one, and U+FFFD for half a character that stays alone.

        Warns if the answer is empty since the reasoning took all of `max_tokens`.
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
    """Add the unknown keys of one more delta: what comes in pieces is joined, of the rest the last stays."""
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
    """Return what a message or delta holds besides the keys that this package reads; a refusal under `refusal`."""
    unknown = {n: value for n, value in message.items() if n not in _MESSAGE_KEYS and value is not None}
    refusal = read_refusal(message) if isinstance(message.get("content"), list) else None
    return unknown if refusal is None else {**unknown, "refusal": refusal}
