"""What is asked of settings: fields, token counts, costs, keys, copies, event loops.

Checks are in words of neither framework: what differs is in `ways_langchain` and `ways_llamaindex`. What is on the
wire is read off the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from .subject import THOUGHT, WINDOW, NotApplicable, Shortfall, equal, expect, failure, feature, or_else, several

# Fields


def _reaches_the_body(t: Any, name: str, value: Any) -> None:
    def sent(**settings: Any) -> None:
        t.ask(t.make(**settings))
        equal(t.bodies()[-1].get(name), value, f"{name} in the body")

    or_else(t, lambda: sent(**{name: value}), lambda: sent(extra_body={name: value}), "extra_body")


FIELDS = {"thinking_budget": 2048, "enable_thinking": False, "reasoning_effort": "max", "web_search_linkup": True}
for _name, _value in FIELDS.items():
    feature("Fields", f"`{_name}={_value!r}` as an argument")(partial(_reaches_the_body, name=_name, value=_value))


@feature("Fields", "The same on a single call")
def fields_on_a_call(t: Any) -> None:
    def sent(name: str, **call: Any) -> None:
        t.ask(t.make(), **call)
        equal(t.bodies()[-1].get(name), FIELDS[name], f"{name} in the body")

    def all_of_them(wrap: bool) -> None:
        calls = {name: {"extra_body": {name: value}} if wrap else {name: value} for name, value in FIELDS.items()}
        several(t, {name: partial(sent, name, **call) for name, call in calls.items()})

    or_else(t, lambda: all_of_them(False), lambda: all_of_them(True), "extra_body")


def _refused(t: Any, settings: dict[str, Any], call: dict[str, Any]) -> None:
    """Fail unless an argument is an error before anything is sent."""
    problem = failure(lambda: t.ask(t.make(max_retries=0, **settings), **call))
    for name in {**settings, **call}:
        for body in t.bodies():
            expect(name in body, "dropped unseen")
            expect(False, f"sent: {name}={body[name]!r}")
    expect(problem is not None, "no error")


@feature("Fields", "A misspelt argument raises an error, in the constructor and in a call")
def misspelt(t: Any) -> None:
    wrong = {"temprature": 0.5}
    several(t, {"constructor": lambda: _refused(t, wrong, {}), "call": lambda: _refused(t, {}, wrong)})


@feature("Fields", "An out-of-range value raises an error before the request")
def out_of_range(t: Any) -> None:
    wrong: dict[str, Any] = {"temperature": 3, "top_p": 2, "max_tokens": 0}
    cases: dict[str, Callable[[], Any]] = {}
    for name, value in wrong.items():
        cases[f"{name}={value}"] = partial(_refused, t, {name: value}, {})
        cases[f"{name}={value} on a call"] = partial(_refused, t, {}, {name: value})
    several(t, cases)


@feature("Fields", "A call's arguments take precedence over the constructor's")
def call_wins(t: Any) -> None:
    def sent(name: str, first: Any, then: Any) -> None:
        t.ask(t.make(**{name: first}), **{name: then})
        equal(t.bodies()[-1].get(name), then, f"{name} in the body")

    several(t, {"max_tokens": lambda: sent("max_tokens", 100, 50), "temperature": lambda: sent("temperature", 1, 0.5)})


@feature("Fields", "`extra_body` of the constructor and the call are merged")
def extra_body(t: Any) -> None:
    t.ask(t.make(extra_body={"first": 1}), extra_body={"then": 2})
    equal({name: t.bodies()[-1].get(name) for name in ("first", "then")}, {"first": 1, "then": 2}, "in the body")


@feature("Fields", "Chat, tools and the 1M context window of DeepSeek V4 with only model, key and URL set")
def bare(t: Any) -> None:
    def agent() -> None:
        # It calls no tool, so that this is not about the reasoning that a tool loop has to send back.
        t.wire.script({"content": "Sunny."})
        equal(t.run_agent(t.bare()), "Sunny.", "answer")
        equal(len(t.bodies()[-1].get("tools") or ()), 1, "tools sent")

    def window() -> None:
        equal(t.window(t.bare()), WINDOW, "tokens")

    several(t, {"chat": lambda: t.ask(t.bare()), "agent": agent, "window": window})


# Tokens and costs


@feature("Tokens and costs", "Usage of a stream by default")
def usage_streamed(t: Any) -> None:
    reply = t.stream(t.make())
    counted = {**reply.raw_usage, **{name: count for name, count in reply.usage.items() if count is not None}}
    expect(bool(counted.get("input") and counted.get("output")), f"usage: {counted}")


@feature("Tokens and costs", "Cached and reasoning tokens, whole and streamed")
def details(t: Any) -> None:
    counts = {
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 7},
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
    }
    only_raw: dict[Any, bool] = {}
    wanted = {"input": 100, "output": 20, "cached": 64, "reasoning": 7}

    def read(ask: Callable[[Any], Any]) -> None:
        t.wire.script({**THOUGHT, "usage": counts})
        reply = ask(t.make())
        only_raw[ask] = reply.usage != wanted and reply.raw_usage == wanted
        expect(not only_raw[ask], "in `raw` only, in the server's form")
        equal(reply.usage, wanted, "usage")

    try:
        several(t, {"whole": lambda: read(t.ask), "streamed": lambda: read(t.stream)})
    except Shortfall as error:
        raise Shortfall(str(error), "partly" if any(only_raw.values()) else error.verdict) from None


@feature("Tokens and costs", "Cost of a call on the response")
def cost(t: Any) -> None:
    found = t.ask(t.make()).cost
    expect(isinstance(found, float) and found > 0, f"cost: {found!r}")


@feature("Tokens and costs", "A budget that blocks further calls")
def budget(t: Any) -> None:
    if t.peer.budget is None:
        package = type(t.make()).__module__.split(".chat_models")[0].split(".base")[0]
        names = [n for m in list(sys.modules) if m.startswith(package) for n in dir(sys.modules[m]) if "budget" in n]
        expect(False, f"names with 'budget' in {package}: {', '.join(names) or 'none'}")
    with t.peer.budget("0.0000001"):
        t.ask(t.make())
        expect(failure(lambda: t.ask(t.make())) is not None, "a second call was let through")
    equal(len(t.bodies()), 1, "requests")


@feature("Tokens and costs", "Embeddings accept an `api_key` argument")
def embeddings(t: Any) -> None:
    if t.peer.embeddings is None:
        raise NotApplicable("The package has no embeddings.")
    vector = t.embed(t.peer.embeddings(base_url=t.wire.base_url, api_key=t.wire.api_key))
    expect(len(vector) > 1, f"vector: {vector!r}")


# Keys, copies, event loops


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    names = [name for name in os.environ if name.startswith(("OPENAI_", "EMPIRIOLABS_", "DEEPSEEK_", "OPENROUTER_"))]
    with mock.patch.dict(os.environ):
        for name in names:
            del os.environ[name]
        os.environ.update(variables)
        yield


@feature("Keys, copies, event loops", "`OPENAI_*` variables are not sent: key, organisation, project, headers")
def openai_environment(t: Any) -> None:
    def kept_back(variables: dict[str, str], **settings: Any) -> None:
        with _environment(**variables):
            with contextlib.suppress(Exception):
                t.ask(t.make(max_retries=0, **settings))
            sent = [name for request in t.wire.requests() for name, v in request["headers"].items() if "leak" in v]
        equal(sent, [], "leaked in the headers")
        expect(bool(settings) or bool(t.bodies()), "nothing was sent at all")

    several(
        t,
        {
            "organisation": lambda: kept_back({"OPENAI_ORG_ID": "leak"}),
            "project": lambda: kept_back({"OPENAI_PROJECT_ID": "leak"}),
            "headers": lambda: kept_back({"OPENAI_CUSTOM_HEADERS": "X-Other: leak\nAuthorization: Bearer leak"}),
            "key, where no other is given": lambda: kept_back({"OPENAI_API_KEY": "leak"}, api_key=None),
        },
    )


@feature("Keys, copies, event loops", "The key never appears in `repr`, `str` or a dump, before and after use")
def key_unseen(t: Any) -> None:
    llm = t.make()
    before = t.texts(llm)
    t.ask(llm)
    for text in (*before, *t.texts(llm)):
        at = text.find(t.wire.api_key)
        expect(at < 0, f"...{text[max(at - 30, 0) : max(at, 0)]}<the key>")


@feature("Keys, copies, event loops", "Deep copies and pickles work after use")
def copies(t: Any) -> None:
    def use(duplicate: Callable[[Any], Any]) -> None:
        # A pickle need not hold the key: the environment has it.
        with _environment(EMPIRIOLABS_API_KEY=t.wire.api_key):
            llm = t.make()
            t.ask(llm)
            t.ask(duplicate(llm))

    several(t, {"deepcopy": lambda: use(copy.deepcopy), "pickle": lambda: use(lambda m: pickle.loads(pickle.dumps(m)))})


@feature("Keys, copies, event loops", "One object works in two calls of `asyncio.run`")
def two_loops(t: Any) -> None:
    llm = t.make()
    for _ in range(2):
        asyncio.run(t.aask(llm))
