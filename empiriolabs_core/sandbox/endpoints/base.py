"""What an endpoint does, and what all writers of streams share."""

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
"""The keys of a message for which each endpoint has a place of its own."""


@dataclass(frozen=True)
class Head:
    """What is known of a reply before its first token.

    Attributes:
        id: hexadecimal digits.
        created: seconds since 1970.
        stop_sequence: the stop sequence that ended the text, if one did.
        usage: the token counts in the form of chat completions, if they are known already.
    """

    id: str
    created: int
    stop_sequence: str | None = None
    usage: JSON = field(default_factory=dict)


class Writer:
    """Writes a stream out of the chunks of chat completions. This one passes them on."""

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
    """Turns chunks into the events of another endpoint, and into its whole reply."""

    def __init__(self, wire: JSON, head: Head) -> None:
        super().__init__(wire, head)
        self.finish_reason: str | None = None
        self.extra: JSON = {}

    @abstractmethod
    def reply(self) -> JSON:
        """Return the whole reply. Valid after `end()`."""

    @abstractmethod
    def add_text(self, kind: str, text: str, logprobs: list[JSON]) -> Iterator[JSON]:
        """Add to the reasoning, text or refusal; `kind` is the key of the chat form."""

    @abstractmethod
    def add_annotation(self, annotation: JSON) -> Iterator[JSON]:
        """Add a citation of the text."""

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
    """One of the routes that answer chats."""

    path: str
    names: Mapping[str, str] = {}
    """What fields of chat completions are called here, for error messages."""

    @abstractmethod
    def read(self, wire: JSON, *, strict: bool) -> JSON:
        """Return a request in the form of chat completions.

        Raises:
            Refusal: if the request is not valid on this endpoint.
        """

    @abstractmethod
    def writer(self, wire: JSON, head: Head) -> Writer:
        """Return what writes a stream."""

    @abstractmethod
    def envelope(self, refusal: Refusal) -> JSON:
        """Return the body of an error."""

    @abstractmethod
    def error_event(self, refusal: Refusal) -> bytes:
        """Return an error in the middle of a stream."""

    @abstractmethod
    def hollow(self, value: Any) -> JSON:
        """Return a reply with `value` in the place of the answer, or with nothing if `value` is `...`."""

    @abstractmethod
    def is_finish(self, piece: bytes) -> bool:
        """Tell whether an event says why the answer ended."""

    @abstractmethod
    def is_last(self, piece: bytes) -> bool:
        """Tell whether a piece only ends the stream."""

    def card(self, card: ModelCard | None) -> ModelCard | None:
        """Return what the card of a model says on this endpoint."""
        return card

    def event(self, data: JSON | str) -> bytes:
        """Return one server-sent event, under the name that its `type` gives."""
        if isinstance(data, str):
            return event(data)
        name = f"event: {data['type']}\n" if isinstance(data.get("type"), str) else ""
        return name.encode() + event(data)

    def final(self) -> Iterator[bytes]:
        """Yield what follows the last event."""
        yield from ()

    @abstractmethod
    def reply(self, wire: JSON, turn: Turn) -> JSON:
        """Return a whole reply."""

    def renamed(self, refusal: Refusal) -> Refusal:
        """Return a refusal that calls the field by the name that it has here."""
        name = self.names.get(refusal.param or "")
        if name is None:
            return refusal
        message = str(refusal)
        if message.startswith(f"{refusal.param}="):
            message = name + message[len(refusal.param or "") :]
        return Refusal(refusal.status, refusal.code, message, name, refusal.headers)


def whole(kind: Callable[[JSON, Head], Translator], wire: JSON, turn: Turn) -> JSON:
    """Return what a writer makes of an answer that comes in one piece."""
    writer = kind(wire, head_of(turn))
    for _ in (*writer.begin(), *writer.read(_as_chunk(turn)), *writer.end()):
        pass
    return writer.reply()


def head_of(turn: Turn) -> Head:
    """Return the head of a generated answer."""
    return Head(turn.id.removeprefix("chatcmpl-"), turn.created, turn.stop_sequence, turn.usage)


def _as_chunk(turn: Turn) -> JSON:
    """Return an answer as the one chunk of a stream."""
    whole = completion(turn)
    choice = whole["choices"][0]
    calls = [{"index": number, **call} for number, call in enumerate(choice["message"].get("tool_calls") or ())]
    return {**whole, "choices": [{**choice, "delta": {**choice["message"], "tool_calls": calls}}]}


def refuse_fields(given: JSON, allowed: Iterable[str] | None, refused: Iterable[str], where: str = "") -> None:
    """Refuse fields that do not exist here, in OpenAI's words.

    Args:
        given: an object of the request.
        allowed: the only fields that may be given; `None` for all but `refused`.
        refused: fields that belong to another endpoint.
        where: where the object is in the request, with a dot at the end.
    """
    for name in given:
        if name in refused or (allowed is not None and name not in allowed):
            raise Refusal(400, "unknown_parameter", f"Unknown parameter: '{where}{name}'.", f"{where}{name}")


def typed(value: Any, kind: Any, where: str, wanted: str, param: str | None = None) -> Any:
    """Return a value of the request.

    Raises:
        Refusal: if it is not of the type `kind`, which `wanted` names.
    """
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is int):
        return value
    raise bad(param or where.partition("[")[0].partition(".")[0], f"{where}={shown(value)} must be {wanted}.")


def without_none(fields: JSON) -> JSON:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
