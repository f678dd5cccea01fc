"""The same script on each endpoint: both adapters send the same body, and return the same answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from llama_index.core.agent.workflow import FunctionAgent

from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, WEATHER, Case, canonical
from tests.parity.test_parity import LOOP, SETTINGS

NOT_ON = {"responses": {"stop", "model_kwargs"}, "messages": {"model_kwargs"}}
"""Fields that an endpoint cannot express: `stop`, and the `seed` in `model_kwargs`."""
USES_OTHER_TOKENS = ("field_stream_usage", "json_mode", "json_schema")
"""On the other endpoints, streams always report usage, and `messages` requests JSON in the system message."""
FIELDS = [name for name in SETTINGS if name not in ("endpoint", "model_kwargs")]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CASES = [
    Case("plain"),
    *[Case(f"field_{name}", settings={name: SETTINGS[name]}) for name in FIELDS],
    Case("tool_loop", conversation=LOOP, call={"tools": [WEATHER]}),
    Case("tool_choice_required", call={"tools": [WEATHER], "tool_choice": "required"}),
    Case("named_tool", call={"tools": [WEATHER], "tool_choice": NAMED}),
    Case("one_call_at_a_time", call={"tools": [WEATHER], "parallel_tool_calls": False}),
    Case(
        "json_mode",
        call={"response_format": {"type": "json_object"}},
        conversation=({"role": "user", "content": "Answer as json with 'city'."},),
    ),
    Case("json_schema", call={"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}}),
]


@pytest.mark.parametrize("endpoint", NOT_ON)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_body_and_answer(case: Case, endpoint: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    if not NOT_ON[endpoint].isdisjoint(case.settings):
        pytest.skip(f"{endpoint} cannot express it.")
    results = {}
    for number, (name, drive) in enumerate(DRIVERS.items()):
        results[name] = drive(case, {**where, "endpoint": endpoint}, number % 2 == 0)
    paths = {request.path for request in sandbox.requests}
    bodies = {canonical({**request.body, "stream": True}) for request in sandbox.requests}
    assert paths == {f"/v1/{endpoint}"}
    assert len(bodies) == 1, bodies
    sandbox.reset()
    for number, (name, drive) in enumerate(DRIVERS.items()):
        on_chat = drive(case, where, number % 2 == 0)
        for result in (results[name], on_chat):
            if result.usage:
                result.usage["cached"] = None
        if case.name in USES_OTHER_TOKENS:
            assert results[name].usage
            results[name] = replace(results[name], usage=on_chat.usage)
        assert results[name] == on_chat


def _answers() -> list[Answer]:
    """Return three steps, all with reasoning: two parallel calls, another call, and the answer."""
    calls = [{"id": f"call_{n}", "name": "get_weather", "arguments": {"city": city}} for n, city in enumerate("ABC")]
    return [
        Answer(content="I look.", reasoning="Two of them.", tool_calls=calls[:2]),
        Answer(content=None, reasoning="And the third.", tool_calls=calls[2:]),
        Answer(content="All are sunny.", reasoning="That was all."),
    ]


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


def langchain_agent(where: dict[str, Any]) -> str:
    agent = create_agent(ChatEmpirioLabs(enable_thinking=True, **where), [get_weather])
    last = agent.invoke({"messages": "Weather in A, B and C?"})["messages"][-1]
    assert isinstance(last, AIMessage)
    return last.text


def langchain_agent_streamed(where: dict[str, Any]) -> str:
    async def run() -> str:
        agent = create_agent(ChatEmpirioLabs(enable_thinking=True, **where), [get_weather])
        pieces = agent.astream({"messages": "Weather in A, B and C?"}, stream_mode="messages")
        return "".join([m.text async for m, _ in pieces if isinstance(m, AIMessage)])

    return asyncio.run(run())


def llamaindex_agent(where: dict[str, Any], *, streaming: bool = False) -> str:
    async def run() -> str:
        llm = EmpirioLabs(enable_thinking=True, **where)
        agent = FunctionAgent(tools=[get_weather], llm=llm, streaming=streaming)
        return str(await agent.run("Weather in A, B and C?"))

    return asyncio.run(run())


def llamaindex_agent_streamed(where: dict[str, Any]) -> str:
    return llamaindex_agent(where, streaming=True)


AGENTS = [langchain_agent, langchain_agent_streamed, llamaindex_agent, llamaindex_agent_streamed]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.__name__)
def test_an_agent_that_thinks_runs_unchanged(
    agent: Any, endpoint: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    """The strict sandbox rejects a turn with calls but without reasoning, and a result in the wrong place."""
    sandbox.script(*_answers())
    assert agent({**where, "endpoint": endpoint}).endswith("All are sunny.")
    assert [request.path for request in sandbox.requests] == [f"/v1/{endpoint}"] * 3
    last = json.dumps(sandbox.requests[-1].body)
    for said in ("Two of them.", "And the third.", "Sunny in A.", "Sunny in B.", "Sunny in C."):
        assert said in last
