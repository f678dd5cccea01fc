"""One request of a probe, and its outcome."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from empiriolabs_core.endpoints import CHAT
from empiriolabs_core.errors import JSON, excerpt
from empiriolabs_core.replies import StreamedReply, Usage, read_reasoning, read_usage

NO_MODEL = "no-such-model"
"""The id of a model that does not exist."""
MOST_CHARACTERS = 1_000_000
"""The most characters of a reply that are read."""

_KNOWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}


@dataclass(frozen=True)
class Call:
    """One request: a POST with a body, else a GET.

    `key` replaces the user's key; `""` sends no key. `headers` are additional headers.
    """

    label: str
    body: JSON | None
    path: str = CHAT.path
    key: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request: status, headers and text, or the failure."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    failure: str | None = None

    @cached_property
    def events(self) -> list[str]:
        """The data of each event of a stream. A whole reply counts as one event."""
        streamed = self.headers.get("content-type", "").startswith("text/event-stream")
        return re.findall(r"^data: ?(.*)$", self.text, re.MULTILINE) if streamed else [self.text]

    @cached_property
    def objects(self) -> list[JSON]:
        """The events that are JSON objects."""
        found = []
        for text in self.events:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(text))
        return [entry for entry in found if isinstance(entry, dict)]

    @property
    def first(self) -> JSON:
        """The first object, or an empty one."""
        return self.objects[0] if self.objects else {}

    @property
    def error(self) -> Any:
        """The error object, or None."""
        return next((entry["error"] for entry in self.objects if entry.get("error")), None)

    @property
    def accepted(self) -> bool:
        """Whether the request received a complete JSON answer."""
        return self.status == 200 and self.failure is None and self.error is None and bool(self.objects)

    @property
    def barred(self) -> bool:
        """Whether the request did not reach a model: connection, key, credits, rate limit or server error."""
        return self.status in (None, 401, 402, 403, 429) or self.status >= 500

    @property
    def refused(self) -> bool:
        """Whether the request was rejected because of its content."""
        return self.status in (400, 422)

    @cached_property
    def reply(self) -> StreamedReply:
        """The answer. A whole reply is parsed like a stream of one chunk."""
        reply = StreamedReply()
        for entry in self.objects:
            choices = [
                {**choice, "delta": choice.get("delta") or choice.get("message")} for choice in choices_of(entry)
            ]
            reply.read({**entry, "choices": choices})
        return reply

    @property
    def reasoning(self) -> str:
        """The reasoning before the answer."""
        parts = [c.get("delta") or c.get("message") or {} for entry in self.objects for c in choices_of(entry)]
        return "".join(read_reasoning(part) or "" for part in parts)

    @property
    def tokens(self) -> Usage | None:
        """The reported token usage, or None."""
        return read_usage(self.reply.usage)

    @property
    def further_keys(self) -> str:
        """The keys that this package does not read, and keys of sources."""
        top = {name for entry in self.objects for name in entry if "choices" in entry} - _KNOWN
        return ", ".join(sorted({*self.reply.unknown, *self.reply.sources, *top})) or "none"


def choices_of(entry: JSON) -> list[JSON]:
    """Return the choices of a whole reply or a chunk."""
    return entry.get("choices") or []


def summary(outcome: Outcome) -> str:
    """Return the outcome of a request in one line."""
    if not outcome.accepted:
        error = outcome.error if isinstance(outcome.error, Mapping) else {"message": outcome.error or outcome.text}
        said = (outcome.status or "no answer", error.get("code"), excerpt(error.get("message") or ""), outcome.failure)
        return ", ".join(str(part) for part in said if part)
    if "choices" not in outcome.first:
        return f"200, keys: {', '.join(sorted(outcome.first)) or 'none'}"
    reply, usage = outcome.reply, outcome.tokens
    parts = [
        f"200, finish_reason={reply.last['choices'][0].get('finish_reason')}, text {excerpt(reply.text, 60)!r}",
        f"{len(outcome.reasoning)} characters of reasoning",
        *[f"{call.name} called" for call in reply.tool_calls.calls],
        f"{usage.output_tokens} tokens, {usage.reasoning_tokens} of them reasoning" if usage else "no usage",
        f"other keys: {outcome.further_keys}",
    ]
    return ", ".join(parts)


def send(http: Any, base_url: str, key: str, call: Call, timeout: float) -> Outcome:
    """Send a request without retries. Any failure becomes part of the outcome."""
    key = key if call.key is None else call.key
    headers = {**(call.headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    method, came, deadline = "GET" if call.body is None else "POST", Outcome(), time.monotonic() + timeout
    try:
        with http.stream(method, base_url + call.path, json=call.body, headers=headers, timeout=timeout) as response:
            came = Outcome(response.status_code, dict(response.headers))
            for text in response.iter_text():
                came = replace(came, text=came.text + text)
                if len(came.text) > MOST_CHARACTERS or time.monotonic() > deadline:
                    return replace(came, failure=f"the reply was incomplete after {len(came.text)} characters")
    except Exception as error:  # The exception classes depend on the client's HTTP library.
        return replace(came, failure=f"{type(error).__name__}: {error}")
    return came


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Probe:
    """A question, the requests that answer it, and a function that interprets their outcomes."""

    name: str
    question: str
    calls: Sequence[Call]
    read: Callable[[Outcomes], str]


def each(outcomes: Outcomes, say: Callable[[Outcome], str]) -> str:
    """Return a sentence with the label and the description of every outcome."""
    return "; ".join(f"{label}: {say(outcome)}" for label, outcome in outcomes.items()) + "."


def verdict(outcome: Outcome) -> str:
    """Return whether a request was accepted, rejected or not answered."""
    if outcome.accepted:
        return "accepted"
    return f"rejected ({outcome.status})" if outcome.refused else f"not answered ({outcome.status or 'no status'})"
