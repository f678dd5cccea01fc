"""EmpirioLabs over a socket to the strict sandbox: the conformance suite, and this package's own features."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from typing import Any, Generic, TypeVar

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel, ConfigDict, RootModel, model_validator

from empiriolabs_core.errors import SettingsError, UnsupportedContentError
from empiriolabs_core.sandbox import Answer, Sandbox
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import EmpirioLabsChatResponse, InvalidToolArgumentsError, to_wire
from tests.llamaindex.conformance import QUESTION, TOOLS, LLMConformance, Person

Item = TypeVar("Item")


class Tree(BaseModel):
    """A tree."""

    name: str
    kids: list[Tree] = []


class TestConformance(LLMConformance):
    def make(self, base_url: str, api_key: str, **settings: Any) -> EmpirioLabs:
        return EmpirioLabs(api_base=base_url, api_key=api_key, **settings)


class _OnAnotherEndpoint(TestConformance):
    __test__ = False

    def streamed(self, shape: str) -> Answer:
        """Return two calls, which the sandbox streams. `tests/core/test_endpoints.py` tests other shapes."""
        told = [("a", "get_weather", {"city": "Paris"}), ("b", "get_time", {"city": "Rome"})]
        return Answer(content=None, tool_calls=[{"id": i, "name": n, "arguments": args} for i, n, args in told])

    @staticmethod
    def _kept(message: ChatMessage, memory: str) -> ChatMessage:
        if memory == "memory":
            pytest.skip("The store does not depend on the endpoint, and its threads outlive their event loop.")
        return TestConformance._kept(message, memory)


class TestConformanceOnResponses(_OnAnotherEndpoint):
    __test__ = True

    def make(self, base_url: str, api_key: str, **settings: Any) -> EmpirioLabs:
        return super().make(base_url, api_key, endpoint="responses", **settings)

    def reasoning_of_the_call(self, body: Any) -> str:
        assert [item["type"] for item in body["input"][1:3]] == ["reasoning", "function_call"]
        return str(body["input"][1]["content"][0]["text"])


class TestConformanceOnMessages(_OnAnotherEndpoint):
    __test__ = True

    def make(self, base_url: str, api_key: str, **settings: Any) -> EmpirioLabs:
        return super().make(base_url, api_key, endpoint="messages", **settings)

    def reasoning_of_the_call(self, body: Any) -> str:
        thinking, use = body["messages"][1]["content"]
        assert (thinking["type"], use["type"]) == ("thinking", "tool_use")
        return str(thinking["thinking"])


@pytest.fixture
def llm(where: dict[str, Any]) -> EmpirioLabs:
    return EmpirioLabs(**where)


def test_metadata() -> None:
    metadata = EmpirioLabs(model="deepseek-v4-pro").metadata
    assert (metadata.context_window, metadata.num_output, metadata.model_name) == (1_000_000, 4096, "deepseek-v4-pro")
    assert metadata.system_role == MessageRole.SYSTEM
    assert EmpirioLabs(model="other").metadata.context_window == 128_000
    assert EmpirioLabs(context_window=5000, max_tokens=70).metadata.context_window == 5000
    assert EmpirioLabs(max_tokens=70).metadata.num_output == 70
    assert EmpirioLabs.class_name() == "EmpirioLabs_LLM"


def test_blocks_go_out() -> None:
    citable = CitableBlock(title="Notes", source="notes.md", content=[TextBlock(text="It is blue.")])
    cited = CitationBlock(cited_content=TextBlock(text="x"), source="s", title="t", additional_location_info={})
    wire = to_wire(
        [
            ChatMessage(blocks=[TextBlock(text="a"), citable, CachePoint(cache_control=CacheControl(type="x"))]),
            ChatMessage(role="assistant", blocks=[ThinkingBlock(content="Hm."), TextBlock(text="b"), cited]),
            ChatMessage(
                role="assistant",
                blocks=[
                    ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={"k": "ü"}),
                    ThinkingBlock(content=""),
                ],
            ),
            ChatMessage(role="tool", content="r", additional_kwargs={"tool_call_id": "1"}),
        ]
    )
    assert wire[0] == {"role": "user", "content": "aSource: Notes (notes.md)\nIt is blue.\n"}
    assert wire[1] == {"role": "assistant", "content": "b", "reasoning_content": "Hm."}
    assert wire[2]["content"] is None
    assert wire[2]["reasoning_content"] == ""
    assert wire[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"k": "ü"}'}
    assert wire[3] == {"role": "tool", "content": "r", "tool_call_id": "1"}


@pytest.mark.parametrize("typed", [False, True], ids=["dictionaries", "objects"])
def test_histories_from_before_tool_call_blocks(llm: EmpirioLabs, sandbox: Sandbox, typed: bool) -> None:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        for number, arguments in enumerate(['{"city": "Paris"}', "{}"])
    ]
    kept = [ChatCompletionMessageFunctionToolCall.model_validate(call) for call in calls] if typed else calls
    asked = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": kept})
    told = [ChatMessage(role="tool", content="Sunny.", additional_kwargs={"tool_call_id": f"c{n}"}) for n in range(2)]
    answer = llm.chat([ChatMessage("Weather?"), asked, *told])
    assert answer.message.content == "The tools say: Sunny. | Sunny."
    assert sandbox.requests[0].body["messages"][1]["tool_calls"] == calls


def test_our_own_short_entries_are_no_calls(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    short = ChatMessage(role="assistant", content="Hi", additional_kwargs={"tool_calls": [{"id": "c1", "name": "w"}]})
    llm.chat([ChatMessage("Hello"), short, ChatMessage("Hello")])
    assert "tool_calls" not in sandbox.requests[0].body["messages"][1]


def test_calls_and_results_without_an_id(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    call = ToolCallBlock(tool_call_id=None, tool_name="get_weather", tool_kwargs={})
    old = {"function": {"name": "get_weather", "arguments": "{}"}}
    for message in (
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [old]}),
        ChatMessage(role="function", content="Sunny.", additional_kwargs={"name": "get_weather"}),
    ):
        with pytest.raises(UnsupportedContentError, match=r"'get_weather' has no tool_call_id.*such as 'call_1'"):
            llm.chat([ChatMessage("Weather?"), message])
    with pytest.raises(UnsupportedContentError, match=r"tool result 'Sunny.' has no tool_call_id"):
        llm.chat([ChatMessage("Weather?"), ChatMessage(role="tool", content="Sunny.")])
    assert sandbox.requests == []


def test_modalities(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    blocks = {
        "image_url": ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png"),
        "input_audio": AudioBlock(audio=b"RIFF", format="wav"),
        "video_url": VideoBlock(url="http://x.invalid/a.mp4"),
        "file": DocumentBlock(data=b"%PDF-", title="a.pdf", document_mimetype="application/pdf"),
    }
    for kind, block in blocks.items():
        message = ChatMessage(blocks=[TextBlock(text="See"), block])
        assert [part["type"] for part in to_wire([message])[0]["content"]] == ["text", kind]
    (picture,) = to_wire([ChatMessage(blocks=[blocks["image_url"]])])[0]["content"]
    assert picture["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    for block in blocks.values():
        message = ChatMessage(blocks=[TextBlock(text="See"), block])
        with pytest.raises(UnsupportedContentError, match="accepts text only"):
            llm.chat([message])
        with pytest.raises(UnsupportedContentError, match="may contain only text"):
            to_wire([ChatMessage(role="assistant", blocks=[block])])
    assert sandbox.requests == []


def test_invalid_arguments_are_told(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    broken = Answer(None, tool_calls=[{"name": "get_weather", "arguments": '{"city": "Par'}])
    sandbox.script(broken, broken, broken)
    whole = llm.chat_with_tools(TOOLS, "Go")
    *_, streamed = llm.stream_chat_with_tools(TOOLS, "Go")
    for response in (whole, streamed):
        with pytest.raises(InvalidToolArgumentsError, match="get_weather"):
            llm.get_tool_calls_from_response(response)
    partial = [
        llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        for response in list(llm.stream_chat_with_tools(TOOLS, "Go"))[:-1]
    ]
    assert partial[-1][0].tool_kwargs == {"city": "Par"}


def test_a_call_cut_short_is_not_taken_for_one_still_growing(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Par'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    sandbox.script(Answer(body={"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "length"}]}))
    with pytest.raises(InvalidToolArgumentsError):
        llm.get_tool_calls_from_response(llm.chat_with_tools(TOOLS, "Go"))


class Events(BaseEventHandler):
    seen: list[Any] = []

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)


def test_events_come_in_pairs(where: dict[str, Any]) -> None:
    debug, events = LlamaDebugHandler(print_trace_on_end=False), Events(seen=[])
    llm = EmpirioLabs(callback_manager=CallbackManager([debug]), **where)
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(events)

    async def asynchronous() -> None:
        await llm.achat(QUESTION)
        await llm.acomplete("Hello")
        async for _ in await llm.astream_chat(QUESTION):
            pass
        async for _ in await llm.astream_complete("Hello"):
            pass

    calls: list[Any] = [
        lambda: llm.chat(QUESTION),
        lambda: llm.complete("Hello"),
        lambda: list(llm.stream_chat(QUESTION)),
        lambda: list(llm.stream_complete("Hello")),
    ]
    try:
        for call in calls:
            debug.flush_event_logs()
            events.seen.clear()
            call()
            assert len(debug.get_event_pairs(CBEventType.LLM)) == 1
            names = [type(event).__name__ for event in events.seen]
            assert sum(name.endswith("StartEvent") and name.startswith("LLM") for name in names) == 1
            assert sum(name.endswith("EndEvent") and name.startswith("LLM") for name in names) == 1
        debug.flush_event_logs()
        asyncio.run(asynchronous())
        assert len(debug.get_event_pairs(CBEventType.LLM)) == 4
        assert "sk-empiriolabs" not in str(
            [event.model_dump() for event in events.seen if "Start" in type(event).__name__]
        )
    finally:
        dispatcher.event_handlers.remove(events)


def test_the_events_of_structured_output_enclose_the_call(llm: EmpirioLabs) -> None:
    events, dispatcher = Events(seen=[]), get_dispatcher()
    dispatcher.add_event_handler(events)
    try:
        llm.structured_predict(Person, PromptTemplate("Ada is 36"))
        asyncio.run(llm.astructured_predict(Person, PromptTemplate("Ada is 36")))
        list(llm.stream_structured_predict(Person, PromptTemplate("Ada is 36")))
    finally:
        dispatcher.event_handlers.remove(events)
    names = [type(event).__name__ for event in events.seen]
    kept = [name for name in names if "InProgress" not in name and ("Chat" in name or "Structured" in name)]
    one = ["LLMStructuredPredictStartEvent", "LLMChatStartEvent", "LLMChatEndEvent", "LLMStructuredPredictEndEvent"]
    assert kept == one * 3


@pytest.mark.parametrize("way", ["chat", "stream_chat", "complete", "stream_complete"])
def test_the_servers_token_counts_are_shown(where: dict[str, Any], sandbox: Sandbox, way: str) -> None:
    counter = TokenCountingHandler()
    llm = EmpirioLabs(callback_manager=CallbackManager([counter]), **where)
    answer = getattr(llm, way)("Hello" if "complete" in way else QUESTION)
    if "stream" in way:
        *_, answer = answer
    billed = sandbox.ledger[-1]
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (
        billed.prompt_tokens,
        billed.completion_tokens,
    )
    assert answer.additional_kwargs["reasoning_tokens"] == billed.reasoning_tokens > 0
    if "chat" in way:
        assert answer.message.blocks[0].num_tokens == billed.reasoning_tokens


def test_settings_win_where_they_should(llm: EmpirioLabs, where: dict[str, Any], sandbox: Sandbox) -> None:
    llm = EmpirioLabs(max_tokens=100, additional_kwargs={"temperature": 0.9}, extra_body={"a": 1}, **where)
    llm.chat(QUESTION, max_tokens=50, temperature=0.0, extra_body={"b": 2})
    sent = sandbox.requests[-1].body
    assert (sent["max_tokens"], sent["temperature"], sent["a"], sent["b"]) == (50, 0.0, 1, 2)
    with pytest.raises(SettingsError, match="n must be 1, got 2"):
        llm.chat(QUESTION, n=2)
    with pytest.raises(SettingsError, match="tool_choice='get_wether'"):
        llm.chat_with_tools(TOOLS, "Hello", tool_choice="get_wether")


def test_errors_come_before_a_stream_is_read(llm: EmpirioLabs) -> None:
    with pytest.raises(SettingsError, match="temperature"):
        llm.stream_chat(QUESTION, temperature=3)
    with pytest.raises(SettingsError, match="messages must not be empty"):
        llm.chat([])


URL = "https://field-notes.example/today"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        {"annotations": [{"type": "url_citation", "url_citation": {"url": URL, "start_index": 2}}]},
        {"citations": [URL]},
        {},
    ],
)
def test_citations(llm: EmpirioLabs, sandbox: Sandbox, stream: bool, extra: dict[str, Any]) -> None:
    text = "Blue." if extra else f"Blue.\n\n### Sources\n- {URL}."
    sandbox.script(Answer(text, extra=extra), Answer(text, extra=extra))
    search = {"web_search_linkup": not extra}
    response = list(llm.stream_chat(QUESTION, **search))[-1] if stream else llm.chat(QUESTION, **search)
    assert isinstance(response, EmpirioLabsChatResponse)
    assert [citation.source for citation in response.citations] == [URL]
    assert response.message.content == text
    assert to_wire([response.message])[0]["content"] == text
    completion: Any = list(llm.stream_complete("Hello", **search))[-1] if stream else llm.complete("Hello", **search)
    assert [citation.source for citation in completion.citations] == [URL]


def test_a_system_prompt_is_applied_to_structured_output(where: dict[str, Any], sandbox: Sandbox) -> None:
    llm = EmpirioLabs(system_prompt="Be exact.", **where)
    prompt = PromptTemplate("Ada is 36")
    llm.structured_predict(Person, prompt)
    asyncio.run(llm.astructured_predict(Person, prompt))
    list(llm.stream_structured_predict(Person, prompt))
    for request in sandbox.requests:
        assert request.body["messages"][0] == {"role": "system", "content": "Be exact."}
        assert request.body["tool_choice"] == "required"
        assert request.body["enable_thinking"] is False


def test_the_program_mode_is_honoured(where: dict[str, Any], sandbox: Sandbox) -> None:
    llm = EmpirioLabs(pydantic_program_mode=PydanticProgramMode.LLM, **where)
    answer = Answer(json.dumps({"name": "Ada", "age": 36}))
    sandbox.script(answer, answer)
    assert llm.structured_predict(Person, PromptTemplate("Ada")).age == 36
    assert asyncio.run(llm.astructured_predict(Person, PromptTemplate("Ada"))).age == 36
    assert all("tools" not in request.body for request in sandbox.requests)


def test_structured_output_that_does_not_fit(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(
        Answer(None, tool_calls=[{"name": "Person", "arguments": {"name": "Ada"}}]), Answer("I would rather not.")
    )
    with pytest.raises(ValueError, match="do not match Person"):
        llm.structured_predict(Person, PromptTemplate("Ada"))
    with pytest.raises(ValueError, match="I would rather not"):
        list(llm.stream_structured_predict(Person, PromptTemplate("Ada")))


def test_a_class_that_refers_to_itself(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    tree = llm.structured_predict(Tree, PromptTemplate("The 'oak'."))
    assert tree.name == "oak"
    sent = sandbox.requests[0].body["tools"][0]["function"]["parameters"]
    assert (sent["type"], set(sent["properties"]), sent["required"]) == ("object", {"name", "kids"}, ["name"])
    assert sent["properties"]["kids"]["items"] == {"$ref": "#/$defs/Tree"}
    assert sent["$defs"]["Tree"]["properties"] == sent["properties"]


def test_a_long_structured_stream(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    """The benchmarks measure its cost. This test checks that every fragment arrives."""
    arguments = {"name": "word " * 2000, "age": 1}
    sandbox.script(Answer(None, tool_calls=[{"name": "Person", "arguments": arguments}]))
    found = list(llm.stream_structured_predict(Person, PromptTemplate("Ada"), llm_kwargs={"max_tokens": 9000}))
    assert found[-1] == Person(**arguments)  # type: ignore[arg-type]
    lengths = [len(person.name or "") for person in found]
    assert len(lengths) > 1500
    assert lengths == sorted(lengths)


def test_logprobs(llm: EmpirioLabs) -> None:
    for response in (llm.chat(QUESTION, logprobs=True), list(llm.stream_chat(QUESTION, logprobs=True))[-1]):
        assert response.logprobs is not None
        assert "".join(options[0].token for options in response.logprobs) == response.message.content


@pytest.mark.parametrize("prompt", [None, 5, ["Hello"]])
def test_a_prompt_that_is_no_text_is_refused(llm: EmpirioLabs, sandbox: Sandbox, prompt: Any) -> None:
    with pytest.raises(SettingsError, match="must be a str"):
        llm.complete(prompt)
    assert sandbox.requests == []


@pytest.mark.parametrize("name", ["get weather.v2", "n" * 65, "wetter_für"])
def test_a_tool_whose_name_cannot_be_sent(llm: EmpirioLabs, sandbox: Sandbox, name: str) -> None:
    tool = FunctionTool.from_defaults(lambda city: city, name=name, description="Tells.")
    with pytest.raises(SettingsError, match=r"1 to 64 letters, digits, _ or -, got .* Rename it"):
        llm.chat_with_tools([tool], "Weather?")
    assert not sandbox.requests


@pytest.mark.parametrize("tool", [len, {"type": "function"}, "get_weather"])
def test_what_is_no_tool(llm: EmpirioLabs, tool: Any) -> None:
    with pytest.raises(SettingsError, match="is not a tool"):
        llm.chat_with_tools([tool], "Weather?")


def test_tools_out_of_an_iterator(llm: EmpirioLabs) -> None:
    tools: Any = filter(None, TOOLS)
    assert llm.chat_with_tools(tools, "Weather?").message.additional_kwargs["tool_calls"]


@pytest.mark.parametrize("choice", [["get_weather"], 5, True])
def test_a_tool_choice_that_is_none(llm: EmpirioLabs, choice: Any) -> None:
    with pytest.raises(SettingsError, match="tool_choice must be a tool's name"):
        llm.chat_with_tools(TOOLS, "Weather?", tool_choice=choice)


def test_messages_that_cannot_be_sent() -> None:
    told: Any = {"role": "user", "content": "Hello"}
    with pytest.raises(UnsupportedContentError, match="must be a ChatMessage, got dict"):
        to_wire([told])
    called = ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={"when": date(2026, 1, 1)})
    with pytest.raises(UnsupportedContentError, match="arguments of the call of 'f' cannot be sent"):
        to_wire([ChatMessage(role="assistant", blocks=[called])])


def test_names_go_out() -> None:
    for role in ("user", "assistant", "system"):
        (wire,) = to_wire([ChatMessage(role=role, content="Hello", additional_kwargs={"name": "ada"})])
        assert wire["name"] == "ada"


def test_what_a_video_has_beside_its_address_is_not_dropped_in_silence() -> None:
    video = VideoBlock(url="https://a.example/v.mp4", fps=2)
    with pytest.warns(UserWarning, match="fps of a VideoBlock"):
        to_wire([ChatMessage(role="user", blocks=[video])])


class Span(BaseModel):
    """A span."""

    model_config = ConfigDict(title="A span of two numbers")
    low: int
    high: int

    @model_validator(mode="before")
    @classmethod
    def _in_order(cls, data: Any) -> Any:
        assert data["low"] <= data["high"]
        return data


class Boxed(BaseModel, Generic[Item]):
    """A box."""

    held: Item


def test_validators_see_the_whole_object_only(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(Answer(None, tool_calls=[{"name": "A_span_of_two_numbers", "arguments": {"low": 1, "high": 20}}]))
    objects = list(llm.stream_structured_predict(Span, PromptTemplate("1 to 20")))
    assert objects[-1] == Span(low=1, high=20)
    sandbox.script(Answer(None, tool_calls=[{"name": "A_span_of_two_numbers", "arguments": {"low": 2, "high": 1}}]))
    with pytest.raises(ValueError, match="do not match Span"):
        list(llm.stream_structured_predict(Span, PromptTemplate("2 to 1")))


def test_a_class_of_any_name_and_one_that_is_no_object(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    assert isinstance(llm.structured_predict(Boxed[int], PromptTemplate("7")), Boxed)
    assert sandbox.requests[-1].body["tools"][0]["function"]["name"] == "Boxed_int_"
    with pytest.raises(SettingsError, match="is of type 'array'"):
        llm.structured_predict(RootModel[list[str]], PromptTemplate("Names"))
    assert len(sandbox.requests) == 1
