"""Recorded replies of real servers, replayed over a socket, against a reading of the same bytes that shares no code.

The recordings are other people's, so they are not part of the project: the tests are skipped where their folder is
missing. Each file holds the request (`sent`), the `status`, the content `type` and the body (`got`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ThinkingBlock, ToolCallBlock

from empiriolabs_core.errors import ContextOverflowError, ReportedError
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.core.test_gateway import answering

FOLDER = Path(__file__).parents[3] / "shared" / "wire"


def _recordings() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.json")):
        recording = json.loads(path.read_text())
        if recording.get("route") == "/chat/completions":
            yield pytest.param(path, id=path.stem)


RECORDINGS = list(_recordings())
pytestmark = [
    pytest.mark.skipif(not RECORDINGS, reason=f"There are no recordings: {FOLDER} is missing or empty."),
    # An answer whose reasoning used up max_tokens is returned with a warning.
    pytest.mark.filterwarnings("ignore:The answer is empty"),
]


@dataclass
class Reading:
    """What a reply says."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    finish_reason: str | None = None


@dataclass
class Recorded(Reading):
    """The reading of the bytes, with what has no place in a framework's message."""

    refusal: str = ""
    error: Any = None


# The reading of the bytes


def read(got: str, streamed: bool) -> Recorded:
    found, calls = Recorded(), dict[int, list[str]]()
    for chunk in _events(got) if streamed else [json.loads(got)]:
        found.error = chunk.get("error") or found.error
        if chunk.get("usage"):
            found.usage = _usage(chunk["usage"])
        for choice in chunk.get("choices") or []:
            if choice.get("index"):
                continue
            _add(found, calls, choice.get("delta" if streamed else "message") or {})
            found.finish_reason = found.finish_reason or choice.get("finish_reason")
    found.calls = [(name, _arguments(text, found.finish_reason)) for name, text in calls.values()]
    return found


def _events(got: str) -> Iterator[Any]:
    for line in got.splitlines():
        if line.startswith("data:") and line[5:].strip() != "[DONE]":
            yield json.loads(line[5:])


def _add(found: Recorded, calls: dict[int, list[str]], message: dict[str, Any]) -> None:
    found.text += message.get("content") or ""
    found.reasoning += message.get("reasoning_content") or message.get("reasoning") or ""
    found.refusal += message.get("refusal") or ""
    for position, call in enumerate(message.get("tool_calls") or []):
        name_and_text = calls.setdefault(call.get("index", position), ["", ""])
        name_and_text[0] = name_and_text[0] or call["function"].get("name") or ""
        name_and_text[1] += call["function"].get("arguments") or ""


def _arguments(text: str, finish_reason: str | None) -> Any:
    """Return the arguments; the text that there is, if they were truncated."""
    try:
        return json.loads(text)
    except ValueError:
        return text if text or finish_reason == "length" else {}


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return {
        "input": usage["prompt_tokens"],
        "output": usage["completion_tokens"],
        "cached": usage.get("prompt_cache_hit_tokens") if cached is None else cached,
        "reasoning": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
    }


# The readings of the adapters


def ask_langchain(llm: ChatEmpirioLabs, streamed: bool, asynchronous: bool) -> Reading:
    async def ask() -> Any:
        return [chunk async for chunk in llm.astream("Hi")] if streamed else [await llm.ainvoke("Hi")]

    first, *rest = asyncio.run(ask()) if asynchronous else list(llm.stream("Hi")) if streamed else [llm.invoke("Hi")]
    message: AIMessage = first.__add__(rest) if rest else first
    kept = message.response_metadata.get("truncated_tool_calls") or {}
    usage = message.usage_metadata
    return Reading(
        message.text,
        message.additional_kwargs.get("reasoning_content", ""),
        [(call["name"], call["args"]) for call in message.tool_calls]
        + [
            # LangChain's stream changes the text of a truncated call, so the original is kept beside it.
            (call["name"] or "", (kept.get(call["id"] or "") or call)["args"])
            for call in message.invalid_tool_calls
        ],
        usage
        and {
            "input": usage["input_tokens"],
            "output": usage["output_tokens"],
            "cached": usage.get("input_token_details", {}).get("cache_read"),
            "reasoning": usage.get("output_token_details", {}).get("reasoning"),
        },
        message.response_metadata.get("finish_reason"),
    )


def ask_llamaindex(llm: EmpirioLabs, streamed: bool, asynchronous: bool) -> Reading:
    asked = [ChatMessage("Hi")]

    async def ask() -> ChatResponse:
        if not streamed:
            return await llm.achat(asked)
        return [response async for response in await llm.astream_chat(asked)][-1]

    sync = list(llm.stream_chat(asked))[-1] if streamed and not asynchronous else None
    response = sync or (asyncio.run(ask()) if asynchronous else llm.chat(asked))
    blocks, told = response.message.blocks, response.additional_kwargs
    names = {"prompt": "input", "completion": "output", "cached": "cached", "reasoning": "reasoning"}
    return Reading(
        response.message.content or "",
        "".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock)),
        [(block.tool_name, block.tool_kwargs) for block in blocks if isinstance(block, ToolCallBlock)],
        {ours: told.get(f"{theirs}_tokens") for theirs, ours in names.items()} if "prompt_tokens" in told else None,
        told.get("finish_reason"),
    )


ADAPTERS: dict[str, tuple[Any, Any]] = {
    "langchain": (ChatEmpirioLabs, ask_langchain),
    "llamaindex": (EmpirioLabs, ask_llamaindex),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("path", RECORDINGS)
def test_a_recorded_reply(path: Path, adapter: str, asynchronous: bool) -> None:
    recording = json.loads(path.read_text())
    sent = recording["sent"] if isinstance(recording["sent"], dict) else {}
    streamed = recording["type"].startswith("text/event-stream")
    make, ask = ADAPTERS[adapter]
    body, told = recording["got"].encode(), read(recording["got"], streamed)
    with answering(recording["status"], body, recording["type"]) as there:
        where = {"base_url": there.base_url, "api_key": "sk-x", "max_retries": 0}
        llm = make(model="recorded", max_tokens=sent.get("max_tokens"), **where)
        if recording["status"] != 200 or told.error:
            _check_error(recording, told, lambda: ask(llm, streamed or bool(sent.get("stream")), asynchronous))
            return
        found = ask(llm, streamed, asynchronous)
    if adapter == "llamaindex":
        # It has no block for a refusal.
        told.text = told.text or told.refusal
    assert found == Reading(told.text, told.reasoning, told.calls, told.usage, told.finish_reason)


def _check_error(recording: dict[str, Any], told: Recorded, ask: Any) -> None:
    # Some servers send the error as text, others without an object around it.
    error = told.error or json.loads(recording["got"])
    message = error if isinstance(error, str) else error["message"]
    with pytest.raises(openai.OpenAIError) as raised:
        ask()
    assert message[:150] in str(raised.value)
    if recording["status"] == 200:
        assert isinstance(raised.value, ReportedError)
        return
    assert isinstance(raised.value, openai.APIStatusError)
    assert raised.value.status_code == recording["status"]
    assert isinstance(raised.value, ContextOverflowError) == ("too long" in message or "context length" in message)
