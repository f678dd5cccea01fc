"""What the checks are written in: a peer in words of neither framework, and how a check says what it saw."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

MODEL = "deepseek-v4-flash"
PROMPT = "Hello"
ASK_WEATHER = "Call get_weather for Paris."
ASK_PERSON = "Describe Ada, who is 36."

# What the sandbox is told to answer.
REASONING = "Let me think."
THOUGHT = {"content": "Blue.", "reasoning": REASONING}
CALL = {
    "content": None,
    "reasoning": REASONING,
    "tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}],
}
WINDOW = 1_000_000
"""Tokens of DeepSeek V4's context window, by its documentation."""


class Wire(Protocol):
    """The sandbox, as a check sees it. Answers and faults are given as the arguments of `Answer` and `Fault`."""

    base_url: str
    api_key: str

    def reset(self) -> None: ...
    def script(self, *answers: dict[str, Any]) -> None: ...
    def fail(self, *faults: dict[str, Any]) -> None: ...
    def requests(self) -> list[dict[str, Any]]:
        """Return path, headers and body of each request so far."""


@dataclass(frozen=True)
class Peer:
    """One class of one package.

    Attributes:
        name: heading of its column.
        distributions: packages whose versions are told, its own first.
        make: makes a model out of the URL, `api_key` and settings. It translates `extra_body` where the class has
            another way of sending keys that it does not know.
        documented: what its documentation says to set for a model like this one.
        embeddings: makes its embeddings out of `base_url` and `api_key`.
        budget: opens a block in which no more than an amount in US dollars is spent.
        provider: what `init_chat_model` would call it.
        environment: whose interpreter it runs under: `python` is this package's own.
    """

    name: str
    framework: str
    distributions: tuple[str, ...]
    make: Callable[..., Any]
    documented: Mapping[str, Any] = field(default_factory=dict)
    embeddings: Callable[..., Any] | None = None
    budget: Callable[[str], AbstractContextManager[Any]] | None = None
    provider: str = ""
    environment: str = "python"


@dataclass(frozen=True)
class Reply:
    """An answer, whole or put together from a stream.

    Attributes:
        reasoning: the reasoning, wherever in the message it stands.
        in_blocks: the reasoning that stands in the framework's own blocks.
        usage: input, output, cached and reasoning tokens, where the framework has its place for them.
        raw_usage: the same out of the raw reply.
        native: the framework's own message or response.
    """

    text: str
    reasoning: str
    in_blocks: str
    usage: dict[str, int | None]
    raw_usage: dict[str, int | None]
    citations: list[str]
    cost: float | None
    native: Any


class Subject:
    """A peer at a wire. The ways of each framework are in its subclass."""

    framework: str

    def __init__(self, peer: Peer, wire: Wire) -> None:
        self.peer, self.wire = peer, wire

    def make(self, **settings: Any) -> Any:
        """Make the model as its documentation says."""
        return self.bare(**{**self.peer.documented, **settings})

    def bare(self, **settings: Any) -> Any:
        """Make the model out of id, URL and key alone."""
        return self.peer.make(self.wire.base_url, **{"api_key": self.wire.api_key, **settings})

    def bodies(self) -> list[dict[str, Any]]:
        """Return what was sent."""
        return [request["body"] for request in self.wire.requests()]


class Shortfall(Exception):
    """A feature is not, or not fully, there."""

    def __init__(self, evidence: str, verdict: str = "no") -> None:
        super().__init__(evidence)
        self.verdict = verdict


class NotApplicable(Exception):
    """The question does not arise for this peer."""


def expect(met: bool, evidence: str) -> None:
    """Raise a shortfall unless a condition is met."""
    if not met:
        raise Shortfall(evidence)


def equal(seen: Any, wanted: Any, what: str) -> None:
    """Raise a shortfall unless a value is what it should be."""
    expect(seen == wanted, f"{what}: {seen!r}")


def told(error: BaseException) -> str:
    """Return an exception as one short line without ports, ids and paths, which differ from run to run."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic's first line says only how many errors there are, the OpenAI client's has the whole body in it.
    text = ": ".join(lines[: 3 if "Validation" in type(error).__name__ else 1])
    body = re.search(r"""- \{'error': \{'message': (['"])(.*?)\1, '""", text)
    text = f"{text[: body.start()]}- {body[2]}" if body else re.sub(r" \[type=.*", "", text)
    text = text if isinstance(error, Shortfall) else f"{type(error).__name__}: {text}"
    text = re.sub(r"127\.0\.0\.1:\d+", "sandbox", re.sub(r"/\S+/site-packages/", "", text))
    text = re.sub(r"(chatcmpl-|call_|0x)[0-9a-f]{6,}(_\d+)?", r"\1...", text)
    limit = 400 if isinstance(error, Shortfall) else 200
    return text if len(text) <= limit else f"{text[:limit]}..."


def failure(run: Callable[[], Any]) -> str | None:
    """Return what a piece of a check failed with; `None` if it did not."""
    try:
        run()
    except NotApplicable:
        raise
    except Exception as error:
        return told(error)
    return None


def several(subject: Subject, cases: Mapping[str, Callable[[], Any]]) -> None:
    """Run the cases of a feature: all are needed for a yes, and some make a partly."""
    failed: dict[str, list[str]] = {}
    for name, run in cases.items():
        subject.wire.reset()
        problem = failure(run)
        if problem is not None:
            failed.setdefault(problem, []).append(name)
    if failed:
        evidence = "; ".join(f"{', '.join(names)}: {problem}" for problem, names in failed.items())
        raise Shortfall(evidence, "no" if sum(map(len, failed.values())) == len(cases) else "partly")


def or_else(subject: Subject, run: Callable[[], Any], workaround: Callable[[], Any], said: str) -> None:
    """Run a feature as it should be used; where that fails but a workaround does not, it is there partly."""
    try:
        run()
    except Exception as error:
        subject.wire.reset()
        if failure(workaround) is None:
            raise Shortfall(f"{told(error)}; works with {said}", "partly") from None
        raise


@dataclass(frozen=True)
class Feature:
    """One row of the table."""

    group: str
    text: str
    check: Callable[[Any], None]
    framework: str | None = None


GROUPS = (
    "Reasoning",
    "Tools and structured output",
    "Fields",
    "Tokens and costs",
    "Keys, copies, event loops",
    "Errors and failures",
)
FEATURES: list[Feature] = []
"""All rows. Importing the modules of checks fills it."""


def feature(group: str, text: str, framework: str | None = None) -> Callable[[Callable[[Any], None]], Any]:
    """Decorate a check: it returns for a yes, and raises anything else for what is missing."""

    def add(check: Callable[[Any], None]) -> Callable[[Any], None]:
        FEATURES.append(Feature(group, text, check, framework))
        return check

    return add


def judge(asked: Feature, subject: Subject) -> tuple[str, str]:
    """Run one check and return verdict and evidence."""
    subject.wire.reset()
    try:
        asked.check(subject)
    except NotApplicable as error:
        return "-", str(error)
    except Shortfall as error:
        return error.verdict, told(error)
    except Exception as error:
        return "no", told(error)
    return "yes", ""


def run(subject: Subject, before_each: Callable[[], Any] = lambda: None) -> dict[str, tuple[str, str]]:
    """Run the checks that a peer's framework has."""
    found = {}
    for row in FEATURES:
        if row.framework in (None, subject.framework):
            before_each()
            found[row.text] = judge(row, subject)
    return found
