"""langgraph-supervisor, langgraph-swarm, trustcall and langmem."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.consumers import kit, reasonings

supervisor = kit("langgraph_supervisor")
swarm = kit("langgraph_swarm")
trustcall = kit("trustcall")
langmem = kit("langmem")

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from tests.langchain.tools import get_time, get_weather

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


def calls(reasoning: str | None, tool: str, /, **arguments: Any) -> Answer:
    return Answer(None, reasoning=reasoning, tool_calls=[{"name": tool, "arguments": arguments}])


def test_supervisor(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    workers: Any = [
        create_agent(llm, [get_weather], name="weather"),
        create_agent(llm, [get_time], name="clock"),
    ]
    graph = supervisor.create_supervisor(workers, model=llm, prompt="You lead.").compile()
    sandbox.script(
        calls("Ask the expert.", "transfer_to_weather"),
        calls("Look.", "get_weather", city="Paris"),
        Answer("It is sunny.", reasoning="Seen."),
        Answer("Sunny in Paris.", reasoning="Done."),
    )
    with track_cost() as costs:
        state = graph.invoke({"messages": [("human", "Weather in Paris?")]})
    assert state["messages"][-1].content == "Sunny in Paris."
    assert reasonings(sandbox.requests[-1].body)[0] == "Ask the expert."
    assert costs.total.calls == len(sandbox.ledger) == 4
    assert costs.total.output_tokens == sum(entry.completion_tokens for entry in sandbox.ledger)


async def test_swarm(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    """The second turn starts at the agent that answered last."""
    to_bob = swarm.create_handoff_tool(agent_name="bob", description="Bob knows the time.")
    to_alice = swarm.create_handoff_tool(agent_name="alice", description="Alice knows the weather.")
    alice = create_agent(llm, [get_weather, to_bob], system_prompt="You are Alice.", name="alice")
    bob = create_agent(llm, [get_time, to_alice], system_prompt="You are Bob.", name="bob")
    graph = swarm.create_swarm([alice, bob], default_active_agent="alice").compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    sandbox.script(
        calls("Bob knows.", "transfer_to_bob"),
        calls("Look at the clock.", "get_time", city="Rome"),
        Answer("Noon in Rome.", reasoning="Read."),
    )
    first = await graph.ainvoke({"messages": [("human", "Time in Rome?")]}, config)
    assert (first["active_agent"], first["messages"][-1].content) == ("bob", "Noon in Rome.")
    await graph.ainvoke({"messages": [("human", "Thank you.")]}, config)
    sent = sandbox.requests[-1].body
    assert sent["messages"][0]["content"] == "You are Bob."
    assert reasonings(sent) == ["Bob knows.", "Look at the clock."]


class Gauge(BaseModel):
    """A gauge of the station."""

    name: str
    depth: int = Field(ge=0)


def test_trustcall_has_a_wrong_call_patched(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    extractor = trustcall.create_extractor(llm, tools=[Gauge], tool_choice="Gauge")
    wrong = {"name": "Gauge", "arguments": {"name": "snow", "depth": -1}, "id": "call_1"}
    patches = [{"op": "replace", "path": "/depth", "value": 12}]
    sandbox.script(
        Answer(None, tool_calls=[wrong]),
        calls(None, "PatchFunctionErrors", json_doc_id="call_1", planned_edits="Make it 12.", patches=patches),
    )
    result = extractor.invoke({"messages": [("human", "12 cm of snow.")]})
    assert result["responses"] == [Gauge(name="snow", depth=12)]
    # A forced choice is rejected by a model that thinks, so the adapter turns thinking off for it.
    assert sandbox.requests[0].body["enable_thinking"] is False
    assert len(sandbox.ledger) == 2


def test_langmem_extracts_memories(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    manager = langmem.create_memory_manager(llm, schemas=[Gauge], enable_inserts=True)
    sandbox.script(calls(None, "Gauge", name="snow", depth=12))
    (memory,) = manager.invoke({"messages": [{"role": "user", "content": "The gauge shows 12 cm of snow."}]})
    assert memory.content == Gauge(name="snow", depth=12)


async def test_langmem_tools_keep_and_find_memories(llm: ChatEmpirioLabs, sandbox: Sandbox, where: Any) -> None:
    """The store embeds with our embeddings."""
    store = InMemoryStore(index={"dims": 1024, "embed": EmpirioLabsEmbeddings(**where)})
    namespace = ("memories",)
    tools = [
        langmem.create_manage_memory_tool(namespace=namespace),
        langmem.create_search_memory_tool(namespace=namespace),
    ]
    agent = create_agent(llm, tools, store=store)
    sandbox.script(calls("Keep it.", "manage_memory", content="The generator is Gertrude.", action="create"))
    await agent.ainvoke({"messages": "The generator is called Gertrude."})
    sandbox.script(calls("Look it up.", "search_memory", query="generator"))
    state = await agent.ainvoke({"messages": "What is the generator called?"})
    assert "Gertrude" in state["messages"][-2].content
    assert any(entry.path.endswith("/embeddings") for entry in sandbox.ledger)
