"""deepagents: a lead with file tools that hands work to sub-agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.consumers import kit, reasonings

deepagents = kit("deepagents")
kit("deepagents.backends")

from deepagents.backends import FilesystemBackend
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from tests.langchain.tools import get_weather

LEAD, READER = "You lead the station.", "You read files."


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


def reader(**options: Any) -> dict[str, Any]:
    return {"name": "reader", "description": "Reads files.", "system_prompt": READER, **options}


def calls(reasoning: str, *made: tuple[str, dict[str, Any]]) -> Answer:
    return Answer(None, reasoning=reasoning, tool_calls=[{"name": n, "arguments": a} for n, a in made])


def task(said: str) -> tuple[str, dict[str, Any]]:
    return ("task", {"description": said, "subagent_type": "reader"})


def bodies(sandbox: Sandbox, system: str) -> list[dict[str, Any]]:
    """Return the requests of one of the two agents."""
    return [r.body for r in sandbox.requests if r.body["messages"][0]["content"].startswith(system)]


NOTED = ("write_file", {"file_path": "/log.md", "content": "Snow: 12 cm."})
CORRECTED = ("edit_file", {"file_path": "/log.md", "old_string": "12", "new_string": "13"})
READ = ("read_file", {"file_path": "/log.md"})


def test_files_and_a_sub_agent(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    agent = deepagents.create_deep_agent(model=llm, system_prompt=LEAD, subagents=[reader()])
    sandbox.script(
        calls("Note it.", NOTED),
        calls("It was more.", CORRECTED),
        calls("Have it read.", task("Read /log.md.")),
        calls("Open it.", READ),
        Answer("It says 13 cm.", reasoning="That is it."),
        Answer("13 cm of snow.", reasoning="Done."),
    )
    with track_cost() as costs:
        state = agent.invoke({"messages": "Log the snow, and have it read."})
    assert state["files"]["/log.md"]["content"] == "Snow: 13 cm."
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai", "tool", "ai", "tool", "ai"]
    assert state["messages"][-2].content == "It says 13 cm."
    assert state["messages"][-1].content == "13 cm of snow."
    assert reasonings(bodies(sandbox, LEAD)[-1]) == ["Note it.", "It was more.", "Have it read."]
    read = bodies(sandbox, READER)[-1]
    assert reasonings(read) == ["Open it."]
    assert "Snow: 13 cm." in read["messages"][-1]["content"]
    assert costs.total.calls == len(sandbox.ledger) == 6


async def test_sub_agents_side_by_side_with_files_and_sessions_on_disk(
    llm: ChatEmpirioLabs, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The sub-agents have a model of their own; the session is gone on with by a new agent."""
    (tmp_path / "files").mkdir()
    options: Any = {
        "model": llm,
        "system_prompt": LEAD,
        "backend": FilesystemBackend(root_dir=tmp_path / "files", virtual_mode=True),
        "subagents": [reader(model=llm.model_copy(update={"model": "deepseek-v4-pro"}), tools=[get_weather])],
    }
    config: Any = {"configurable": {"thread_id": "1"}}
    sandbox.script(calls("Note it.", NOTED), calls("Both.", task("Weather in Paris?"), task("Weather in Rome?")))
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "s.sqlite")) as saver:
        agent = deepagents.create_deep_agent(checkpointer=saver, **options)
        steps = agent.astream({"messages": "Go."}, config, stream_mode="updates", subgraphs=True)
        assert {space != () async for space, _ in steps} == {True, False}
    assert (tmp_path / "files" / "log.md").read_text() == "Snow: 12 cm."
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "s.sqlite")) as saver:
        agent = deepagents.create_deep_agent(checkpointer=saver, **options)
        state = await agent.ainvoke({"messages": "And now?"}, config)
    found = sorted(m.content for m in state["messages"] if m.type == "tool" and m.name == "task")
    assert found == ["The tools say: Sunny in Paris.", "The tools say: Sunny in Rome."]
    assert reasonings(bodies(sandbox, LEAD)[-1])[:2] == ["Note it.", "Both."]
    asked = bodies(sandbox, READER)
    assert {body["model"] for body in asked} == {"deepseek-v4-pro"}
    assert sum(bool(reasonings(body)) for body in asked) == 2
