"""AG-UI: ag-ui-langgraph, CopilotKit and LlamaIndex's protocol, served over HTTP; the client keeps the history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.consumers import kit, reasonings

ag_ui = kit("ag_ui_langgraph")
copilotkit = kit("copilotkit")
llama_ag_ui = kit("llama_index.protocols.ag_ui.router")
fastapi = kit("fastapi")
testclient = kit("fastapi.testclient")

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.langchain.tools import get_weather
from tests.llamaindex.conformance import get_weather as llama_get_weather

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")

CALL = Answer(None, reasoning="Look.", tool_calls=[{"name": "get_weather", "arguments": {"city": "Paris"}}])


def post(app: Any, path: str, thread: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = {"threadId": thread, "runId": "1", "state": {}, "messages": messages, "tools": [], "context": []}
    with testclient.TestClient(app) as client:
        response = client.post(path, json={**body, "forwardedProps": {}})
    assert response.status_code == 200, response.text
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def joined(events: list[dict[str, Any]], kind: str) -> str:
    return "".join(event["delta"] for event in events if event["type"] == kind)


def user(text: str, name: str = "u1") -> dict[str, Any]:
    return {"id": name, "role": "user", "content": text}


@pytest.mark.parametrize("made", ["ag_ui_langgraph", "copilotkit"])
def test_langgraph(where: dict[str, Any], sandbox: Sandbox, made: str) -> None:
    agent_class = ag_ui.LangGraphAgent if made == "ag_ui_langgraph" else copilotkit.LangGraphAGUIAgent
    graph = create_agent(ChatEmpirioLabs(**where), [get_weather], checkpointer=InMemorySaver())
    app = fastapi.FastAPI()
    ag_ui.add_langgraph_fastapi_endpoint(app, agent_class(name="station", graph=graph), "/agent")
    sandbox.script(CALL, Answer("Sunny.", reasoning="Seen."))
    events = post(app, "/agent", "1", [user("Weather in Paris?")])
    assert events[-1]["type"] == "RUN_FINISHED"
    assert joined(events, "TEXT_MESSAGE_CONTENT") == "Sunny."
    assert json.loads(joined(events, "TOOL_CALL_ARGS")) == {"city": "Paris"}
    assert joined(events, "REASONING_MESSAGE_CONTENT") == "Look.Seen."
    assert reasonings(sandbox.requests[-1].body) == ["Look."]
    # The client sends back the history that it was given, and asks once more.
    history = next(event["messages"] for event in reversed(events) if event["type"] == "MESSAGES_SNAPSHOT")
    again = post(app, "/agent", "1", [*history, user("And now?", "u2")])
    assert again[-1]["type"] == "RUN_FINISHED"
    assert reasonings(sandbox.requests[-1].body) == ["Look."]
    assert len(sandbox.ledger) == 3


def test_llamaindex(where: dict[str, Any], sandbox: Sandbox) -> None:
    router = llama_ag_ui.get_ag_ui_workflow_router(llm=EmpirioLabs(**where), backend_tools=[llama_get_weather])
    app = fastapi.FastAPI()
    app.include_router(router)
    sandbox.script(CALL, Answer("Sunny.", reasoning="Seen."))
    events = post(app, "/run", "1", [user("Weather in Paris?")])
    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    assert joined(events, "TEXT_MESSAGE_CHUNK") == "Sunny."
    assert reasonings(sandbox.requests[-1].body) == ["Look."]
