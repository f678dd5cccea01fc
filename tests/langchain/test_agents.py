"""LangChain agents end to end: against the strict sandbox, and once against the local model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelRetryMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic import BaseModel

from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from tests.langchain.tools import get_time, get_weather

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


def kinds(state: dict[str, Any]) -> list[str]:
    return [message.type for message in state["messages"]]


def test_three_steps_with_two_tools(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(
        Answer(None, reasoning="First the weather.", tool_calls=[call("get_weather", city="Paris")]),
        Answer("Now the time.", reasoning="", tool_calls=[call("get_time", city="Paris")]),
        Answer(None, reasoning="Once more.", tool_calls=[call("get_time", city="Rome")]),
    )
    state = create_agent(llm, [get_weather, get_time]).invoke({"messages": "Plan my day."})
    assert kinds(state) == ["human", "ai", "tool", "ai", "tool", "ai", "tool", "ai"]
    turns = [turn for turn in sandbox.requests[-1].body["messages"] if turn["role"] == "assistant"]
    assert [turn["reasoning_content"] for turn in turns] == ["First the weather.", "", "Once more."]
    assert state["messages"][-1].content == "The tools say: Noon in Rome."


def test_parallel_tools(llm: ChatEmpirioLabs) -> None:
    state = create_agent(llm, [get_weather, get_time]).invoke({"messages": "Weather and time in Paris?"})
    assert kinds(state) == ["human", "ai", "tool", "tool", "ai"]
    assert state["messages"][-1].content == "The tools say: Sunny in Paris. | Noon in Paris."


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_streamed_steps(llm: ChatEmpirioLabs, version: Any, sandbox: Sandbox) -> None:
    agent = create_agent(llm, [get_weather])
    if version == "v3":
        if type(agent).stream_events is Runnable.stream_events:
            pytest.skip("This LangGraph has no events of version 3.")
        stream: Any = agent.stream_events({"messages": "Weather in Paris?"}, version="v3")
        state = stream.output
    else:
        *_, (_, state) = agent.stream({"messages": "Weather in Paris?"}, stream_mode=["messages", "values"])
    assert kinds(state) == ["human", "ai", "tool", "ai"]
    assert state["messages"][-1].text == "The tools say: Sunny in Paris."
    assert sandbox.requests[-1].body["messages"][1]["reasoning_content"]


async def test_async_agent(llm: ChatEmpirioLabs) -> None:
    state = await create_agent(llm, [get_weather]).ainvoke({"messages": "Weather in Paris?"})
    assert kinds(state) == ["human", "ai", "tool", "ai"]


def test_a_middleware_that_retries(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.fail(Fault("status", status=503, code="model_unavailable"), Fault("truncate", after=1))
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.0)
    state = create_agent(llm, [get_weather], middleware=[retry]).invoke({"messages": "Weather in Paris?"})
    assert state["messages"][-1].content == "The tools say: Sunny in Paris."
    assert len(sandbox.requests) == 4


def test_a_person_in_the_loop_and_a_checkpointer_on_disk(
    llm: ChatEmpirioLabs, tmp_path: Path, sandbox: Sandbox
) -> None:
    config: Any = {"configurable": {"thread_id": "1"}}
    ask = HumanInTheLoopMiddleware(interrupt_on={"get_weather": True})
    with SqliteSaver.from_conn_string(str(tmp_path / "a.sqlite")) as saver:
        agent = create_agent(llm, [get_weather], middleware=[ask], checkpointer=saver)
        state = agent.invoke({"messages": "Weather in Paris?"}, config)
        assert state["__interrupt__"]
    with SqliteSaver.from_conn_string(str(tmp_path / "a.sqlite")) as saver:
        agent = create_agent(llm, [get_weather], middleware=[ask], checkpointer=saver)
        state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
        assert state["messages"][-1].content == "The tools say: Sunny in Paris."
        assert sandbox.requests[-1].body["messages"][1]["reasoning_content"].startswith("I should call")


class Report(BaseModel):
    """A weather report."""

    city: str
    degrees: int


@pytest.mark.parametrize("strategy", [Report, ToolStrategy(Report), ProviderStrategy(Report)])
@pytest.mark.parametrize("tools", [[], [get_weather]])
def test_structured_responses(llm: ChatEmpirioLabs, strategy: Any, tools: Any, sandbox: Sandbox) -> None:
    if tools:
        sandbox.script(Answer(None, reasoning="Hm.", tool_calls=[call("get_weather", city="Paris")]))
    state = create_agent(llm, tools, response_format=strategy).invoke({"messages": "It is 21 in Paris."})
    assert state["structured_response"] == Report(city="Paris", degrees=21)


@pytest.mark.parametrize("trigger", [("tokens", 400), ("fraction", 0.0004)])
def test_summaries(llm: ChatEmpirioLabs, trigger: Any, sandbox: Sandbox) -> None:
    middleware = SummarizationMiddleware(llm, trigger=trigger, keep=("messages", 2))
    agent = create_agent(llm, [], middleware=[middleware])
    history = [HumanMessage("word " * 600), AIMessage("Noted."), HumanMessage("And now?")]
    state = agent.invoke({"messages": history})
    assert len(sandbox.requests) == 2
    assert "word word" not in str(sandbox.requests[-1].body["messages"][-1])
    assert state["messages"][-1].content


@pytest.mark.real_model
def test_the_loop_on_the_local_model() -> None:
    """A small real model decides freely, so the test asserts only the structure of the conversation."""
    with Sandbox(local_model=True) as sandbox:
        llm = ChatEmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key, max_tokens=60, temperature=0)
        agent = create_agent(llm, [get_weather])
        state = agent.invoke({"messages": "Use get_weather for the city of Paris."}, {"recursion_limit": 9})
    answered = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert answered
    assert sandbox.ledger
