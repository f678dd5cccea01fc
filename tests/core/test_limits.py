"""Limits on the time and memory that hostile or endless input may use."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import empiriolabs_core
from empiriolabs_core import errors
from empiriolabs_core.arguments import check_url
from empiriolabs_core.citations import Citation, read_citations
from empiriolabs_core.errors import SettingsError, warn_once
from empiriolabs_core.probe.__main__ import scrub
from empiriolabs_core.probe.outcomes import Outcome
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.sandbox.answers import generate
from empiriolabs_core.sandbox.schema_filler import Words
from empiriolabs_core.sandbox.vectors import _words
from empiriolabs_core.sandbox.wire import PrefixCache, count
from empiriolabs_core.tool_calls import plain_name
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

ROOT = Path(empiriolabs_core.__file__).parent.parent


def _sources(text: str) -> list[Citation]:
    return read_citations({}, f"An answer.\n\n**Sources**\n{text}", searched=True)


def _rejected(url: str) -> None:
    with pytest.raises(SettingsError):
        check_url(url)


READERS: dict[str, Callable[[str], Any]] = {
    "sources": _sources,
    "footer": lambda text: read_citations({}, text, searched=True),
    "base_url": _rejected,
    "report": lambda text: scrub(text, "sk-key"),
    "words": Words,
    "vector": _words,
    "tokens": count,
    "tool name": plain_name,
    "events": lambda text: Outcome(200, {"content-type": "text/event-stream"}, text).events,
}
PIECES = (
    "[",
    "]",
    "[]",
    "[](",
    "[](http://a<",
    "[t](http://a",
    "http://a<",
    "[a](http://b)",
    "\n",
    "\n#",
    "\n#\n",
    "\n  **",
    "\nSources",
    "\nSources:\n",
    " ",
    "\t",
    "a",
    "A-",
    "A a",
    "a@",
    "a.",
    "@",
    "//",
    "//a@",
    "sk-",
    '"user": ',
    '"',
    "'a",
    "0",
    "-1.",
    "1.1",
    "{",
    "data: ",
    "data: a\n",
)


def _growth(read: Callable[[str], Any], make: Callable[[int], str]) -> float:
    """Return the ratio of processor times for 16 times the text. Other processes do not affect it.

    Below a millisecond, the clock says more than the expression. A slow result is measured again: what is quadratic is
    slow each time.
    """
    short, long = make(2_000), make(32_000)
    base = max(min(_seconds(read, short) for _ in range(3)), 0.001)
    growth = _seconds(read, long) / base
    return growth if growth < 48 else min(growth, _seconds(read, long) / base, _seconds(read, long) / base)


def _seconds(read: Callable[[str], Any], text: str) -> float:
    # The garbage collector looks at the objects of all tests.
    gc.disable()
    try:
        start = time.thread_time()
        read(text)
        return time.thread_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("name", READERS)
def test_time_grows_no_faster_than_the_text(name: str) -> None:
    """For sixteen times the text, linear code needs about 16 times as long, and quadratic code 256 times as long."""
    start = "http://" if name == "base_url" else ""
    growth = {piece: _growth(READERS[name], lambda n, piece=piece: f"{start}{piece * n} b") for piece in PIECES}
    slow = {piece: times for piece, times in growth.items() if times > 64}
    assert slow == {}


def test_every_regular_expression_of_the_package_is_known_here() -> None:
    """A new one needs a line in `READERS`, or in `BOUNDED` with the reason why it cannot take long."""
    found: set[str] = set()
    for package in ("empiriolabs_core", "langchain_empiriolabs", "llamaindex_empiriolabs"):
        for path in (ROOT / package).rglob("*.py"):
            if any(
                isinstance(node, ast.Import) and any(name.name == "re" for name in node.names)
                for node in ast.walk(ast.parse(path.read_text()))
            ):
                found.add(path.relative_to(ROOT).as_posix())
    assert found - BOUNDED.keys() == {
        "empiriolabs_core/arguments.py",
        "empiriolabs_core/citations.py",
        "empiriolabs_core/probe/__main__.py",
        "empiriolabs_core/probe/outcomes.py",
        "empiriolabs_core/sandbox/schema_filler.py",
        "empiriolabs_core/sandbox/vectors.py",
        "empiriolabs_core/sandbox/wire.py",
        "empiriolabs_core/tool_calls.py",
    }


BOUNDED = {
    "empiriolabs_core/connection.py": "looks at 60 characters",
    "empiriolabs_core/gateway.py": "one class of characters",
    "empiriolabs_core/probe/questions.py": "literals",
    "empiriolabs_core/sandbox/answers.py": "below",
    "empiriolabs_core/sandbox/messages.py": "looks at 64 characters",
    "empiriolabs_core/settings.py": "looks at 200 characters",
    "empiriolabs_core/surrogates.py": "one class of characters",
}


@pytest.mark.parametrize("piece", ['"a', "'", "{", '{"properties"', "A", "aB", "_"])
def test_the_sandbox_reads_prompts_and_names_in_linear_time(piece: str) -> None:
    def answer(text: str) -> Answer:
        tool = {"type": "function", "function": {"name": text, "parameters": {}}}
        asked = [{"role": "user", "content": text}]
        generate({"messages": asked, "tools": [tool]}, thinking=False)
        return generate({"messages": asked, "response_format": {"type": "json_object"}}, thinking=False)

    assert _growth(answer, lambda n: piece * n) < 64


def test_sources_are_read_as_before() -> None:
    text = (
        "1. [Field notes](https://a.example/x?q[]=1)\n2. [Two](https://b.example) and https://c.example/d.\n"
        '3. <https://e.example> (https://f.example) [https://g.example] [With a title](https://h.example "H")\n'
        "4. [Outer [inner](https://i.example) 5. [cut off](https://j.example/pa"
    )
    assert [(found.url, found.title) for found in _sources(text)] == [
        ("https://a.example/x?q[]=1", "Field notes"),
        ("https://b.example", "Two"),
        ("https://c.example/d", None),
        ("https://e.example", None),
        ("https://f.example", None),
        ("https://g.example", None),
        ("https://h.example", "With a title"),
        ("https://i.example", "inner"),
        ("https://j.example/pa", "cut off"),
    ]


def test_warnings_that_appear_once_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    warn_once.cache_clear()
    registry: dict[Any, Any] = {}
    monkeypatch.setitem(globals(), "__warningregistry__", registry)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.MonkeyPatch.context() as patch:
            shown: list[str] = []
            patch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
            for number in range(5_000):
                warn_once(f"Value {number} is doubtful.")
                warn_once("The same each time.")
    assert len(shown) == len(set(shown)) == errors._MOST_WARNINGS
    assert shown.count("The same each time.") == 1
    assert shown[-1].endswith("Further warnings that appear once are not shown.")
    assert len(registry) <= errors._MOST_WARNINGS + 1
    assert warn_once.cache_info().currsize <= errors._MOST_WARNINGS
    warn_once.cache_clear()


def test_the_sandbox_keeps_the_most_recent_requests() -> None:
    with Sandbox(keep=3) as sandbox:
        llm = ChatEmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key)
        for number in range(5):
            llm.invoke(f"Question {number}")
        asked = [received.body["messages"][-1]["content"] for received in sandbox.requests]
        assert asked == ["Question 2", "Question 3", "Question 4"]
        assert len(sandbox.ledger) == 3
        sandbox.reset()
        assert sandbox.requests == sandbox.ledger == []
    for wrong in (0, -1, True, "all"):
        with pytest.raises(ValueError, match="keep must be an integer >= 1"):
            Sandbox(keep=wrong)  # type: ignore[arg-type]


def test_the_sandbox_forgets_the_oldest_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("empiriolabs_core.sandbox.wire._MOST_KNOWN", 10)
    cache, long = PrefixCache(), "word " * 200
    first = [{"role": "user", "content": long}]
    cache.cached_tokens("m", first)
    assert cache.cached_tokens("m", first) > 0
    for number in range(10):
        cache.cached_tokens("m", [{"role": "user", "content": f"{number} {long}"}])
    assert len(cache._known) == 10
    assert cache.cached_tokens("m", first) == 0


LEAVES = """
import sys
import openai
from langchain_empiriolabs import EmpirioLabsEmbeddings
from llamaindex_empiriolabs import EmpirioLabsEmbedding
for kind in (EmpirioLabsEmbeddings, EmpirioLabsEmbedding):
    texts = kind(base_url=sys.argv[1], api_key="sk-empiriolabs-sandbox", batch_size=1, max_retries=0)
    try:
        texts.embed(["a", "b", "c"])
    except openai.InternalServerError:
        print("raised", flush=True)
"""


def test_a_process_does_not_wait_at_its_exit_for_embeddings(sandbox: Sandbox) -> None:
    stall, fail = Fault("timeout", seconds=600), Fault("status")
    sandbox.fail(stall, stall, fail, stall, stall, fail)
    command = [sys.executable, "-c", LEAVES, sandbox.base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised\nraised\n", "")


TAKEN = {
    "model_provider": "other",
    "id": "other",
    "model_name": "other",
    "finish_reason": "other",
    "created": "other",
    "logprobs": "other",
    "cost_usd": "other",
    "mood": "good",
}


async def test_unknown_keys_of_an_answer_do_not_overwrite_metadata(sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
    plain = chat.invoke("Hello").response_metadata
    chunks = [
        {"id": "c", "model": "m", "created": 1, "choices": [{"index": 0, "delta": {"content": "Hi", **TAKEN}}]},
        {"id": "c", "model": "m", "created": 1, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    sandbox.script(Answer("Hi", extra=TAKEN), Answer(chunks=chunks), Answer(chunks=chunks))
    whole = chat.invoke("Hello").response_metadata
    first, *rest = chat.stream("Hello")
    streamed = first.__add__(rest).response_metadata  # type: ignore[arg-type]
    for told in (whole, streamed):
        assert (told["model_provider"], told["finish_reason"]) == ("empiriolabs", "stop")
        assert (told["mood"], told["message_finish_reason"], told["message_id"]) == ("good", "other", "other")
        assert told.get("logprobs") is None
    assert whole.keys() == plain.keys() | {f"message_{name}" for name in TAKEN if name != "mood"} | {"mood"}
    assert (streamed["model_name"], streamed["id"], streamed["created"]) == ("m", "c", 1)
    assert whole["cost_usd"] < 1
    last = [response async for response in await index.astream_complete("Hello")][-1]
    assert (last.text, last.additional_kwargs["finish_reason"]) == ("Hi", "stop")
