"""One request of a probe, and what came of it."""

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
"""What is asked for where no model shall be found."""
MOST_CHARACTERS = 1_000_000
"""Of a reply, so many are read."""

_KNOWN = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}


@dataclass(frozen=True)
class Call:
    """One request. Without a body, `path` is read; `key` takes the place of the user's, `""` sends none.

    `headers` are sent besides.
    """

    label: str
    body: JSON | None
    path: str = CHAT.path
    key: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a request: a status and a text, or what kept them from coming, and what is read of them."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    failure: str | None = None

    @cached_property
    def events(self) -> list[str]:
        """The data of the events of a stream; a whole reply counts as one."""
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
        """The first object, if there is one."""
        return self.objects[0] if self.objects else {}

    @property
    def error(self) -> Any:
        """The error object, if there is one."""
        return next((entry["error"] for entry in self.objects if entry.get("error")), None)

    @property
    def accepted(self) -> bool:
        """Whether the request was answered with JSON, to the end."""
        return self.status == 200 and self.failure is None and self.error is None and bool(self.objects)

    @property
    def barred(self) -> bool:
        """Whether the request never got as far as a model: no connection or key, no credits, too many, trouble."""
        return self.status in (None, 401, 402, 403, 429) or self.status >= 500

    @property
    def refused(self) -> bool:
        """Whether the request was refused for what is in it."""
        return self.status in (400, 422)

    @cached_property
    def reply(self) -> StreamedReply:
        """The answer. A whole reply is read like a stream of one chunk."""
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
        """The usage that was reported."""
        return read_usage(self.reply.usage)

    @property
    def further_keys(self) -> str:
        """The keys that this package does not read, and those of sources."""
        top = {name for entry in self.objects for name in entry if "choices" in entry} - _KNOWN
        return ", ".join(sorted({*self.reply.unknown, *self.reply.sources, *top})) or "none"


def choices_of(entry: JSON) -> list[JSON]:
    """Return the choices of a whole reply or a chunk."""
    return entry.get("choices") or []


def told(outcome: Outcome) -> str:
    """Say in a line what came of a request."""
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
        f"further keys: {outcome.further_keys}",
    ]
    return ", ".join(parts)


def send(http: Any, base_url: str, key: str, call: Call, timeout: float) -> Outcome:
    """Send a request, once. Whatever goes wrong is part of the outcome."""
    key = key if call.key is None else call.key
    headers = {**(call.headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
    method, came, deadline = "GET" if call.body is None else "POST", Outcome(), time.monotonic() + timeout
    try:
        with http.stream(method, base_url + call.path, json=call.body, headers=headers, timeout=timeout) as response:
            came = Outcome(response.status_code, dict(response.headers))
            for text in response.iter_text():
                came = replace(came, text=came.text + text)
                if len(came.text) > MOST_CHARACTERS or time.monotonic() > deadline:
                    return replace(came, failure=f"it had not ended after {len(came.text)} characters")
    except Exception as error:  # Which classes there are depends on the client's HTTP library.
        return replace(came, failure=f"{type(error).__name__}: {error}")
    return came


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Probe:
    """A question, the requests that settle it, and how to read what comes of them."""

    name: str
    question: str
    calls: Sequence[Call]
    read: Callable[[Outcomes], str]


def each(outcomes: Outcomes, say: Callable[[Outcome], str]) -> str:
    """Say something about each outcome, in one sentence."""
    return "; ".join(f"{label}: {say(outcome)}" for label, outcome in outcomes.items()) + "."


def taken(outcome: Outcome) -> str:
    """Say whether a request was accepted."""
    if outcome.accepted:
        return "accepted"
    return f"refused ({outcome.status})" if outcome.refused else f"not answered ({outcome.status or 'no status'})"
