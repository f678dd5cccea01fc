"""LangChain agents never run truncated calls: against the strict sandbox, with and without streaming."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")

WAYS = ["invoke", "invoke, streaming", "ainvoke", "ainvoke, streaming", "stream", "astream", "events v3"]
EACH_WAY = pytest.mark.parametrize("way", WAYS)
ADA = {"name": "delete", "arguments": {"path": "/home/ada"}}
EVE = {"name": "delete", "arguments": {"path": "/home/eve"}}


@pytest.fixture
def runs() -> list[str]:
    """The paths that the tool received."""
    return []


@pytest.fixture
def delete(runs: list[str]) -> BaseTool:
    @tool
    def delete(path: str = "/") -> str:
        """Delete a folder."""
        runs.append(path)
        return f"Deleted {path}."

    return delete


async def _last(stream: Any) -> Any:
    return [state async for state in stream][-1]


def run(way: str, where: dict[str, Any], delete: BaseTool, history: Any = "Clean up.", **settings: Any) -> Any:
    agent = create_agent(ChatEmpirioLabs(**where, streaming="streaming" in way, **settings), [delete])
    asked: Any = {"messages": history}
    if way.startswith("ainvoke"):
        return asyncio.run(agent.ainvoke(asked))["messages"]
    if way == "stream":
        *_, (_, state) = agent.stream(asked, stream_mode=["messages", "values"])
        return state["messages"]
    if way == "astream":
        return asyncio.run(_last(agent.astream(asked, stream_mode=["messages", "values"])))[1]["messages"]
    if way == "events v3":
        if type(agent).stream_events is Runnable.stream_events:
            pytest.skip("This LangGraph has no events of version 3.")
        stream: Any = agent.stream_events(asked, version="v3")
        return stream.output["messages"]
    return agent.invoke(asked)["messages"]


@EACH_WAY
@pytest.mark.parametrize("max_tokens", [1, 3, 7])
def test_a_truncated_call_is_not_run(
    way: str, max_tokens: int, sandbox: Sandbox, where: dict[str, Any], delete: BaseTool, runs: list[str]
) -> None:
    """With one token, DeepSeek returns a name without arguments. The conversation can continue."""
    sandbox.script(Answer(None, tool_calls=[ADA]))
    messages = run(way, where, delete, max_tokens=max_tokens)
    assert runs == []
    assert sandbox.requests[-1].body["max_tokens"] == max_tokens
    assert messages[-1].tool_calls == []
    sent = run(way, where, delete, [*messages, ("user", "Hello?")])
    assert sent[-1].text.startswith("You said: Hello?")
    assert runs == []


@EACH_WAY
def test_a_relay_that_hides_the_truncation(
    way: str, sandbox: Sandbox, where: dict[str, Any], delete: BaseTool, runs: list[str]
) -> None:
    empty = {"name": "delete", "arguments": ""}
    sandbox.script(
        Answer(None, finish_reason="tool_calls", tool_calls=[empty], choice={"native_finish_reason": "length"})
    )
    run(way, where, delete)
    sandbox.script(Answer(None, finish_reason="tool_calls", tool_calls=[ADA]))
    run(way, where, delete, max_tokens=1)
    assert runs == []


@EACH_WAY
def test_a_complete_call_before_a_truncated_one_is_run(
    way: str, sandbox: Sandbox, where: dict[str, Any], delete: BaseTool, runs: list[str]
) -> None:
    """LangChain's agent runs the complete call, not the truncated call. The next request must be accepted."""
    sandbox.script(Answer(None, tool_calls=[ADA, {"name": "delete", "arguments": ""}], finish_reason="length"))
    messages = run(way, where, delete)
    assert runs == ["/home/ada"]
    assert [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    assert len(sandbox.requests) == 2


@EACH_WAY
@pytest.mark.parametrize("form", ["pieces_together", "no_index", "rising_index"])
def test_odd_streams_make_no_other_calls(
    way: str, form: str, sandbox: Sandbox, where: dict[str, Any], delete: BaseTool, runs: list[str]
) -> None:
    """The second fragment of a call became a call of its own, and the first was run with its defaults."""
    sandbox.script(Answer(None, tool_calls=[ADA, EVE], stream_form=form))
    messages = run(way, where, delete)
    assert sorted(runs) == ["/home/ada", "/home/eve"]
    results = [message for message in messages if isinstance(message, ToolMessage)]
    assert sorted(str(message.content) for message in results) == ["Deleted /home/ada.", "Deleted /home/eve."]
    assert not any(message.invalid_tool_calls for message in messages if message.type == "ai")


@EACH_WAY
def test_ids_and_names_that_models_repeat_and_make_up(
    way: str, sandbox: Sandbox, where: dict[str, Any], delete: BaseTool, runs: list[str]
) -> None:
    named = [{**ADA, "id": "delete"}, {**EVE, "id": "delete"}]
    sandbox.script(
        Answer(None, tool_calls=named),
        Answer(None, tool_calls=[{**ADA, "id": "delete"}]),
        Answer(None, tool_calls=[{"name": "functions.delete", "arguments": {}, "id": "delete"}]),
    )
    messages = run(way, where, delete)
    assert runs == ["/home/ada", "/home/eve", "/home/ada"] or runs == ["/home/eve", "/home/ada", "/home/ada"]
    assert len(sandbox.requests) == 4
    assert messages[-1].text.startswith("The tools say: ")
    assert messages[-3].tool_calls[0]["name"] == "functions.delete"
