"""A conformance suite for LlamaIndex chat LLMs, to be inherited. LlamaIndex does not provide one.

Another integration runs it by defining a factory:

    class TestMine(LLMConformance):
        def make(self, base_url, api_key, **settings): return MyLLM(api_base=base_url, api_key=api_key, **settings)

The sandbox is the server, as strict as DeepSeek is while it thinks.
"""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.memory import Memory
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from empiriolabs_core.sandbox import Answer, Sandbox

QUESTION = [ChatMessage("Hello")]


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


def get_time(city: str) -> str:
    """Get the time in a city."""
    return f"Noon in {city}."


TOOLS = [FunctionTool.from_defaults(get_weather), FunctionTool.from_defaults(get_time)]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def _chunks(*calls: list[dict[str, Any]]) -> Answer:
    head: dict[str, Any] = {"id": "chatcmpl-odd", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"tool_calls": deltas}}]} for deltas in calls]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return Answer(chunks=[*chunks, end])


def _delta(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


STREAMED_SHAPES = {
    "in order": [
        [_delta(0, "", "a", "get_weather")],
        [_delta(0, '{"city": "Paris"}')],
        [_delta(1, "", "b", "get_time")],
        [_delta(1, '{"city": "Rome"}')],
    ],
    "in one chunk": [
        [_delta(0, '{"city": "Paris"}', "a", "get_weather"), _delta(1, '{"city": "Rome"}', "b", "get_time")]
    ],
    "interleaved": [
        [_delta(0, "", "a", "get_weather")],
        [_delta(1, "", "b", "get_time")],
        [_delta(0, '{"city": "Paris"}')],
        [_delta(1, '{"city": "Rome"}')],
    ],
    "index reused": [
        [_delta(0, '{"city": "Paris"}', "a", "get_weather")],
        [_delta(0, '{"city": "Rome"}', "b", "get_time")],
    ],
    "repeated": [
        [_delta(0, '{"city": ', "a", "get_weather")],
        [_delta(0, '"Paris"}', "a", "get_weather")],
        [_delta(1, '{"city": ', "b", "get_time")],
        [_delta(1, '"Rome"}', "b", "get_time")],
    ],
    "null name first": [
        [_delta(0, "", "a", None)],
        [_delta(0, '{"city": "Paris"}', None, "get_weather")],
        [_delta(1, '{"city": "Rome"}', "b", "get_time")],
    ],
    "no function": [
        [{"index": 0, "id": "a"}],
        [_delta(0, '{"city": "Paris"}', None, "get_weather")],
        [_delta(1, '{"city": "Rome"}', "b", "get_time")],
    ],
}


class LLMConformance:
    """The suite."""

    def make(self, base_url: str, api_key: str, **settings: Any) -> FunctionCallingLLM:
        """Return the LLM under test."""
        raise NotImplementedError

    def streamed(self, shape: str) -> Answer:
        """Return two streamed calls in a given shape. Endpoints other than chat completions have other shapes."""
        return _chunks(*STREAMED_SHAPES[shape])

    def reasoning_of_the_call(self, body: Any) -> str:
        """Return the reasoning of the second message of a request."""
        return str(body["messages"][1]["reasoning_content"])

    @pytest.fixture
    def llm(self, sandbox: Sandbox) -> FunctionCallingLLM:
        return self.make(sandbox.base_url, sandbox.api_key)

    def test_class(self, llm: FunctionCallingLLM) -> None:
        assert BaseLLM.__name__ in [base.__name__ for base in type(llm).__mro__]
        assert llm.metadata.is_chat_model
        assert llm.metadata.is_function_calling_model
        assert llm.metadata.context_window > 100_000

    def test_sync_and_async_give_the_same_sequences(self, llm: FunctionCallingLLM) -> None:
        def seen(responses: list[Any]) -> list[Any]:
            return [(r.delta, r.message.content, r.additional_kwargs.get("thinking_delta")) for r in responses]

        async def astream() -> list[Any]:
            return [response async for response in await llm.astream_chat(QUESTION)]

        sync, asynchronous = list(llm.stream_chat(QUESTION)), asyncio.run(astream())
        assert seen(sync) == seen(asynchronous)
        assert all(isinstance(response.delta, str) for response in sync)
        whole = llm.chat(QUESTION)
        assert "".join(response.delta or "" for response in sync) == whole.message.content
        thought = "".join(response.additional_kwargs.get("thinking_delta", "") for response in sync)
        assert [b.content for b in whole.message.blocks if isinstance(b, ThinkingBlock)] == [thought]
        assert sync[-1].message.blocks == whole.message.blocks == asyncio.run(llm.achat(QUESTION)).message.blocks

    def test_completions_are_the_same_words(self, llm: FunctionCallingLLM) -> None:
        async def astream() -> list[Any]:
            return [response async for response in await llm.astream_complete("Hello")]

        text = llm.chat(QUESTION).message.content
        assert llm.complete("Hello").text == asyncio.run(llm.acomplete("Hello")).text == text
        assert list(llm.stream_complete("Hello"))[-1].text == asyncio.run(astream())[-1].text == text

    def test_earlier_responses_do_not_change(self, llm: FunctionCallingLLM) -> None:
        texts, responses = [], []
        for response in llm.stream_chat(QUESTION):
            texts.append(response.message.content)
            responses.append(response)
        assert [response.message.content for response in responses] == texts

    def test_a_tool_turn_has_no_text_block(self, llm: FunctionCallingLLM) -> None:
        whole = llm.chat_with_tools(TOOLS, "Weather in Paris?")
        streamed = list(llm.stream_chat_with_tools(TOOLS, "Weather in Paris?"))[-1]
        for response in (whole, streamed):
            assert [type(block) for block in response.message.blocks] == [ThinkingBlock, ToolCallBlock]
            assert response.message.content is None
            assert set(response.message.additional_kwargs) <= {"tool_calls"}

    @pytest.mark.parametrize("shape", STREAMED_SHAPES)
    def test_streamed_tool_calls(self, llm: FunctionCallingLLM, sandbox: Sandbox, shape: str) -> None:
        sandbox.script(self.streamed(shape))
        for response in llm.stream_chat_with_tools(TOOLS, "Go", allow_parallel_tool_calls=True):
            calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        assert [(call.tool_id, call.tool_name, call.tool_kwargs) for call in calls] == [
            ("a", "get_weather", {"city": "Paris"}),
            ("b", "get_time", {"city": "Rome"}),
        ]

    @pytest.mark.parametrize("way", ["chat", "stream", "achat", "astream"])
    @pytest.mark.parametrize("memory", ["straight", "json", "pickle", "memory"])
    def test_reasoning_goes_back_in_a_tool_loop(
        self, llm: FunctionCallingLLM, sandbox: Sandbox, way: str, memory: str
    ) -> None:
        async def astream() -> Any:
            return [r async for r in await llm.astream_chat_with_tools(TOOLS, "Weather in Paris?")][-1]

        ways: dict[str, Callable[[], Any]] = {
            "chat": lambda: llm.chat_with_tools(TOOLS, "Weather in Paris?"),
            "stream": lambda: list(llm.stream_chat_with_tools(TOOLS, "Weather in Paris?"))[-1],
            "achat": lambda: asyncio.run(llm.achat_with_tools(TOOLS, "Weather in Paris?")),
            "astream": lambda: asyncio.run(astream()),
        }
        response = ways[way]()
        (call,) = llm.get_tool_calls_from_response(response)
        told = ChatMessage(role=MessageRole.TOOL, content="Sunny.", additional_kwargs={"tool_call_id": call.tool_id})
        history = [ChatMessage("Weather in Paris?"), self._kept(response.message, memory), told]
        answer = llm.chat_with_tools(TOOLS, chat_history=history)
        assert answer.message.content == "The tools say: Sunny."
        assert self.reasoning_of_the_call(sandbox.requests[-1].body).startswith("I should call get_weather.")
        assert len(history) == 3

    @staticmethod
    def _kept(message: ChatMessage, memory: str) -> ChatMessage:
        if memory == "json":
            return ChatMessage.model_validate(json.loads(message.model_dump_json()))
        if memory == "pickle":
            return ChatMessage.model_validate(pickle.loads(pickle.dumps(message.model_dump())))
        if memory == "memory":
            store = Memory.from_defaults(token_limit=4000)
            store.put(ChatMessage("Weather in Paris?"))
            store.put(message)
            return store.get()[-1]
        return message

    def test_forced_choices_work_while_thinking(self, llm: FunctionCallingLLM) -> None:
        response = llm.chat_with_tools(TOOLS, "Hello", tool_required=True)
        assert len(llm.get_tool_calls_from_response(response)) == 1
        response = llm.chat_with_tools(TOOLS, "Hello", tool_choice="get_time")
        assert llm.get_tool_calls_from_response(response)[0].tool_name == "get_time"

    def test_parallel_calls_only_if_allowed(self, llm: FunctionCallingLLM) -> None:
        ask = "Weather and time in Paris?"
        both = llm.chat_with_tools(TOOLS, ask, allow_parallel_tool_calls=True)
        assert len(llm.get_tool_calls_from_response(both)) == 2
        assert llm.predict_and_call(TOOLS, ask, allow_parallel_tool_calls=True).response.count("Paris") == 2
        assert len(llm.get_tool_calls_from_response(llm.chat_with_tools(TOOLS, ask))) == 1
        assert llm.predict_and_call(TOOLS, ask).response == "Sunny in Paris."
        assert asyncio.run(llm.apredict_and_call(TOOLS, ask)).response == "Sunny in Paris."

    def test_no_tool_call(self, llm: FunctionCallingLLM) -> None:
        response = llm.chat_with_tools(TOOLS, "Hello")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(ValueError, match="You said"):
            llm.get_tool_calls_from_response(response)

    def test_structured_output(self, llm: FunctionCallingLLM) -> None:
        prompt = PromptTemplate("Describe {who}, who is 36.")
        assert llm.structured_predict(Person, prompt, who="Ada") == Person(name="Ada", age=36)
        assert asyncio.run(llm.astructured_predict(Person, prompt, who="Ada")).age == 36
        structured = llm.as_structured_llm(Person)
        assert structured.complete("Describe Ada, who is 36.").raw == Person(name="Ada", age=36)
        assert structured.chat([ChatMessage("Describe Ada, who is 36.")]).raw == Person(name="Ada", age=36)

    def test_structured_output_grows(self, llm: FunctionCallingLLM, sandbox: Sandbox) -> None:
        prompt = PromptTemplate("Who?")
        ada = Answer(None, tool_calls=[{"name": "Person", "arguments": {"name": "Ada Lovelace", "age": 36}}])
        sandbox.script(ada, ada)
        names = [person.name for person in llm.stream_structured_predict(Person, prompt)]
        assert names[-1] == "Ada Lovelace"
        assert any(name and name != "Ada Lovelace" for name in names), names

        async def collect() -> list[Any]:
            return [person async for person in await llm.astream_structured_predict(Person, prompt)]

        assert [person.name for person in asyncio.run(collect())] == names

    def test_usage(self, llm: FunctionCallingLLM) -> None:
        for response in (llm.chat(QUESTION), list(llm.stream_chat(QUESTION))[-1]):
            counts = response.additional_kwargs
            assert counts["prompt_tokens"] + counts["completion_tokens"] == counts["total_tokens"]
            assert response.raw["usage"]["total_tokens"] == counts["total_tokens"]

    def test_callers_history_is_left_alone(self, llm: FunctionCallingLLM) -> None:
        history = [ChatMessage("Hello"), ChatMessage(role="assistant", blocks=[TextBlock(text="Hi")])]
        before = [message.model_dump() for message in history]
        llm.chat_with_tools(TOOLS, "Weather?", chat_history=history)
        assert [message.model_dump() for message in history] == before

    def test_copies(self, llm: FunctionCallingLLM) -> None:
        llm.chat(QUESTION)
        assert pickle.loads(pickle.dumps(llm)).metadata == llm.metadata
        assert type(llm).from_dict(llm.to_dict()).metadata == llm.metadata
        assert "sk-empiriolabs" not in repr(llm) + str(llm.to_dict())
        assert "sk-empiriolabs" not in str(llm.to_payload())
        assert b"sk-empiriolabs" not in pickle.dumps(llm)
