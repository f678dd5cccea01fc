"""Base classes of the endpoints and of their stream writers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown
from empiriolabs_core.sandbox.wire import Turn, completion, event

_READ = ("role", "content", "reasoning_content", "refusal", "annotations", "tool_calls")
"""The keys of a message that every endpoint translates. Other keys are passed through as extra keys."""


@dataclass(frozen=True)
class Head:
    """The data of a reply that are known before its first token.

    Attributes:
        id: hexadecimal digits.
        created: seconds since 1970.
        stop_sequence: the stop sequence that ended the text, or `None`.
        usage: the token counts in the form of chat completions, or `None` if not yet known.
    """

    id: str
    created: int
    stop_sequence: str | None = None
    usage: JSON = field(default_factory=dict)


class Writer:
    """Writes a stream from chunks of chat completions. The base class forwards the chunks unchanged."""

    def __init__(self, wire: JSON, head: Head) -> None:
        self.wire, self.head = wire, head
        self.usage: JSON = {}

    def begin(self) -> Iterator[JSON]:
        """Yield the events before the first chunk."""
        yield from ()

    def read(self, chunk: JSON) -> Iterator[JSON]:
        """Yield the events for one chunk."""
        self.usage = chunk.get("usage") or self.usage
        if chunk["choices"] or (self.wire.get("stream_options") or {}).get("include_usage"):
            yield chunk

    def end(self) -> Iterator[JSON]:
        """Yield the events after the last chunk."""
        yield from ()


class Translator(Writer, ABC):
    """Converts chunks to the events of another endpoint, and to its whole reply."""

    def __init__(self, wire: JSON, head: Head) -> None:
        super().__init__(wire, head)
        self.finish_reason: str | None = None
        self.extra: JSON = {}

    @abstractmethod
    def reply(self) -> JSON:
        """Return the whole reply. Call it after `end()`."""

    @abstractmethod
    def add_text(self, kind: str, text: str, logprobs: list[JSON]) -> Iterator[JSON]:
        """Add to the reasoning, text or refusal. `kind` is its key in the chat form."""

    @abstractmethod
    def add_annotation(self, annotation: JSON) -> Iterator[JSON]:
        """Add a citation to the text."""

    @abstractmethod
    def add_call(self, piece: JSON) -> Iterator[JSON]:
        """Add a piece of a tool call."""

    def read(self, chunk: JSON) -> Iterator[JSON]:
        """Yield the events for one chunk."""
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            logprobs = (choice.get("logprobs") or {}).get("content") or []
            for kind in ("reasoning_content", "content", "refusal"):
                if delta.get(kind):
                    yield from self.add_text(kind, delta[kind], logprobs if kind == "content" else [])
            for annotation in delta.get("annotations") or ():
                yield from self.add_annotation(annotation)
            for piece in delta.get("tool_calls") or ():
                yield from self.add_call(piece)
            self.extra.update({name: value for name, value in delta.items() if name not in _READ})
            self.finish_reason = choice.get("finish_reason") or self.finish_reason


class Endpoint(ABC):
    """One of the routes that answer chat requests."""

    path: str
    names: Mapping[str, str] = {}
    """This endpoint's names of chat-completions fields, for error messages."""

    @abstractmethod
    def read(self, wire: JSON, *, strict: bool) -> JSON:
        """Return a request in the form of chat completions.

        Raises:
            Refusal: if the request is not valid on this endpoint.
        """

    @abstractmethod
    def writer(self, wire: JSON, head: Head) -> Writer:
        """Return the writer of a stream."""

    @abstractmethod
    def envelope(self, refusal: Refusal) -> JSON:
        """Return the body of an error."""

    @abstractmethod
    def error_event(self, refusal: Refusal) -> bytes:
        """Return the event of an error in the middle of a stream."""

    @abstractmethod
    def hollow(self, value: Any) -> JSON:
        """Return a reply with `value` in place of the answer, or without an answer if `value` is `...`."""

    @abstractmethod
    def is_finish(self, piece: bytes) -> bool:
        """Return whether an event contains the finish reason."""

    @abstractmethod
    def is_last(self, piece: bytes) -> bool:
        """Return whether a piece only marks the end of the stream."""

    def card(self, card: ModelCard | None) -> ModelCard | None:
        """Return the model card that applies on this endpoint."""
        return card

    def event(self, data: JSON | str) -> bytes:
        """Return one server-sent event, named after its `type`."""
        if isinstance(data, str):
            return event(data)
        name = f"event: {data['type']}\n" if isinstance(data.get("type"), str) else ""
        return name.encode() + event(data)

    def final(self) -> Iterator[bytes]:
        """Yield the bytes after the last event."""
        yield from ()

    @abstractmethod
    def reply(self, wire: JSON, turn: Turn) -> JSON:
        """Return a whole reply."""

    def renamed(self, refusal: Refusal) -> Refusal:
        """Return a refusal with this endpoint's name of the field."""
        name = self.names.get(refusal.param or "")
        if name is None:
            return refusal
        message = str(refusal)
        if message.startswith((f"{refusal.param} ", f"{refusal.param}=")):
            message = name + message[len(refusal.param or "") :]
        return Refusal(refusal.status, refusal.code, message, name, refusal.headers)


def whole(kind: Callable[[JSON, Head], Translator], wire: JSON, turn: Turn) -> JSON:
    """Return the whole reply that a writer builds from an answer in one piece."""
    writer = kind(wire, head_of(turn))
    for _ in (*writer.begin(), *writer.read(_as_chunk(turn)), *writer.end()):
        pass
    return writer.reply()


def head_of(turn: Turn) -> Head:
    """Return the head of a generated answer."""
    return Head(turn.id.removeprefix("chatcmpl-"), turn.created, turn.stop_sequence, turn.usage)


def _as_chunk(turn: Turn) -> JSON:
    """Return an answer as the only chunk of a stream."""
    whole = completion(turn)
    choice = whole["choices"][0]
    calls = [{"index": number, **call} for number, call in enumerate(choice["message"].get("tool_calls") or ())]
    return {**whole, "choices": [{**choice, "delta": {**choice["message"], "tool_calls": calls}}]}


def refuse_fields(given: JSON, allowed: Iterable[str] | None, refused: Iterable[str], where: str = "") -> None:
    """Reject fields that do not exist on this endpoint, in OpenAI's words.

    Args:
        given: an object of the request.
        allowed: the allowed fields; `None` for all fields except `refused`.
        refused: fields that belong to another endpoint.
        where: path of the object in the request, ending with a dot.
    """
    for name in given:
        if name in refused or (allowed is not None and name not in allowed):
            raise Refusal(400, "unknown_parameter", f"Unknown parameter: '{where}{name}'.", f"{where}{name}")


def typed(value: Any, kind: Any, where: str, wanted: str, param: str | None = None) -> Any:
    """Return a value of the request if it has the right type.

    Raises:
        Refusal: if the value does not have the type `kind`. The message names the type as `wanted`.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is int):
        return value
    raise bad(param or where.partition("[")[0].partition(".")[0], f"{where} must be {wanted}, got {shown(value)}.")


def without_none(fields: JSON) -> JSON:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
