"""Values that callbacks, tracers and graphs receive, and classes as response formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel

from empiriolabs_core.errors import SettingsError
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs


class Ends(BaseCallbackHandler):
    def __init__(self) -> None:
        self.results: list[LLMResult] = []

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.results.append(response)


async def test_a_streamed_generation_tells_why_it_ended_and_which_model_it_was(where: dict[str, Any]) -> None:
    llm, ends = ChatEmpirioLabs(**where), Ends()
    config: Any = {"callbacks": [ends]}
    chunks = list(llm.stream("Hello", config))
    async for _ in llm.astream("Hello", config):
        pass
    ChatEmpirioLabs(streaming=True, **where).invoke("Hello", config)
    assert len(ends.results) == 3
    for result in ends.results:
        generation: Any = result.generations[0][0]
        assert generation.generation_info == {"finish_reason": "stop", "model_name": "deepseek-v4-flash"}
        assert generation.message.response_metadata["finish_reason"] == "stop"
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.response_metadata["model_name"] == "deepseek-v4-flash"


async def test_generate_sums_the_usage(sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm, asked = ChatEmpirioLabs(**where), [[HumanMessage("One")], [HumanMessage("Two, which is longer")]]
    for result in (llm.generate([*asked]), await llm.agenerate([*asked])):
        billed = sandbox.ledger[-2:]
        assert result.llm_output is not None
        assert result.llm_output["model_name"] == "deepseek-v4-flash"
        usage = result.llm_output["token_usage"]
        assert usage["prompt_tokens"] == sum(line.prompt_tokens for line in billed)
        assert usage["completion_tokens"] == sum(line.completion_tokens for line in billed)
        assert usage["completion_tokens_details"]["reasoning_tokens"] == sum(line.reasoning_tokens for line in billed)
    streamed = ChatEmpirioLabs(streaming=True, **where).generate([*asked])
    assert streamed.llm_output == {"token_usage": {}, "model_name": "deepseek-v4-flash"}


class Verdict(BaseModel):
    """A judge's verdict."""

    score: float
    reason: str


@pytest.mark.parametrize("model", ["deepseek-v4-flash", "text-only-model"])
async def test_a_class_as_response_format(model: str) -> None:
    with Sandbox(models=["text-only-model"]) as sandbox:
        where: dict[str, Any] = {"base_url": sandbox.base_url, "api_key": sandbox.api_key, "model": model}
        chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
        chunks = [chunk.text async for chunk in chat.astream("Judge.", response_format=Verdict)]
        texts = [
            chat.invoke("Judge.", response_format=Verdict).text,
            chat.bind(response_format=Verdict).invoke("Judge.").text,
            "".join(chunks),
            ChatEmpirioLabs(model_kwargs={"response_format": Verdict}, **where).invoke("Judge.").text,
            index.complete("Judge.", response_format=Verdict).text,
            (await index.achat([ChatMessage("Judge.")], response_format=Verdict)).message.content or "",
            list(index.stream_complete("Judge.", response_format=Verdict))[-1].text,
        ]
        for text in texts:
            Verdict.model_validate_json(text)
        bodies = [received.body for received in sandbox.requests]
        if model == "deepseek-v4-flash":
            assert all(body["response_format"] == {"type": "json_object"} for body in bodies)
            assert all(json.dumps(Verdict.model_json_schema()) in body["messages"][0]["content"] for body in bodies)
        else:
            wanted = {"name": "Verdict", "schema": Verdict.model_json_schema()}
            assert all(body["response_format"] == {"type": "json_schema", "json_schema": wanted} for body in bodies)
        for wrong in (chat.invoke, index.complete):
            with pytest.raises(SettingsError, match="must be a dict or a pydantic class, got the class int"):
                wrong("Judge.", response_format=int)


async def test_several_answers_are_not_streamed_because_someone_listens(
    sandbox: Sandbox, where: dict[str, Any]
) -> None:
    llm = ChatEmpirioLabs(n=2, **where)

    # Before Python 3.11 tasks do not inherit the configuration, so the node hands it on.
    async def ask(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await llm.ainvoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    state: Any = {"messages": [HumanMessage("Hello")]}
    seen = [message async for message in graph.compile().astream(state, stream_mode="messages")]
    assert seen[-1][0].content  # type: ignore[index]
    events = [event async for event in graph.compile().astream_events(state, version="v2")]
    ended = next(event for event in events if event["event"] == "on_chat_model_end")
    assert ended["data"]["output"].content
    plain = ChatEmpirioLabs(streaming=True, **where)
    assert len(plain.generate([[HumanMessage("Hello")]], n=2).generations[0]) == 2
    assert len(plain.generate([[HumanMessage("Hello")]], extra_body={"n": 2}).generations[0]) == 2
    assert [received.body.get("stream") for received in sandbox.requests] == [None] * 4
    for stream in (lambda: list(llm.stream("Hello")), lambda: list(plain.stream("Hello", n=2))):
        with pytest.raises(SettingsError, match="n must be 1 in a stream"):
            stream()
    sandbox.script(Answer("One answer, streamed"))
    assert plain.invoke("Hello", n=1).content == "One answer, streamed"
    assert sandbox.requests[-1].body["stream"] is True
