"""LangChain's own adapters of OpenAI and Anthropic, run unchanged against the sandbox's endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

from empiriolabs_core.sandbox import Sandbox

MODEL = "deepseek-v4-flash"


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"Rain in {city}."


def of_openai(sandbox: Sandbox) -> Any:
    # It needs the OpenAI client below version 3.
    package = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed.")
    return package.ChatOpenAI(
        model=MODEL, base_url=sandbox.base_url, api_key=sandbox.api_key, use_responses_api=True, store=False
    )


def of_anthropic(sandbox: Sandbox) -> Any:
    package = pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is not installed.")
    address = sandbox.base_url.removesuffix("/v1")
    return package.ChatAnthropic(model=MODEL, base_url=address, api_key=sandbox.api_key, max_tokens=500)


ADAPTERS = pytest.mark.parametrize(
    ("adapter", "path"), [(of_openai, "/v1/responses"), (of_anthropic, "/v1/messages")], ids=["openai", "anthropic"]
)


@pytest.fixture(scope="module")
def lenient() -> Iterator[Sandbox]:
    with Sandbox(strict=False) as running:
        yield running


@ADAPTERS
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop(sandbox: Sandbox, lenient: Sandbox, adapter: Any, path: str, stream: bool) -> None:
    if adapter is of_openai:
        # langchain-openai 1.7 sends back only reasoning that has a summary. DeepSeek's has none, so it would be lost.
        sandbox = lenient
    llm = adapter(sandbox).bind_tools([get_weather])

    def ask(history: list[Any]) -> Any:
        if not stream:
            return llm.invoke(history)
        chunks = iter(llm.stream(history))
        return sum(chunks, next(chunks))

    history: list[Any] = [HumanMessage("What is the weather in 'Oslo'?")]
    first = ask(history)
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("get_weather", {"city": "Oslo"})]
    history += [
        first,
        ToolMessage(get_weather.invoke(first.tool_calls[0]["args"]), tool_call_id=first.tool_calls[0]["id"]),
    ]
    last = ask(history)
    assert last.text == "The tools say: Rain in Oslo."
    billed = sandbox.ledger[-1]
    assert (billed.path, billed.stream) == (path, stream)
    assert last.usage_metadata["input_tokens"] == billed.prompt_tokens
    assert last.usage_metadata["output_tokens"] == billed.completion_tokens


@ADAPTERS
async def test_async_streams(sandbox: Sandbox, adapter: Any, path: str) -> None:
    text = "".join([chunk.text async for chunk in adapter(sandbox).astream("Hello")])
    assert text.startswith("You said: Hello")
    assert sandbox.ledger[-1].path == path
