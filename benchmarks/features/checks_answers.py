"""What is asked of answers: reasoning, tools, structured output, sources.

Checks are in words of neither framework: what differs is in `ways_langchain` and `ways_llamaindex`. What is on the
wire is read off the sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from .subject import CALL, PROMPT, REASONING, THOUGHT, equal, expect, feature, or_else, several

NO_THINKING = {"enable_thinking": False}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-v4-flash"}
    return {**head, "system_fingerprint": "fp_1", "choices": [choice]}


def _streamed(*deltas: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    """Return an answer that is streamed in just these deltas."""
    return {"chunks": [*map(_chunk, deltas), _chunk({}, finish_reason)]}


# Reasoning


@feature("Reasoning", "In a whole answer")
def reasoning_whole(t: Any) -> None:
    t.wire.script(THOUGHT)
    equal(t.ask(t.make()).reasoning, REASONING, "reasoning")


@feature("Reasoning", "In a stream, sync and async, from the first delta")
def reasoning_streamed(t: Any) -> None:
    pieces = (
        {"role": "assistant", "content": None, "reasoning_content": "Let me "},
        {"content": None, "reasoning_content": "think."},
        {"content": "Blue."},
    )

    def read(ask: Callable[[], Any]) -> None:
        t.wire.script(_streamed(*pieces))
        reply = ask()
        equal((reply.reasoning, reply.text), (REASONING, "Blue."), "reasoning and text")

    llm = t.make()
    several(
        t,
        {
            "sync": lambda: read(lambda: t.stream(llm)),
            "async": lambda: read(lambda: asyncio.run(t.astream(llm))),
        },
    )


@feature("Reasoning", "In the framework's own blocks (`content_blocks`, `ThinkingBlock`), whole and streamed")
def reasoning_blocks(t: Any) -> None:
    def read(ask: Callable[[Any], Any]) -> None:
        t.wire.script(THOUGHT)
        equal(ask(t.make()).in_blocks, REASONING, "reasoning in blocks")

    several(t, {"whole": lambda: read(t.ask), "streamed": lambda: read(t.stream)})


@feature("Reasoning", "Sent back in a tool loop, whole and streamed")
def reasoning_goes_back(t: Any) -> None:
    def loop(stream: bool) -> None:
        t.wire.script(CALL, {"content": "Sunny."})
        llm = t.make()
        equal(t.answer_tool(llm, t.ask_tool(llm, stream=stream)), "Sunny.", "answer")
        equal(t.bodies()[-1]["messages"][1].get("reasoning_content"), REASONING, "sent back")

    several(t, {"whole": lambda: loop(False), "streamed": lambda: loop(True)})


@feature("Reasoning", "The framework's agent (`create_agent`, `FunctionAgent`) uses a tool while thinking")
def agent(t: Any) -> None:
    t.wire.script(CALL, {"content": "Sunny.", "reasoning": REASONING})
    equal(t.run_agent(t.make()), "Sunny.", "answer")


# Tools and structured output


@feature("Tools and structured output", "Forced tool call (any tool, or a named tool) while the model thinks")
def forced_tool(t: Any) -> None:
    def force(choice: str, **settings: Any) -> None:
        llm = t.make(**settings)
        # A greeting is no reason to call it: only the choice makes the model do so.
        calls = t.calls(llm, t.ask_tool(llm, PROMPT, choice=choice))
        equal([name for name, _ in calls], ["get_weather"], "calls")

    def both(**settings: Any) -> None:
        several(t, {choice: partial(force, choice, **settings) for choice in ("any", "get_weather")})

    or_else(t, both, lambda: both(extra_body=NO_THINKING), "extra_body that turns thinking off")


@feature("Tools and structured output", "Structured output by the default method while the model thinks")
def structured(t: Any) -> None:
    def ask(**settings: Any) -> None:
        equal(t.structured(t.make(**settings)), {"name": "Ada", "age": 36}, "parsed")

    or_else(t, ask, lambda: ask(extra_body=NO_THINKING), "extra_body that turns thinking off")


def _piece(index: int, call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    head = {"index": index} if call_id is None else {"index": index, "id": call_id, "type": "function"}
    return {**head, "function": {**named, "arguments": arguments}}


@feature("Tools and structured output", "Two streamed tool calls, in every format that servers use")
def two_calls(t: Any) -> None:
    weather, time = ("call_1", "get_weather", '{"city": "Paris"}'), ("call_2", "get_time", '{"city": "Oslo"}')
    cuts = {
        "one after the other": [[_piece(0, *weather)], [_piece(1, *time)]],
        "both in one chunk": [[_piece(0, *weather), _piece(1, *time)]],
        "interleaved": [
            [_piece(0, *weather[:2], '{"city": ')],
            [_piece(1, *time[:2], '{"city": ')],
            [_piece(0, None, None, '"Paris"}')],
            [_piece(1, None, None, '"Oslo"}')],
        ],
        "index 0 used again": [[_piece(0, *weather)], [_piece(0, *time)]],
        "id and name in each delta": [
            [_piece(0, *weather[:2], '{"city": ')],
            [_piece(0, *weather[:2], '"Paris"}')],
            [_piece(1, *time)],
        ],
    }

    def read(chunks: list[Any]) -> None:
        t.wire.script(_streamed(*[{"tool_calls": pieces} for pieces in chunks], finish_reason="tool_calls"))
        llm = t.make()
        wanted = [("get_weather", {"city": "Paris"}), ("get_time", {"city": "Oslo"})]
        equal(t.calls(llm, t.stream(llm)), wanted, "calls")

    several(t, {name: partial(read, chunks) for name, chunks in cuts.items()})


@feature(
    "Tools and structured output", "Truncated tool arguments are never taken for complete ones, whole and streamed"
)
def invalid_arguments(t: Any) -> None:
    def read(ask: Callable[[Any], Any]) -> None:
        t.wire.script({"content": None, "tool_calls": [{"name": "get_weather", "arguments": '{"city": "Par'}]})
        llm = t.make()
        reply = ask(llm)
        try:
            calls = t.calls(llm, reply)
        except Exception:
            return
        # A call under a name that no tool has is one that no agent runs.
        taken = [call for call in calls if call[0] == "get_weather"]
        told = len(calls) - len(taken) + t.calls_not_taken(reply)
        expect(not taken and told == 1, f"calls: {calls!r}")

    several(t, {"whole": lambda: read(t.ask), "streamed": lambda: read(t.stream)})


# Web search


@feature(
    "Tools and structured output",
    "Sources of a web search as citations: from annotations, and from a footer (its format is inferred)",
)
def citations(t: Any) -> None:
    url = "https://field-notes.example/today"
    noted = {"type": "url_citation", "url_citation": {"url": url, "title": "Notes", "start_index": 0, "end_index": 4}}
    footer = f"\n\n**Sources**\n1. [Field notes]({url})\n"

    def read(answer: dict[str, Any]) -> None:
        t.wire.script(answer)
        # Ours takes a list of links for sources only where a search was asked for.
        search = {"web_search_linkup": True} if t.peer.name == "ours" else {}
        equal(t.ask(t.make(**search)).citations, [url], "citations")

    several(
        t,
        {
            "annotations": lambda: read({"content": "Blue.", "extra": {"annotations": [noted]}}),
            "footer": lambda: read({"content": f"Blue. [1]{footer}"}),
        },
    )
