"""Strict tools, calls that cannot be run, partial objects with aliases, small windows, and values for tracers."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from pydantic import AliasChoices, BaseModel, Field

from empiriolabs_core.errors import EmpirioLabsError, ToolRunError
from empiriolabs_core.sandbox import Answer, Sandbox
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsRerank


class Leg(BaseModel):
    to: str
    km: float = 1.0


class Trip(BaseModel):
    legs: list[Leg]
    default: str = "a property, not a keyword"
    notes: dict[str, int] = {}


class Plan(BaseModel):
    trip: Trip
    name: str | None = None


def _plan(**arguments: Any) -> str:
    """Plan a trip."""
    return str(arguments)


def test_strict_tools_have_closed_objects(where: dict[str, Any]) -> None:
    llm, tool = EmpirioLabs(**where), FunctionTool.from_defaults(_plan, name="plan", fn_schema=Plan)
    plain = llm._prepare_chat_with_tools([tool])["tools"][0]["function"]
    assert "additionalProperties" not in plain["parameters"]
    relaxed = llm._prepare_chat_with_tools([tool], strict=False)["tools"][0]["function"]
    assert relaxed == {**plain, "strict": False}
    function = llm._prepare_chat_with_tools([tool], strict=True)["tools"][0]["function"]
    parameters = function["parameters"]
    assert function["strict"] is True
    assert (parameters["additionalProperties"], parameters["required"]) == (False, ["trip", "name"])
    leg, trip = parameters["$defs"]["Leg"], parameters["$defs"]["Trip"]
    assert (leg["additionalProperties"], leg["required"]) == (False, ["to", "km"])
    assert trip["required"] == ["legs", "default", "notes"]
    assert trip["properties"]["notes"]["additionalProperties"] == {"type": "integer"}
    assert trip["properties"]["default"]["default"] == "a property, not a keyword"
    assert llm._prepare_chat_with_tools([tool])["tools"][0]["function"] == plain


def _weather(city: str) -> str:
    """Get the weather."""
    if city == "Atlantis":
        raise LookupError("sunk")
    return f"Sunny in {city}"


BAD = [{"name": "weather", "arguments": '{"city": "Par'}]
UNKNOWN = [{"name": "no_such_tool", "arguments": {}}]
GOOD = [{"name": "weather", "arguments": {"city": "Paris"}}]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_predict_and_call_tells_of_calls_that_cannot_be_run(
    sandbox: Sandbox, where: dict[str, Any], asynchronous: bool
) -> None:
    llm, tools = EmpirioLabs(**where), [FunctionTool.from_defaults(_weather, name="weather")]

    async def ask(**kwargs: Any) -> Any:
        if asynchronous:
            return await llm.apredict_and_call(tools, "Weather?", **kwargs)
        return llm.predict_and_call(tools, "Weather?", **kwargs)

    def script(calls: list[dict[str, Any]]) -> None:
        sandbox.script(Answer(None, reasoning="I call it.", tool_calls=calls))

    for calls, told in ((BAD, "weather (not run"), (UNKNOWN, "no_such_tool")):
        script(calls)
        answer = await ask(error_on_no_tool_call=False)
        assert told in answer.response
        assert [source.is_error for source in answer.sources] == [True]
    script([*GOOD, *UNKNOWN])
    answer = await ask(error_on_no_tool_call=False, allow_parallel_tool_calls=True)
    assert answer.response == "Sunny in Paris\n\nThe tool 'no_such_tool' does not exist."
    script([*GOOD, *UNKNOWN])
    assert (await ask()).response == "Sunny in Paris"
    script([{"name": "weather", "arguments": {"city": "Atlantis"}}])
    with pytest.raises(ToolRunError, match="sunk") as caught:
        await ask(error_on_tool_error=True)
    assert isinstance(caught.value, EmpirioLabsError)
    assert isinstance(caught.value, ValueError)
    sandbox.script(Answer("I do not know."))
    assert (await ask(error_on_no_tool_call=False)).response == "I do not know."
    sandbox.script(Answer("I do not know."))
    with pytest.raises(ValueError, match="I do not know"):
        await ask()


class Song(BaseModel):
    title: str = Field(alias="songTitle")
    length: int = Field(validation_alias=AliasChoices("lengthSeconds", "seconds"))


async def test_partial_objects_with_aliases_grow(sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm, prompt = EmpirioLabs(**where), PromptTemplate("A song.")
    arguments = '{"songTitle": "Frozen", "lengthSeconds": 360}'
    pieces = [{"arguments": text} for text in (arguments[:18], arguments[18:22], arguments[22:])]
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "Song", "arguments": ""}}
    deltas = [head, *({"index": 0, "function": piece} for piece in pieces)]
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    sandbox.script(Answer(chunks=chunks), Answer(chunks=chunks))
    grown = [song.model_copy() for song in llm.stream_structured_predict(Song, prompt)]
    agrown = [song.model_copy() async for song in await llm.astream_structured_predict(Song, prompt)]
    for songs in (grown, agrown):
        titles: list[Any] = [song.title for song in songs]  # type: ignore[union-attr]
        assert titles[0] == "Fro"
        assert titles[-1] == "Frozen"
        assert songs[-1] == Song(songTitle="Frozen", lengthSeconds=360)


@pytest.mark.parametrize(("settings", "expected"), [({}, 2048), ({"max_tokens": 4000}, 2048), ({"max_tokens": 9}, 9)])
def test_a_small_window_leaves_room_for_the_prompt(settings: dict[str, Any], expected: int) -> None:
    metadata = EmpirioLabs(api_key="sk-x", context_window=4096, **settings).metadata
    assert metadata.num_output == expected
    helper = PromptHelper.from_llm_metadata(metadata)
    assert helper.get_text_splitter_given_prompt(PromptTemplate("Sum up: {text}")).chunk_size > 1000
    assert EmpirioLabs(api_key="sk-x").metadata.num_output == 4096


async def test_tracers_find_the_arguments_of_calls(sandbox: Sandbox, where: dict[str, Any]) -> None:
    """OpenInference reads `tool_calls` of additional_kwargs before the blocks: id, name and input."""
    llm, tools = EmpirioLabs(**where), [FunctionTool.from_defaults(_weather, name="weather")]
    for _ in range(2):
        sandbox.script(Answer(None, reasoning="I call it.", tool_calls=GOOD))
    whole = llm.chat_with_tools(tools, "Weather?")
    streamed = [response async for response in await llm.astream_chat_with_tools(tools, "Weather?")][-1]
    for response in (whole, streamed):
        (call,) = response.message.additional_kwargs["tool_calls"]
        assert (call["name"], call["input"]) == ("weather", '{"city": "Paris"}')
    result = ChatMessage(role="tool", content="Sunny", additional_kwargs={"tool_call_id": call["id"]})
    llm.chat([ChatMessage("Weather?"), streamed.message, result])
    assert len(sandbox.requests[-1].body["messages"][-2]["tool_calls"]) == 1


async def test_nodes_without_text_are_ranked_last(sandbox: Sandbox, where: dict[str, Any]) -> None:
    texts = ["", "A dog barks.", "  \n", "The cat sleeps."]
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in texts]
    rerank = EmpirioLabsRerank(**where)
    ranked = (
        rerank.postprocess_nodes(nodes, query_str="the cat"),
        await rerank.apostprocess_nodes(nodes, query_str="the cat"),
    )
    for found in ranked:
        assert [node.text for node in found] == ["The cat sleeps.", "A dog barks.", "", "  \n"]
        assert [node.score for node in found[2:]] == [0, 0]
    assert len(EmpirioLabsRerank(top_n=3, **where).postprocess_nodes(nodes, query_str="cat")) == 3
    assert all(received.body["documents"] == [texts[1], texts[3]] for received in sandbox.requests)
    sent = len(sandbox.requests)
    assert [node.score for node in rerank.postprocess_nodes(nodes[:1], query_str="cat")] == [0]
    assert len(sandbox.requests) == sent
