"""LangGraph agents whose sessions lie on disk: gone on with by new graphs, after failures, and in another process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.consumers import kit, reasonings

kit("langchain.agents")
kit("langgraph.checkpoint.sqlite")

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.errors import EmpirioLabsIncompleteStreamError
from tests.consumers.sessions import agent, thread

CITIES = ("Paris", "Rome", "Oslo")


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "sessions.sqlite")


def about(city: str) -> Answer:
    call = {"name": "get_weather", "arguments": {"city": city}}
    return Answer(None, reasoning=f"{city}, then.", tool_calls=[call])


def test_sessions_in_one_file_keep_their_own_reasoning(llm: ChatEmpirioLabs, sandbox: Sandbox, file: str) -> None:
    sandbox.script(*map(about, CITIES))
    with SqliteSaver.from_conn_string(file) as saver:
        first = agent(llm, saver, interrupt_before=["tools"])
        for city in CITIES:
            first.invoke({"messages": "And there?"}, thread(city))
    with SqliteSaver.from_conn_string(file) as saver:
        second = agent(llm, saver)
        for city in reversed(CITIES):
            state = second.invoke(None, thread(city))
            assert state["messages"][-1].content == f"The tools say: Sunny in {city}."
            assert reasonings(sandbox.requests[-1].body) == [f"{city}, then."]


def test_a_session_goes_on_in_another_process(llm: ChatEmpirioLabs, sandbox: Sandbox, file: str) -> None:
    sandbox.script(about("Paris"))
    with SqliteSaver.from_conn_string(file) as saver:
        agent(llm, saver).invoke({"messages": "And there?"}, thread("1"))
    command = [sys.executable, "-W", "ignore", "-m", "tests.consumers.sessions", file, "1", "Weather in Rome?"]
    environment = {**os.environ, "EMPIRIOLABS_API_KEY": sandbox.api_key, "EMPIRIOLABS_API_BASE": sandbox.base_url}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.stdout.split() == ["human", "ai", "tool", "ai"] * 2, done.stderr
    first, second = reasonings(sandbox.requests[-1].body)
    assert first == "Paris, then."
    assert second.startswith("I should call get_weather")


def test_a_session_survives_a_broken_stream(llm: ChatEmpirioLabs, sandbox: Sandbox, file: str) -> None:
    sandbox.script(about("Paris"))
    sandbox.fail(None, Fault("no_finish"))
    with SqliteSaver.from_conn_string(file) as saver:
        steps = agent(llm, saver).stream({"messages": "And there?"}, thread("1"), stream_mode="messages")
        with pytest.raises(EmpirioLabsIncompleteStreamError):
            list(steps)
    with SqliteSaver.from_conn_string(file) as saver:
        state = agent(llm, saver).invoke(None, thread("1"))
    assert state["messages"][-1].content == "The tools say: Sunny in Paris."
    assert reasonings(sandbox.requests[-1].body) == ["Paris, then."]
    assert len(sandbox.requests) == 3


def test_an_earlier_checkpoint_is_branched_off(llm: ChatEmpirioLabs, sandbox: Sandbox, file: str) -> None:
    sandbox.script(about("Paris"))
    with SqliteSaver.from_conn_string(file) as saver:
        agent(llm, saver).invoke({"messages": "And there?"}, thread("1"))
    with SqliteSaver.from_conn_string(file) as saver:
        second = agent(llm, saver)
        before_tools = next(s for s in second.get_state_history(thread("1")) if s.next == ("tools",))
        state = second.invoke(None, before_tools.config)
    assert state["messages"][-1].content == "The tools say: Sunny in Paris."
    assert [reasonings(request.body) for request in sandbox.requests[1:]] == [["Paris, then."]] * 2


async def test_sessions_side_by_side_with_the_async_saver(llm: ChatEmpirioLabs, sandbox: Sandbox, file: str) -> None:
    async with AsyncSqliteSaver.from_conn_string(file) as saver:
        first = agent(llm, saver, interrupt_before=["tools"])
        await asyncio.gather(*[first.ainvoke({"messages": f"Weather in {c}?"}, thread(c)) for c in CITIES])
    async with AsyncSqliteSaver.from_conn_string(file) as saver:
        second = agent(llm, saver)
        states = await asyncio.gather(*[second.ainvoke(None, thread(city)) for city in CITIES])
    assert [s["messages"][-1].content for s in states] == [f"The tools say: Sunny in {city}." for city in CITIES]
    assert all(reasonings(request.body)[0].startswith("I should call") for request in sandbox.requests[3:])
    assert len(sandbox.requests) == 6
