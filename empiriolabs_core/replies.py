"""Reads wire dictionaries: whole replies and stream chunks.

The arguments of tool calls, which go back as they came, are read and written here.
Everything is a function without input or output of its own, or a small object that is fed one chunk after the other,
so that sync and async callers share it.
"""

from __future__ import annotations

import json
import re
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from empiriolabs_core.errors import (
    IncompleteStreamError,
    InvalidReplyError,
    ReportedError,
    UnsupportedContentError,
    excerpt,
    readable,
    warn_once,
)

JSON = dict[str, Any]


class Usage(NamedTuple):
    """Token counts of one call.

    Attributes:
        input_tokens: tokens of the prompt.
        output_tokens: generated tokens, reasoning included.
        total_tokens: both together.
        cached_tokens: tokens of the prompt that were read from the cache; `None` if not reported.
        reasoning_tokens: generated tokens that were reasoning; `None` if not reported.
    """

    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


def read_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Read a `usage` object; `None` where the gateway reported none that can be read.

    Cached tokens are read where OpenAI and where DeepSeek put them. Where there is a total and nothing else, as with
    rerank, all of it is input.
    """
    if not usage or not isinstance(usage, Mapping):
        return None
    if all(_count(usage, name) is None for name in ("prompt_tokens", "completion_tokens", "total_tokens")):
        return None
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    total, completion = _count(usage, "total_tokens") or 0, _count(usage, "completion_tokens") or 0
    prompt = (_count(usage, "prompt_tokens") or 0) if {"prompt_tokens", "completion_tokens"} & usage.keys() else total
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=total or prompt + completion,
        cached_tokens=_count(usage, "prompt_cache_hit_tokens") if cached is None else cached,
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(counts: object, name: str) -> int | None:
    """Return a count, or `None` for one that is missing or no whole number."""
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None


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
        InvalidReplyError: the body is anything else.
    """
    reply = check_object(body)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidReplyError(f"The gateway answered 200 without a choice: {excerpt(reply)}. Try again.")
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise InvalidReplyError(f"The gateway answered 200 with a choice without a message: {excerpt(choice)}.")
    return reply


def check_error(reply: JSON) -> None:
    """Raise `ReportedError` if a body or chunk holds an error object."""
    error = reply.get("error")
    if not error:
        return
    message = error.get("message") if isinstance(error, dict) else error
    raise ReportedError(f"The gateway reported an error after it had answered 200: {excerpt(message)}", error)


class StreamCheck:
    """Watches a stream, so that one that broke off is never taken for a whole answer.

    Attributes:
        usage: what the stream reported last, if anything.
        begun: whether a piece of an answer has come.
    """

    def __init__(self) -> None:
        self.usage: JSON | None = None
        self.begun = False
        self._unfinished: set[int] = set()
        self._finished: set[int] = set()

    @readable
    def see(self, chunk: object) -> JSON:
        """Return a chunk if it is one; note which choices have begun and which have finished.

        Raises:
            ReportedError: the chunk holds an error object.
            InvalidReplyError: the chunk is no JSON object, or its choices are no list of objects.
        """
        if not isinstance(chunk, dict):
            raise InvalidReplyError(f"The stream held something that is no JSON object: {excerpt(chunk)}.")
        if "error" in chunk:
            check_error(chunk)
        if chunk.get("usage"):
            self.usage = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict):
                raise InvalidReplyError(f"The stream held a choice that is no JSON object: {excerpt(choice)}.")
            index = choice.get("index") or 0
            self.begun = True
            if choice.get("finish_reason"):
                self._finished.add(index)
                self._unfinished.discard(index)
            elif index not in self._finished:
                # After its finish_reason, usage, sources or a footer may still come with a choice.
                self._unfinished.add(index)
        return chunk

    def end(self) -> None:
        """Raise `IncompleteStreamError` if the stream ended before each choice had finished."""
        if not self.begun:
            raise IncompleteStreamError("The stream ended before the first piece of an answer. Try again.")
        if self._unfinished:
            raise IncompleteStreamError(
                "The stream ended without a finish_reason, so the answer is not complete. "
                "What had come before stays valid; ask again for a whole one."
            )


@dataclass
class ToolCall:
    """A tool call that is being streamed.

    Attributes:
        position: its place among the calls, from 0.
        id: its id, once it has come.
        name: the tool's name, once it has come.
        arguments: the JSON text so far.
    """

    position: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ToolCallPiece(NamedTuple):
    """What one delta added to a call.

    Attributes:
        call: the call so far.
        id: the call's id, only where it is new.
        name: the tool's name, only where it is new.
        arguments: the piece of JSON text.
    """

    call: ToolCall
    id: str | None
    name: str | None
    arguments: str


class ToolCalls:
    """Puts streamed tool calls together, in every shape that servers send.

    Calls are told apart by `index`, and by `id` where a server reuses an index. A name or id that is
    repeated on every delta is taken once; a null name and a missing `function` are tolerated. A call without
    an id gets one from `add_ids`. `calls` is the list so far, in order of first appearance.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self._by_index: dict[int | None, ToolCall] = {}
        self._by_id: dict[tuple[int | None, str], ToolCall] = {}

    def add(self, deltas: list[JSON]) -> Iterator[ToolCallPiece]:
        """Take the `tool_calls` of one delta; yield what each entry added."""
        for delta in deltas:
            function = delta.get("function") or {}
            call = self._find(delta.get("index"), delta.get("id"))
            new_id = delta.get("id") if call.id is None else None
            new_name = function.get("name") if call.name is None else None
            arguments = function.get("arguments") or ""
            if new_id:
                call.id = new_id
                self._by_id[delta.get("index"), new_id] = call
            if new_name:
                call.name = new_name
            if arguments:
                call.arguments += arguments
            yield ToolCallPiece(call, new_id or None, new_name or None, arguments)

    def add_ids(self) -> list[ToolCall]:
        """Give an id to each call that came without; return those calls. Frameworks match results by it."""
        without = [call for call in self.calls if not call.id]
        for call in without:
            call.id = new_call_id()
        return without

    def _find(self, index: int | None, call_id: str | None) -> ToolCall:
        call = self._by_index.get(index)
        if call is not None and call_id and call.id and call.id != call_id:
            call = self._by_id.get((index, call_id))
        if call is None:
            call = ToolCall(position=len(self.calls))
            self.calls.append(call)
        self._by_index[index] = call
        return call


def new_call_id() -> str:
    """Return an id for a tool call that came without one."""
    return f"call_{uuid.uuid4().hex}"


def read_arguments(text: str | None) -> JSON | None:
    """Return the arguments of a tool call; `None` if they are no JSON object. No text and `null` are no arguments."""
    try:
        # Models write raw line breaks into JSON strings; strict JSON forbids them.
        value = json.loads(text or "{}", strict=False)
    except json.JSONDecodeError:
        return None
    return {} if value is None else value if isinstance(value, dict) else None


def write_arguments(arguments: Any, tool: str) -> str:
    """Return the arguments of a tool call as the JSON text that is sent.

    Raises:
        UnsupportedContentError: there is no JSON for them.
    """
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UnsupportedContentError(
            f"The arguments of the call of {tool!r} cannot be sent: {error}. They are: {excerpt(repr(arguments))}."
        ) from error


def warn_if_cut_short(finish_reason: str | None, text: object, tool_calls: object) -> None:
    """Warn that an answer is empty since the reasoning before it took all of `max_tokens`."""
    if finish_reason == "length" and not text and not tool_calls:
        warnings.warn(
            "The answer is empty: max_tokens was used up before it began (finish_reason='length'). "
            "Raise max_tokens, or lower thinking_budget or reasoning_effort.",
            stacklevel=2,
        )


class Citation(NamedTuple):
    """A source that an answer names.

    Attributes:
        url: where it is.
        title: its title, if there is one.
        cited_text: the text that is cited, if it came.
        start_index: where the citation starts in the answer's text, in characters, where the gateway gave it.
        end_index: where it ends.
    """

    url: str
    title: str | None = None
    cited_text: str | None = None
    start_index: int | None = None
    end_index: int | None = None


SOURCE_KEYS = frozenset({"annotations", "citations", "search_results"})
"""Where upstreams put sources. None of them is documented for the gateway's chat completions."""

_FOOTER = re.compile(
    r"\n[^\S\n]*(?:#+\s*|\*\*|__)?(?:Sources|References)(?:\*\*|__)?:?(?:\*\*|__)?[ \t]*\n(?P<list>.*)\Z", re.DOTALL
)
_LINK = re.compile(r"\[(?P<title>[^\]\n]*)\]\((?P<link>https?://[^\s)]+)\)|(?P<bare>https?://[^\s<>)\]]+)")


def note_sources(found: JSON, part: Mapping[str, Any]) -> None:
    """Add the sources of a reply, message, chunk or delta to those found before."""
    for key in SOURCE_KEYS & part.keys():
        if isinstance(part[key], list):
            found.setdefault(key, []).extend(part[key])


def read_citations(found: Mapping[str, Any], text: str, *, searched: bool) -> list[Citation]:
    """Return the sources of an answer, each once: those that the gateway lists, or those of a Sources footer.

    The form of the footer is not documented: a heading "Sources" and at least one URL after it, to the end of
    the text, are taken for one, if the web may have been searched.
    """
    listed = [
        _citation(entry) for key in ("annotations", "citations", "search_results") for entry in found.get(key) or ()
    ]
    if searched and not any(listed):
        footer = _FOOTER.search(text)
        links = _LINK.finditer(footer["list"]) if footer else ()
        listed = [Citation(match["link"] or match["bare"].rstrip(".,;"), match["title"] or None) for match in links]
    by_url: dict[str, Citation] = {}
    for citation in listed:
        if citation is not None:
            by_url.setdefault(citation.url, citation)
    return list(by_url.values())


def _citation(entry: Any) -> Citation | None:
    if isinstance(entry, str):
        return Citation(entry)
    if not isinstance(entry, Mapping):
        return None
    inner = entry.get("url_citation", entry)
    url = inner.get("url") if isinstance(inner, Mapping) else None
    if not isinstance(url, str):
        return None
    cited = inner.get("cited_text") or inner.get("snippet") or inner.get("content")
    title, start, end = (inner.get(name) for name in ("title", "start_index", "end_index"))
    # Whatever shape a source has, it must not cost the answer that it belongs to.
    return Citation(
        url,
        title if isinstance(title, str) else None,
        cited if isinstance(cited, str) else None,
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
    )


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
_PIECES = frozenset({"refusal", "reasoning_details", "data", "transcript"})
"""Names of what comes in pieces: the first and those within `audio` are OpenAI's, the second is OpenRouter's."""


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
        delta, finish_reason = choice.get("delta") or {}, None if self._finished else choice.get("finish_reason")
        if finish_reason:
            self.last, self._finished = chunk, True
        if not _MESSAGE_KEYS.issuperset(delta):
            note_sources(self.sources, delta)
            _add_up(self.unknown, unknown_keys(delta))
        text, reasoning, calls = read_text(delta), read_reasoning(delta) or "", delta.get("tool_calls")
        pieces = list(self.tool_calls.add(calls)) if calls else []
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

    def finish(self) -> None:
        """Warn if the answer is empty since the reasoning took all of `max_tokens`."""
        warn_if_cut_short(self.last["choices"][0].get("finish_reason"), self.texts, self.tool_calls.calls)


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
    """Return what a message or delta holds besides the keys that this package reads."""
    return {name: value for name, value in message.items() if name not in _MESSAGE_KEYS and value is not None}
