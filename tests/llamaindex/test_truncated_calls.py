"""LlamaIndex agents never run truncated calls: against the strict sandbox, with and without streaming."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core.sandbox import Answer, Sandbox
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import InvalidToolArgumentsError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)

EACH_WAY = pytest.mark.parametrize("streaming", [True, False], ids=["streamed", "whole"])
ADA = {"name": "delete", "arguments": {"path": "/home/ada"}}
EVE = {"name": "delete", "arguments": {"path": "/home/eve"}}


class Runs:
    """A tool that records the paths that it receives."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def tool(self) -> Any:
        def delete(path: str = "/") -> str:
            """Delete a folder."""
            self.paths.append(path)
            return f"Deleted {path}."

        return delete


@pytest.fixture
def runs() -> Runs:
    return Runs()


def agent(where: dict[str, Any], runs: Runs, streaming: bool, **settings: Any) -> FunctionAgent:
    return FunctionAgent(llm=EmpirioLabs(**where, **settings), tools=[runs.tool()], streaming=streaming)


class Cut:
    """An LLM whose first answer is truncated, but no other."""

    def __init__(self, sandbox: Sandbox, arguments: str, **further: Any) -> None:
        call = {"name": "delete", "arguments": arguments}
        sandbox.script(Answer(None, tool_calls=[call], **{"finish_reason": "length", **further}))


@EACH_WAY
@pytest.mark.parametrize("arguments", ["", '{"path": "/home'])
async def test_a_truncated_call_is_not_run_and_the_agent_goes_on(
    streaming: bool, arguments: str, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    Cut(sandbox, arguments)
    response = await agent(where, runs, streaming).run("Clean up.")
    assert runs.paths == []
    told = sandbox.requests[1].body["messages"]
    assert told[-2]["tool_calls"][0]["function"] == {"name": "delete", "arguments": arguments}
    assert "not run: it was truncated (finish_reason 'length')" in told[-1]["content"]
    assert str(response).startswith("The tools say: ")


@EACH_WAY
async def test_a_relay_that_hides_the_truncation(
    streaming: bool, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    Cut(sandbox, "", finish_reason="tool_calls", choice={"native_finish_reason": "length"})
    await agent(where, runs, streaming).run("Clean up.")
    assert runs.paths == []


@EACH_WAY
@pytest.mark.parametrize("way", ["chat", "async"])
async def test_max_tokens_truncates_the_call(
    streaming: bool, way: str, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    """With one token, DeepSeek returns a name without arguments."""
    llm, asked = EmpirioLabs(**where, max_tokens=1), [ChatMessage("Clean up.")]
    sandbox.script(Answer(None, tool_calls=[ADA], finish_reason="tool_calls"))
    if way == "chat":
        response = list(llm.stream_chat(asked))[-1] if streaming else llm.chat(asked)
    elif streaming:
        response = [one async for one in await llm.astream_chat(asked)][-1]
    else:
        response = await llm.achat(asked)
    with pytest.raises(InvalidToolArgumentsError, match="The call of delete was not run: it was truncated"):
        llm.get_tool_calls_from_response(response)
    (selection,) = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    assert selection.tool_name.startswith("delete (not run: it was truncated")


@EACH_WAY
async def test_a_complete_call_before_a_truncated_one_is_run(
    streaming: bool, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    sandbox.script(Answer(None, tool_calls=[ADA, {"name": "delete", "arguments": ""}], finish_reason="length"))
    await agent(where, runs, streaming).run("Clean up.")
    assert runs.paths == ["/home/ada"]


@EACH_WAY
@pytest.mark.parametrize("form", ["pieces_together", "no_index", "rising_index"])
async def test_odd_streams_make_no_other_calls(
    streaming: bool, form: str, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    sandbox.script(Answer(None, tool_calls=[ADA, EVE], stream_form=form))
    response = await agent(where, runs, streaming).run("Clean up.")
    assert sorted(runs.paths) == ["/home/ada", "/home/eve"]
    assert len(response.tool_calls) == 2


@EACH_WAY
async def test_ids_and_names_that_models_repeat_and_make_up(
    streaming: bool, sandbox: Sandbox, where: dict[str, Any], runs: Runs
) -> None:
    sandbox.script(
        Answer(None, tool_calls=[{**ADA, "id": "delete"}, {**EVE, "id": "delete"}]),
        Answer(None, tool_calls=[{**ADA, "id": "delete"}]),
        Answer(None, tool_calls=[{"name": "functions.delete", "arguments": {}, "id": "delete"}]),
        Answer(None, tool_calls=[{"name": "", "arguments": {}, "id": "delete"}]),
    )
    response = await agent(where, runs, streaming).run("Clean up.")
    assert sorted(runs.paths) == ["/home/ada", "/home/ada", "/home/eve"]
    assert len(sandbox.requests) == 5
    assert str(response).startswith("The tools say: ")
