"""LangSmith's client, tracing into a collector on this machine: each run at once, and in batches as it is by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.consumers import kit

langsmith = kit("langsmith")
kit("zstandard")

from langchain_core.tracers import LangChainTracer

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.errors import EmpirioLabsServerError
from tests.consumers.collector import JSON, Collector, collector
from tests.langchain.tools import get_weather

TEAM_KEY = "key-of-the-team"


@pytest.fixture
def traces() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(params=["at once", "in batches"])
def client(request: pytest.FixtureRequest, traces: Collector) -> Iterator[Any]:
    made = langsmith.Client(traces.url, api_key="traces", auto_batch_tracing=request.param == "in batches")
    yield made
    made.close()


@pytest.fixture
def config(client: Any) -> Any:
    return {"callbacks": [LangChainTracer(client=client)]}


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    headers = {"x-team-key": TEAM_KEY}
    return ChatEmpirioLabs(**where, model="deepseek-v4-pro", temperature=0.5, default_headers=headers)


def message_of(run: JSON) -> JSON:
    return dict(run["outputs"]["generations"][0][0]["message"]["kwargs"])


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
async def test_a_trace_tells_model_usage_and_cost(
    llm: ChatEmpirioLabs, config: Any, client: Any, traces: Collector, sandbox: Sandbox, how: str
) -> None:
    with track_cost() as costs:
        if how == "invoke":
            llm.invoke("Hello", config)
        elif how == "stream":
            list(llm.stream("Hello", config))
        elif how == "ainvoke":
            await llm.ainvoke("Hello", config)
        else:
            [chunk async for chunk in llm.astream("Hello", config)]
    client.flush()
    (run,) = traces.told("llm")
    metadata, message, billed = run["extra"]["metadata"], message_of(run), sandbox.ledger[-1]
    assert (metadata["ls_provider"], metadata["ls_model_name"]) == ("empiriolabs", "deepseek-v4-pro")
    assert (metadata["ls_model_type"], metadata["ls_temperature"]) == ("chat", 0.5)
    assert metadata["lc_versions"]["empiriolabs-adapters"]
    assert message["usage_metadata"] == {
        "input_tokens": billed.prompt_tokens,
        "output_tokens": billed.completion_tokens,
        "total_tokens": billed.prompt_tokens + billed.completion_tokens,
        "input_token_details": {"cache_read": 0},
        "output_token_details": {"reasoning": billed.reasoning_tokens},
    }
    assert metadata["usage_metadata"] == message["usage_metadata"]
    assert message["response_metadata"]["cost_usd"] == float(costs.total_usd) > 0
    assert message["additional_kwargs"]["reasoning_content"].startswith("The user says")
    assert ("new_token" in [event["name"] for event in run["events"]]) == ("stream" in how)
    assert run.get("error") is None


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_trace_tells_errors(
    llm: ChatEmpirioLabs, config: Any, client: Any, traces: Collector, sandbox: Sandbox, how: str
) -> None:
    sandbox.fail(Fault("status", status=503, code="model_unavailable", message="No capacity."))
    with pytest.raises(EmpirioLabsServerError):
        list(llm.stream("Hello", config)) if how == "stream" else llm.invoke("Hello", config)
    client.flush()
    (run,) = traces.told("llm")
    assert "EmpirioLabsServerError" in run["error"]
    assert "No capacity." in run["error"]
    assert run["extra"]["metadata"]["ls_model_name"] == "deepseek-v4-pro"


def test_the_model_of_a_call_is_the_one_that_is_traced(
    llm: ChatEmpirioLabs, config: Any, client: Any, traces: Collector
) -> None:
    llm.invoke("Hello", config, model="deepseek-v4-flash")
    client.flush()
    (run,) = traces.told("llm")
    assert run["extra"]["metadata"]["ls_model_name"] == "deepseek-v4-flash"
    assert message_of(run)["response_metadata"]["model_name"] == "deepseek-v4-flash"


def test_no_key_is_traced(llm: ChatEmpirioLabs, config: Any, client: Any, traces: Collector, sandbox: Sandbox) -> None:
    """Neither the API key nor the headers of the constructor are in any byte, whatever is run and goes wrong."""
    llm.invoke("Hello", config)
    list(llm.stream("Hello", config))
    llm.with_structured_output({"title": "T", "type": "object", "properties": {}}).invoke("Hello", config)
    sandbox.script(Answer(None, tool_calls=[{"name": "get_weather", "arguments": "{"}]))
    llm.bind_tools([get_weather]).invoke("Hello", config)
    llm.with_fallbacks([llm.model_copy(update={"model": "deepseek-v4-flash"})]).invoke("Hello", config)
    for number, status in enumerate((400, 401, 402, 429, 503)):
        sandbox.fail(Fault("status", status=status, code="upstream_error"))
        with pytest.raises(openai.OpenAIError):
            llm.invoke(f"Hello {number}", config)
    for kind in ("reset", "html", "empty", "error_body"):
        sandbox.fail(Fault(kind))
        with pytest.raises(openai.OpenAIError):
            llm.invoke(f"Hello {kind}", config)
    client.flush()
    assert len(traces.told("llm")) == 14
    assert all(request.headers["x-team-key"] == TEAM_KEY for request in sandbox.requests)
    everything = b"\n".join(traces.raw)
    assert b"deepseek-v4-pro" in everything
    assert sandbox.api_key.encode() not in everything
    assert TEAM_KEY.encode() not in everything


def test_an_environment_that_traces_is_enough(sandbox: Sandbox, traces: Collector) -> None:
    """As users have it: variables, and no code. The client keeps them, so this is a process of its own."""
    tracing = {"TRACING": "true", "ENDPOINT": traces.url, "API_KEY": "traces", "PROJECT": "p"}
    own = {"EMPIRIOLABS_API_KEY": sandbox.api_key, "EMPIRIOLABS_API_BASE": sandbox.base_url}
    environment = {**os.environ, **own, **{f"LANGSMITH_{name}": value for name, value in tracing.items()}}
    code = "from langchain_empiriolabs import ChatEmpirioLabs; print(ChatEmpirioLabs().invoke('Hello').content)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.stdout.startswith("You said: Hello"), done.stderr
    (run,) = traces.told("llm")
    assert (run["name"], run["session_name"]) == ("ChatEmpirioLabs", "p")
    assert message_of(run)["response_metadata"]["cost_usd"] > 0
    sent = b"\n".join(traces.raw)
    assert b"POST /runs/multipart" in sent
    assert sandbox.api_key.encode() not in sent
