"""langchain-mcp-adapters: the tools and prompts of an MCP server, which runs as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.consumers import kit, reasonings

kit("langchain_mcp_adapters.client")
kit("mcp.server.fastmcp")

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs

SERVER = str(Path(__file__).parent / "station_server.py")


@pytest.fixture
def client() -> MultiServerMCPClient:
    server: Any = {"transport": "stdio", "command": sys.executable, "args": ["-W", "ignore", SERVER]}
    return MultiServerMCPClient({"station": server})


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


async def test_an_agent_with_the_tools_of_a_server(
    llm: ChatEmpirioLabs, client: MultiServerMCPClient, sandbox: Sandbox
) -> None:
    first = [{"name": "list_gauges", "arguments": {}}, {"name": "read_gauge", "arguments": {"name": "snow"}}]
    sandbox.script(
        Answer(None, reasoning="All at once.", tool_calls=first),
        Answer(None, reasoning="Once more.", tool_calls=[{"name": "read_gauge", "arguments": {"name": "rain"}}]),
    )
    agent = create_agent(llm, await client.get_tools())
    state = await agent.ainvoke({"messages": "How much snow is there?"})
    sent = sandbox.requests[-1].body
    assert reasonings(sent) == ["All at once.", "Once more."]
    results = [turn["content"] for turn in sent["messages"] if turn["role"] == "tool"]
    assert results[:2] == ["snow\nwind", "12 cm"]
    assert "There is no gauge 'rain'" in results[2]
    assert state["messages"][-1].content == f"The tools say: {results[2]}"
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["read_gauge", "list_gauges"]


async def test_a_prompt_of_a_server(llm: ChatEmpirioLabs, client: MultiServerMCPClient) -> None:
    messages = await client.get_prompt("station", "report", arguments={"place": "Aurora"})
    assert "the gauge of snow at Aurora" in (await llm.ainvoke(messages)).content
