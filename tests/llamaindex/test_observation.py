"""LlamaIndex's events, which are emitted only if something listens, and the values that agents keep of a stream."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import pickle
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler, NullEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatInProgressEvent
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.span_handlers import SimpleSpanHandler
from pydantic import BaseModel

from empiriolabs_core.sandbox import Sandbox
from llamaindex_empiriolabs import EmpirioLabs, llms
from llamaindex_empiriolabs.messages import StreamedMessage, partial_object, tool_selections
from llamaindex_empiriolabs.observation import is_observed

MESSAGES = [ChatMessage("Hello")]


class Recorder(BaseEventHandler):
    seen: list[Any] = []

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event)


@pytest.fixture
def llm(where: dict[str, Any]) -> EmpirioLabs:
    return EmpirioLabs(**where)


@pytest.fixture(params=["", "llama_index.core.llms.callbacks", "llamaindex_empiriolabs.llms"])
def handler(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    dispatcher, recorder = get_dispatcher(request.param or "root"), Recorder(seen=[])
    before = dispatcher.event_handlers
    dispatcher.event_handlers = [*before, recorder]
    yield recorder
    dispatcher.event_handlers = before


def test_events_where_a_handler_listens(llm: EmpirioLabs, handler: Recorder) -> None:
    assert is_observed(llm)
    responses = list(llm.stream_chat(MESSAGES))
    if handler.seen:
        progress = [event for event in handler.seen if isinstance(event, LLMChatInProgressEvent)]
        assert len(progress) == len(responses)


def test_nothing_where_nothing_listens(llm: EmpirioLabs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_observed(llm)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("An event was made.")

    monkeypatch.setattr("llama_index.core.llms.callbacks.LLMChatInProgressEvent", fail)
    monkeypatch.setattr("llama_index.core.llms.callbacks.LLMChatStartEvent", fail)
    assert list(llm.stream_chat(MESSAGES))[-1].message.content
    assert llm.chat(MESSAGES).message.content

    async def ask() -> None:
        assert [response async for response in await llm.astream_chat(MESSAGES)][-1].message.content
        assert (await llm.achat(MESSAGES)).message.content

    asyncio.run(ask())


def test_a_span_handler_listens(llm: EmpirioLabs) -> None:
    dispatcher = get_dispatcher("llamaindex_empiriolabs.llms")
    before = dispatcher.span_handlers
    dispatcher.span_handlers = [*before, SimpleSpanHandler()]
    try:
        assert is_observed(llm)
    finally:
        dispatcher.span_handlers = before
    assert not is_observed(llm)


def test_a_handler_derived_from_the_null_one_listens(llm: EmpirioLabs) -> None:
    class Derived(NullEventHandler):
        pass

    dispatcher = get_dispatcher("root")
    before = dispatcher.event_handlers
    dispatcher.event_handlers = [*before, Derived()]
    try:
        assert is_observed(llm)
    finally:
        dispatcher.event_handlers = before


def test_callback_handlers_are_called(where: dict[str, Any]) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = EmpirioLabs(**where, callback_manager=CallbackManager([debug]))
    list(llm.stream_chat(MESSAGES))
    llm.complete("Hello")
    assert len(debug.get_llm_inputs_outputs()) == 2


class Limiter:
    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self) -> None:
        self.acquired += 1

    async def async_acquire(self) -> None:
        self.acquired += 1


def test_the_rate_limiter_is_served(llm: EmpirioLabs) -> None:
    limiter = llm.rate_limiter = Limiter()
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))
    asyncio.run(llm.achat(MESSAGES))
    llm.complete("Hello")
    assert limiter.acquired == 4


def test_methods_look_as_before() -> None:
    assert EmpirioLabs.chat.__name__ == "chat"
    assert "conversation" in (EmpirioLabs.stream_chat.__doc__ or "")
    assert list(inspect.signature(EmpirioLabs.complete).parameters)[:3] == ["self", "prompt", "formatted"]
    assert inspect.iscoroutinefunction(EmpirioLabs.astream_chat)


def state(value: Any) -> Any:
    if isinstance(value, list):
        return [state(inner) for inner in value]
    if not isinstance(value, BaseModel):
        return value
    found = dict(value.__getstate__())
    return type(value), {**found, "__dict__": {name: state(inner) for name, inner in found["__dict__"].items()}}


def test_responses_are_like_the_constructors() -> None:
    streamed = StreamedMessage({"model": "m"})
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a'}}
    chunk = {"choices": [{"delta": {"content": "Hi", "reasoning_content": "Hm", "tool_calls": [call]}}]}
    response = streamed.add(chunk)
    assert response is not None
    blocks = [
        ThinkingBlock(content="Hm"),
        TextBlock(text="Hi"),
        ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs='{"a'),
    ]
    named = {"tool_calls": [{"id": "1", "name": "f", "input": '{"a'}]}
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=named)
    expected = ChatResponse(message=message, raw=chunk, delta="Hi", additional_kwargs={"thinking_delta": "Hm"})
    assert response == expected
    assert state(response) == state(expected)
    assert pickle.loads(pickle.dumps(response)) == expected
    assert copy.deepcopy(response) == expected
    assert response.model_dump_json() == expected.model_dump_json()


def grow(deltas: int) -> Iterator[ChatResponse]:
    streamed = StreamedMessage({"model": "m"})
    for number in range(deltas):
        function = {"arguments": f"word {number} "} if number else {"name": "f", "arguments": '{"text": "'}
        call = {"index": 0, "id": "1", "function": function}
        response = streamed.add({"choices": [{"delta": {"tool_calls": [call]}}]})
        assert response is not None
        yield response


def test_long_arguments_are_read_with_a_lag_of_a_sixteenth() -> None:
    for response in grow(4000):
        (block,) = response.message.blocks
        assert isinstance(block, ToolCallBlock)
        text = block.tool_kwargs
        assert isinstance(text, str)
        found = partial_object(text).get("text", "")
        assert ('{"text": "' + found).startswith(text[: len(text) * 15 // 16]) if len(text) > 20 else True
    assert len(text) > 32_000
    assert type(pickle.loads(pickle.dumps(text))) is str
    assert type(copy.deepcopy(text)) is str
    assert json.dumps(text)


def test_memory_of_an_agents_events_is_linear() -> None:
    def peak(deltas: int) -> int:
        tracemalloc.start()
        kept = [tool_selections(response) for response in grow(deltas)]
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(kept) == deltas
        return found

    # A copy per delta would need 16 times as much memory.
    assert peak(12_000) / peak(3_000) < 6


def test_tool_specs_are_made_once(llm: EmpirioLabs, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [
        FunctionTool.from_defaults(lambda x: x, name=f"tool_{number}", description="A tool.") for number in range(3)
    ]
    first = llm._prepare_chat_with_tools(tools, "x")["tools"]
    monkeypatch.setattr(llms, "_convert", None)
    second = llm._prepare_chat_with_tools(tools, "x")["tools"]
    assert first == second
    first[0]["function"]["name"] = "another"
    assert llm._prepare_chat_with_tools(tools, "x")["tools"] == second
