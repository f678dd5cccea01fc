"""ChatEmpirioLabs over a socket to the strict sandbox: tools, reasoning, blocks, structured output, errors."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from typing import Any, Generic, TypedDict, TypeVar

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core import exceptions as langchain
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.load import dumpd, load
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, Field, RootModel
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1.generics import GenericModel as GenericModelV1

from empiriolabs_core.errors import SettingsError, UnsupportedContentError, warn_once
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs import errors as ours
from langchain_empiriolabs.chat_models import DEFAULT_API_BASE, DEFAULT_MODEL
from langchain_empiriolabs.messages import ChunkConverter, convert_messages, create_chat_result
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import langchain_result
from tests.langchain.tools import get_time, get_weather

Item = TypeVar("Item")


class Person(BaseModel):
    """A person."""

    name: str
    age: int = Field(ge=0)


@pytest.fixture
def llm(where: dict[str, Any]) -> ChatEmpirioLabs:
    return ChatEmpirioLabs(**where)


def added(chunks: Any) -> Any:
    first, *rest = chunks
    return first.__add__(rest) if rest else first


# Compatible with the vendor's package


def test_drop_in_names() -> None:
    llm = ChatEmpirioLabs(model_name="m", empiriolabs_api_key="key", empiriolabs_api_base="http://x.invalid/v1")
    assert (llm.model_name, llm.empiriolabs_api_base) == ("m", "http://x.invalid/v1")
    assert llm.empiriolabs_api_key is not None
    assert llm.empiriolabs_api_key.get_secret_value() == "key"
    assert llm._llm_type == "empiriolabs-chat"
    assert llm.lc_secrets == {"empiriolabs_api_key": "EMPIRIOLABS_API_KEY"}
    assert (DEFAULT_MODEL, DEFAULT_API_BASE) == ("deepseek-v4-flash", "https://api.empiriolabs.ai/v1")
    assert llm._identifying_params["model"] == "m"
    assert llm._identifying_params["base_url"] == "http://x.invalid/v1"
    assert set(llm.metadata or {}) == {"lc_versions"}
    assert {"langchain-core", "empiriolabs-adapters"} <= set((llm.metadata or {})["lc_versions"])


def test_the_vendors_documented_snippet(where: dict[str, Any]) -> None:
    class GetWeather(BaseModel):
        """Get the current weather in a given location."""

        location: str = Field(..., description="The city and state, e.g. San Francisco, CA")

    llm = ChatEmpirioLabs(model="deepseek-v4-flash", temperature=0, max_tokens=None, **{**where, "timeout": None})
    messages = [("system", "You are a helpful assistant."), ("human", "Write a haiku about the sea.")]
    assert llm.invoke(messages).content
    assert "".join(str(chunk.content) for chunk in llm.stream(messages))
    assert asyncio.run(llm.ainvoke(messages)).additional_kwargs["reasoning_content"]
    assert llm.bind_tools([GetWeather]).invoke("What is the weather in SF?").tool_calls[0]["name"] == "GetWeather"


# Tools

FUNCTION = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", None),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("none", "none"),
        (False, "none"),
        ("get_weather", FUNCTION),
        (FUNCTION, FUNCTION),
    ],
)
def test_tool_choice(llm: ChatEmpirioLabs, sandbox: Sandbox, choice: Any, sent: Any) -> None:
    message = llm.bind_tools([get_weather, get_time], tool_choice=choice).invoke("Hello")
    assert sandbox.requests[-1].body.get("tool_choice") == sent
    assert [call["name"] for call in message.tool_calls] == (["get_weather"] if sent not in (None, "none") else [])


def test_bind_tools(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    class Typed(TypedDict):
        """Typed."""

        city: str

    def plain(city: str) -> str:
        """Plain."""
        return city

    wire = {"type": "function", "function": {"name": "wire", "parameters": {}}}
    tools = [get_weather, Person, Typed, plain, wire]
    llm.bind_tools(tools, strict=True, parallel_tool_calls=False, temperature=0.5).invoke("Hello")
    sent = sandbox.requests[-1].body
    assert [entry["function"]["name"] for entry in sent["tools"]] == ["get_weather", "Person", "Typed", "plain", "wire"]
    assert sent["tools"][0]["function"]["strict"] is True
    assert (sent["parallel_tool_calls"], sent["temperature"]) == (False, 0.5)
    llm.bind_tools([]).invoke("Hello")
    assert set(sandbox.requests[-1].body) == {"model", "messages"}
    with pytest.raises(SettingsError, match="'get_wether' does not match a bound tool"):
        llm.bind_tools([get_weather], tool_choice="get_wether")


def test_invalid_arguments_survive_the_way_back(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    broken = {"name": "get_weather", "arguments": '{"city": "Par', "id": "call_1"}
    for stream in (False, True):
        sandbox.script(Answer(None, tool_calls=[broken], reasoning="Hm."))
        bound = llm.bind_tools([get_weather])
        message = added(bound.stream("Weather?")) if stream else bound.invoke("Weather?")
        assert message.tool_calls == []
        (call,) = message.invalid_tool_calls
        assert (call["id"], call["name"]) == ("call_1", "get_weather")
        wire, _ = convert_messages([message, ToolMessage("Broken.", tool_call_id="call_1")])
        assert wire["tool_calls"][0]["function"]["arguments"].startswith('{"city": "Par')
        assert wire["reasoning_content"] == "Hm."


@pytest.mark.parametrize("arguments", ["[1]", "[]", "3", "0", '"x"', "{"])
def test_arguments_that_are_no_object_are_invalid(arguments: str) -> None:
    wire = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = create_chat_result(
        {"choices": [{"message": {"tool_calls": [wire]}, "finish_reason": "tool_calls"}]}, {"model": "m"}
    )
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    assert not message.tool_calls
    assert message.invalid_tool_calls[0]["args"] == arguments


# Reasoning is sent back


def _loop(llm: Any, sandbox: Sandbox, message: Any) -> dict[str, Any]:
    """Answer the message's tool call, continue the conversation, and return the assistant turn that was sent."""
    results = [ToolMessage("Sunny", tool_call_id=call["id"]) for call in message.tool_calls]
    answer = llm.invoke([HumanMessage("Weather in Paris?"), message, *results])
    assert answer.text.startswith("The tools say: Sunny")
    turn = sandbox.requests[-1].body["messages"][1]
    assert turn["role"] == "assistant"
    return dict(turn)


@pytest.mark.filterwarnings("ignore:The function `load`")
@pytest.mark.parametrize("version", [None, "v0", "v1"])
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_goes_back(where: dict[str, Any], sandbox: Sandbox, version: str | None, stream: bool) -> None:
    llm = ChatEmpirioLabs(output_version=version, **where).bind_tools([get_weather])
    ask = "What is the weather in Paris?"
    message = added(llm.stream(ask)) if stream else llm.invoke(ask)
    for kept in (
        message,
        message.model_copy(deep=True),
        load(dumpd(message), allowed_objects="messages"),
        trim_messages([message], max_tokens=10**6, token_counter=len)[0],
    ):
        turn = _loop(llm, sandbox, kept)
        assert turn["reasoning_content"].startswith("I should call get_weather.")
        assert turn["content"] is None
        assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}


def test_reasoning_goes_back_out_of_v3_events(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    bound = llm.bind_tools([get_weather])
    stream = bound.stream_events("What is the weather in Paris?", version="v3")
    assert "".join(stream.reasoning).startswith("I should call get_weather.")
    message = stream.output
    assert isinstance(message.content, list)
    assert [block["type"] for block in message.content] == ["reasoning", "tool_call"]
    assert _loop(bound, sandbox, message)["reasoning_content"] == "".join(stream.reasoning)


def test_anothers_reasoning_stays_out() -> None:
    message = AIMessage(
        [{"type": "reasoning", "reasoning": "foreign"}, {"type": "thinking", "thinking": "x", "signature": "y"}, "Hi"],
        response_metadata={"model_provider": "anthropic"},
    )
    assert convert_messages([message]) == [{"role": "assistant", "content": "Hi"}]


# Content


def test_every_message_type() -> None:
    wire = convert_messages(
        [
            SystemMessage("s", name="n"),
            HumanMessage([{"type": "text", "text": "a"}, "b"], name="u"),
            AIMessage("c"),
            ToolMessage("d", tool_call_id="1"),
            ChatMessage("e", role="developer"),
        ]
    )
    assert wire == [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": "ab", "name": "u"},
        {"role": "assistant", "content": "c"},
        {"role": "tool", "tool_call_id": "1", "content": "d"},
        {"role": "developer", "content": "e"},
    ]
    for unknown in (FunctionMessage("x", name="f"), RemoveMessage(id="1")):
        with pytest.raises(UnsupportedContentError, match=type(unknown).__name__):
            convert_messages([unknown])


def test_modalities(where: dict[str, Any], sandbox: Sandbox) -> None:
    blocks = [
        {"type": "image", "url": "http://x.invalid/a.png"},
        {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
        {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"},
        {"type": "file", "base64": "AAAA", "mime_type": "application/pdf", "filename": "a.pdf"},
        {"type": "image_url", "image_url": {"url": "http://x.invalid/b.png"}},
    ]
    sent = convert_messages([HumanMessage([{"type": "text", "text": "See"}, *blocks])])[0]["content"]
    assert [part["type"] for part in sent] == ["text", "image_url", "image_url", "input_audio", "file", "image_url"]
    for block in blocks:
        with pytest.raises(UnsupportedContentError, match="accepts text only"):
            ChatEmpirioLabs(**where).invoke([HumanMessage([block])])
    assert sandbox.requests == []
    with pytest.raises(UnsupportedContentError, match="'hologram'"):
        convert_messages([HumanMessage([{"type": "hologram"}])])


def test_metadata(llm: ChatEmpirioLabs) -> None:
    for message in (llm.invoke("Hello"), added(llm.stream("Hello")), llm.invoke("Hello", model="deepseek-v4-pro")):
        metadata = message.response_metadata
        assert metadata["model_provider"] == "empiriolabs" == llm._get_ls_params()["ls_provider"]
        assert metadata["model_name"].startswith("deepseek-v4-")
        assert metadata["finish_reason"] == "stop"
        assert metadata["id"].startswith("chatcmpl-")
        assert message.usage_metadata["output_token_details"]["reasoning"] > 0
    assert metadata["model_name"] == "deepseek-v4-pro"
    assert llm._get_ls_params(model="x", stop=["y"])["ls_model_name"] == "x"


def test_unknown_keys_of_a_message_are_kept(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    for stream in (False, True):
        sandbox.script(Answer("Hi", extra={"refusal": "no", "novel": {"a": 1}}))
        message = added(llm.stream("Hello")) if stream else llm.invoke("Hello")
        assert message.response_metadata["refusal"] == "no"
        assert message.response_metadata["novel"] == {"a": 1}


URL = "https://field-notes.example/today"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        {"annotations": [{"type": "url_citation", "url_citation": {"url": URL, "title": "Field notes"}}] * 2},
        {"citations": [URL, URL]},
        {"search_results": [{"url": URL, "title": "Field notes", "snippet": "s"}]},
        {},
    ],
)
def test_citations(llm: ChatEmpirioLabs, sandbox: Sandbox, stream: bool, extra: dict[str, Any]) -> None:
    text = "Blue." if extra else f"Blue.\n\n**Sources**\n1. [Field notes]({URL})\n"
    sandbox.script(Answer(text, reasoning="Hm.", extra=extra))
    search = {"web_search_linkup": not extra}
    message = added(llm.stream("Hello", **search)) if stream else llm.invoke("Hello", **search)
    assert message.text == text
    reasoning, spoken, call, result = message.content_blocks
    assert (reasoning["type"], call["type"], result["type"]) == ("reasoning", "server_tool_call", "server_tool_result")
    assert [note["url"] for note in spoken["annotations"]] == [URL]
    (wire,) = convert_messages([message])
    assert set(wire) == {"role", "content", "reasoning_content"}


def test_a_text_about_sources_is_no_footer(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(Answer("See\n\nSources\n\nnone of them known."))
    assert "citations" not in llm.invoke("Hello", web_search_linkup=True).additional_kwargs


@pytest.mark.parametrize("stream", [False, True])
def test_links_of_an_answer_are_no_web_search(llm: ChatEmpirioLabs, sandbox: Sandbox, stream: bool) -> None:
    sandbox.script(Answer("HTTP is an RFC.\n\n## References\nhttps://www.rfc-editor.org/rfc/rfc9110\n"))
    message = added(llm.stream("Hello")) if stream else llm.invoke("Hello")
    assert [block["type"] for block in message.content_blocks] == ["text"]


@pytest.mark.parametrize("source", [{"url": URL, "title": 5}, {"url": URL, "start_index": 1.5, "content": [{}]}, 7])
def test_an_odd_source_costs_no_answer(where: dict[str, Any], sandbox: Sandbox, source: Any) -> None:
    sandbox.script(*[Answer("Blue.", extra={"annotations": [source]})] * 2)
    assert ChatEmpirioLabs(**where).invoke("Hello").content == "Blue."
    assert EmpirioLabs(**where).complete("Hello").text == "Blue."


def test_a_long_run_of_blank_lines_is_read_at_once(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    """JSON mode may produce endless white space. If parsing were slow, the test would fail by its timeout."""
    sandbox.script(Answer("{" + "\n" * 300_000, usage={"completion_tokens": 1}))
    assert llm.invoke("Hello", web_search_linkup=True, max_tokens=393_216).content.startswith("{\n")


# Structured output


class PersonV1(BaseModelV1):
    """A person."""

    name: str


class PersonDict(TypedDict):
    """A person."""

    name: str


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
@pytest.mark.parametrize("schema", [Person, PersonV1, PersonDict, Person.model_json_schema() | {"description": "x"}])
def test_structured_output(where: dict[str, Any], method: Any, schema: Any) -> None:
    question = "Who is 'name' at 'age' 36, as json?" if method == "json_mode" else "Describe Ada, who is 36."
    llm = ChatEmpirioLabs(**where)
    if method == "json_mode":
        prompt = f"{question} {json.dumps({'properties': {'name': {'type': 'string'}, 'age': {'type': 'integer'}}})}"
    else:
        prompt = question
    structured = llm.with_structured_output(schema, method=method)
    for found in (
        structured.invoke(prompt),
        asyncio.run(structured.ainvoke(prompt)),
        list(structured.stream(prompt))[-1],
    ):
        values = found if isinstance(found, dict) else dict(found)
        assert values["name"]


def test_structured_output_while_thinking(where: dict[str, Any], sandbox: Sandbox) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ChatEmpirioLabs(**where).with_structured_output(Person).invoke("Ada is 36").age == 36  # type: ignore[attr-defined]
        assert sandbox.requests[-1].body["enable_thinking"] is False
        thinking = ChatEmpirioLabs(reasoning_effort="high", **where)
        assert thinking.with_structured_output(Person, method="json_schema").invoke("Ada is 36").age == 36  # type: ignore[attr-defined]
        assert sandbox.requests[-1].body["reasoning_effort"] == "high"
    with pytest.warns(UserWarning, match="cannot think while a tool is forced"):
        thinking.with_structured_output(Person).invoke("Ada is 36")


def test_include_raw(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    structured = llm.with_structured_output(Person, include_raw=True)
    sandbox.script(Answer(None, tool_calls=[{"name": "Person", "arguments": {"name": "Ada", "age": -1}}]))
    found: Any = structured.invoke("Ada")
    assert found["raw"].tool_calls
    assert found["parsed"] is None
    assert found["parsing_error"] is not None
    found = structured.invoke("Ada is 36")
    assert (found["parsed"].age, found["parsing_error"]) == (36, None)


def test_structured_output_refuses(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    with pytest.raises(SettingsError, match="requires a schema"):
        llm.with_structured_output()
    with pytest.raises(SettingsError, match=r"method must be .* got 'magic'"):
        llm.with_structured_output(Person, method="magic")  # type: ignore[arg-type]
    sandbox.script(Answer("no json"))
    with pytest.raises(OutputParserException):
        llm.with_structured_output(Person, method="json_schema").invoke("Ada")


# Errors

STATUSES = [
    (400, ours.EmpirioLabsInvalidRequestError, langchain.ModelInvalidRequestError, False),
    (401, ours.EmpirioLabsAuthenticationError, langchain.ModelAuthenticationError, False),
    (402, ours.EmpirioLabsInsufficientCreditsError, langchain.ModelPermissionDeniedError, False),
    (403, ours.EmpirioLabsPermissionDeniedError, langchain.ModelPermissionDeniedError, False),
    (404, ours.EmpirioLabsNotFoundError, langchain.ModelNotFoundError, False),
    (408, ours.EmpirioLabsRequestTimeoutError, langchain.ModelTimeoutError, True),
    (409, ours.EmpirioLabsConflictError, langchain.ModelAPIError, True),
    (422, ours.EmpirioLabsUnprocessableError, langchain.ModelInvalidRequestError, False),
    (429, ours.EmpirioLabsRateLimitError, langchain.ModelRateLimitError, True),
    (500, ours.EmpirioLabsServerError, langchain.ModelAPIError, True),
    (502, ours.EmpirioLabsServerError, langchain.ModelAPIError, True),
    (503, ours.EmpirioLabsServerError, langchain.ModelAPIError, True),
]


@pytest.mark.parametrize(("status", "kind", "base", "retryable"), STATUSES)
def test_status_errors(
    llm: ChatEmpirioLabs, sandbox: Sandbox, status: int, kind: Any, base: Any, retryable: bool
) -> None:
    sandbox.fail(Fault("status", status=status, code="a_code", message="Told so.", headers={"x-request-id": "req-7"}))
    with pytest.raises(kind, match="Told so") as raised:
        llm.invoke("Hello")
    error = raised.value
    assert isinstance(error, (openai.APIStatusError, langchain.ModelError))
    assert isinstance(error, base)
    assert error.is_retryable is retryable
    assert (error.status_code, error.code, error.request_id) == (status, "a_code", "req-7")
    assert error.response.json()["error"]["code"] == "a_code"
    if sys.version_info >= (3, 11):
        (note,) = error.__notes__
        for fact in (f"openai {openai.__version__}", "model='deepseek-v4-flash'", "request id req-7", sandbox.base_url):
            assert fact in note


def test_other_errors(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    cases: list[tuple[Fault, Any]] = [
        (Fault("timeout", seconds=2), langchain.ModelTimeoutError),
        (Fault("reset"), langchain.ModelConnectionError),
        (Fault("html"), langchain.ModelAPIError),
        (Fault("error_body"), langchain.ModelAPIError),
    ]
    for fault, kind in cases:
        sandbox.fail(fault)
        with pytest.raises(kind) as raised:
            llm.invoke("Hello", timeout=0.3)
        assert raised.value.is_retryable
    for wording in (
        "This model's maximum context length is 100 tokens.",
        "Range of input length should be [1, 100]",
        "the request exceeds the available context size",
    ):
        sandbox.fail(Fault("status", status=400, message=wording))
        with pytest.raises(langchain.ContextOverflowError) as raised:
            llm.invoke("Hello")
        assert isinstance(raised.value, openai.BadRequestError)


def test_with_retry_and_fallbacks(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.fail(Fault("truncate", after=1), None)
    retrying = llm.with_retry(retry_if_exception_type=(langchain.ModelAPIError,), wait_exponential_jitter=False)
    assert retrying.invoke("Hello").content
    sandbox.fail(Fault("status", status=404, code="model_not_found"))
    other = llm.model_copy(update={"model": "deepseek-v4-pro"})
    assert llm.with_fallbacks([other]).invoke("Hello").response_metadata["model_name"] == "deepseek-v4-pro"


# Other behaviour


def test_profile_and_counting(llm: ChatEmpirioLabs) -> None:
    profile = llm.profile or {}
    assert (profile["max_input_tokens"], profile["max_output_tokens"]) == (1_000_000, 393_216)
    assert profile["tool_calling"]
    assert not profile["image_inputs"]
    assert ChatEmpirioLabs(model="other").profile in (None, {})
    assert llm.get_num_tokens("four words are here") > 2
    assert llm.get_num_tokens_from_messages([HumanMessage("Hello")], tools=[get_weather]) > 10


def test_an_empty_answer_that_was_cut_is_told(llm: ChatEmpirioLabs) -> None:
    for stream in (False, True):
        with pytest.warns(UserWarning, match="Raise max_tokens") as told:
            message = added(llm.stream("Hello", max_tokens=3)) if stream else llm.invoke("Hello", max_tokens=3)
        # The garbage collector may report sockets of earlier tests here.
        assert len([warning for warning in told if issubclass(warning.category, UserWarning)]) == 1
        assert message.response_metadata["finish_reason"] == "length"
        assert message.content == ""


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(str(token))


def test_callbacks_see_each_delta_once(llm: ChatEmpirioLabs, where: dict[str, Any]) -> None:
    for model, ask in (
        (llm, "stream"),
        (llm.model_copy(update={"streaming": True}), "invoke"),
        (ChatEmpirioLabs(streaming=True, **where), "invoke"),
    ):
        handler = Tokens()
        answer: Any = getattr(model, ask)("Hello", config={"callbacks": [handler]})
        chunks = list(answer) if ask == "stream" else [answer]
        text = "".join(chunk.text for chunk in chunks)
        if ask == "stream" or "streaming" in model.model_fields_set:
            assert "".join(handler.tokens) == text


def test_logprobs_seed_and_n(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    for stream in (False, True):
        asked = {"logprobs": True, "top_logprobs": 1, "seed": 3}
        message = added(llm.stream("Hello", **asked)) if stream else llm.invoke("Hello", **asked)
        assert "".join(entry["token"] for entry in message.response_metadata["logprobs"]["content"]) == message.text
        assert sandbox.requests[-1].body["seed"] == 3
    result = llm.generate([[HumanMessage("Hello")]], n=2)
    assert len(result.generations[0]) == 2
    with pytest.raises(SettingsError, match="n must be 1 in a stream, got 2"):
        list(llm.stream("Hello", n=2))


def test_configurable_bind_cache_and_limits(where: dict[str, Any], sandbox: Sandbox) -> None:
    llm = ChatEmpirioLabs(
        cache=InMemoryCache(), rate_limiter=InMemoryRateLimiter(requests_per_second=1000, max_bucket_size=9), **where
    )
    configurable = llm.configurable_fields(
        temperature=ConfigurableField(id="temperature"), model=ConfigurableField(id="model")
    )
    configurable.with_config(configurable={"temperature": 0.5, "model": "deepseek-v4-pro"}).invoke("Hello")
    assert (sandbox.requests[-1].body["temperature"], sandbox.requests[-1].body["model"]) == (0.5, "deepseek-v4-pro")
    llm.bind(stop=["zzz"]).invoke("Hello")
    assert sandbox.requests[-1].body["stop"] == ["zzz"]
    seen = len(sandbox.requests)
    llm.bind(stop=["zzz"]).invoke("Hello")
    assert len(sandbox.requests) == seen
    assert llm.batch(["a", "b", "c"], config={"max_concurrency": 2})[2].content.startswith("You said: c")  # type: ignore[union-attr]
    quiet = ChatEmpirioLabs(disable_streaming=True, **where)
    assert len(list(quiet.stream("Hello"))) == 1
    assert llm.invoke("Hello", stream=True).content


async def test_cancelling_closes_the_response(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.fail(Fault("endless", after=4, size=10**6))
    stream = llm.astream("Hello")
    for _ in range(5):
        await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0.2)
    assert sandbox.ledger == []
    assert (await llm.ainvoke("Hello")).content


# Chunks added up equal the whole message

WORDS = st.text(alphabet="ab {}[]\"'\\\n你🌦\u2028", max_size=12)
ANSWERS = st.builds(
    Answer,
    content=WORDS,
    reasoning=st.none() | WORDS,
    tool_calls=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(["get_weather", "get_time"]),
                "arguments": st.dictionaries(st.sampled_from("xyz"), WORDS | st.integers() | st.none(), max_size=3),
            }
        ),
        max_size=3,
    ),
    extra=st.just({}) | st.just({"citations": [URL]}),
)


@pytest.mark.parametrize("version", ["v0", "v1"])
@given(answer=ANSWERS)
def test_chunks_add_up_to_the_whole(version: Any, answer: Answer) -> None:
    """Built from one turn, so that both have the same ids."""
    from empiriolabs_core.sandbox.wire import Turn, chunks, completion, shorten, usage_of

    body = {"messages": [{"role": "user", "content": "Hello"}]}
    short, reason = shorten(answer, body)
    turn = Turn("chatcmpl-12345678", 1, "m", (short,), (reason,), usage_of(body, (short,), 0))
    whole: Any = create_chat_result(completion(turn), {"model": "deepseek-v4-pro"}).generations[0].message
    converter = ChunkConverter({"model": "deepseek-v4-pro"})
    converted = [converter.convert(chunk) for chunk in chunks(turn, include_usage=True)]
    pieces: list[Any] = [chunk.message for chunk in [*converted, converter.finish()] if chunk is not None]
    last = AIMessageChunk(content="", chunk_position="last", response_metadata={})
    if version == "v1":
        pieces = [_as_v1(piece) for piece in [*pieces]]
        last.response_metadata["output_version"] = "v1"
        last = last.model_copy(update={"content": []})
    merged = added([*pieces, last])
    assert langchain_result(merged) == langchain_result(whole)
    assert merged.response_metadata == whole.response_metadata | ({"output_version": "v1"} if version == "v1" else {})
    strip = [{k: v for k, v in block.items() if k != "index"} for block in merged.content_blocks]
    assert sorted(map(str, map(_finished, strip))) == sorted(map(str, map(_finished, whole.content_blocks)))


def _as_v1(piece: AIMessageChunk) -> AIMessageChunk:
    return piece.model_copy(
        update={
            "content": piece.content_blocks,
            "response_metadata": {**piece.response_metadata, "output_version": "v1"},
        }
    )


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    """Return the fragments of a tool call as a tool call."""
    if block["type"] == "tool_call_chunk":
        block = {
            "type": "tool_call",
            "name": block["name"],
            "args": json.loads(block["args"] or "{}"),
            "id": block["id"],
        }
    return {name: block[name] for name in sorted(block)}


@pytest.mark.parametrize("delta", [{"content": "Hi"}, {"reasoning_content": "Hm"}, {"content": "a", "reasoning": "b"}])
def test_a_chunk_is_what_langchains_constructors_make_and_shares_nothing(delta: dict[str, Any]) -> None:
    """Chunks of text are copies of an empty chunk, for speed."""
    chunks = [ChunkConverter({"model": "m"}).convert({"choices": [{"delta": delta}]}) for _ in range(2)]
    assert all(chunk is not None for chunk in chunks)
    one, other = [chunk for chunk in chunks if chunk is not None]
    fields = {name: getattr(one.message, name) for name in AIMessageChunk.model_fields}
    assert one == ChatGenerationChunk(message=AIMessageChunk(**fields))
    assert one.text == delta.get("content", "")
    for name, value in fields.items():
        if isinstance(value, dict | list):
            assert value is not getattr(other.message, name), name


CUT = Answer(content=None, finish_reason="length", tool_calls=[{"name": "Person", "arguments": '{"name": "A'}])


@pytest.mark.parametrize(
    "schema", [Person, {"title": "Person", "type": "object", "properties": {"name": {"type": "string"}}}]
)
def test_a_structured_answer_that_was_cut_off_is_an_error(llm: ChatEmpirioLabs, sandbox: Sandbox, schema: Any) -> None:
    """An error is raised instead of returning `None`, so that retries and fallbacks run."""
    structured = llm.with_structured_output(schema)
    for ask in (structured.invoke, lambda question: list(structured.stream(question))):
        sandbox.script(CUT)
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            ask("Who?")
    sandbox.script(CUT)
    raw: Any = llm.with_structured_output(schema, include_raw=True).invoke("Who?")
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], OutputParserException)
    sandbox.script(CUT)
    assert structured.with_retry(stop_after_attempt=2).invoke("Ada is 36.")


def test_a_schema_with_any_title(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    schema = {"title": "My thing!", "type": "object", "properties": {"name": {"type": "string"}}}
    assert llm.with_structured_output(schema).invoke("Name?")
    assert sandbox.requests[-1].body["tools"][0]["function"]["name"] == "My_thing_"


class Page(BaseModel, Generic[Item]):
    """A page."""

    items: list[Item]


def test_a_generic_class_as_schema(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    page: Any = llm.with_structured_output(Page[int]).invoke("7")
    assert isinstance(page, Page)
    assert sandbox.requests[-1].body["tools"][0]["function"]["name"] == "Page_int_"


class OldPage(GenericModelV1, Generic[Item]):
    """A page."""

    items: list[Item]


def test_a_generic_class_of_pydantic_1(llm: ChatEmpirioLabs) -> None:
    assert isinstance(llm.with_structured_output(OldPage[int]).invoke("7"), OldPage)


NAMELESS = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
def test_a_schema_without_a_name(llm: ChatEmpirioLabs, sandbox: Sandbox, method: Any) -> None:
    sandbox.script(Answer('{"name": "Ada"}', tool_calls=[{"name": "response", "arguments": {"name": "Ada"}}]))
    assert llm.with_structured_output(NAMELESS, method=method).invoke("As JSON.") == {"name": "Ada"}


@pytest.mark.parametrize("schema", [Page[int], {**NAMELESS, "title": "My Title"}])
def test_the_name_of_a_json_schema(schema: Any) -> None:
    with Sandbox(models=["other"]) as sandbox:
        llm = ChatEmpirioLabs(model="other", base_url=sandbox.base_url, api_key=sandbox.api_key)
        sandbox.script(Answer('{"items": [7], "name": "x"}'))
        llm.with_structured_output(schema, method="json_schema").invoke("7")
        sent = sandbox.requests[-1].body["response_format"]["json_schema"]["name"]
    assert sent in ("Page_int_", "My_Title")


@pytest.mark.parametrize("tool", [Person, {"type": "function", "function": {"name": "f", "parameters": NAMELESS}}])
def test_strict_reaches_each_tool(llm: ChatEmpirioLabs, sandbox: Sandbox, tool: Any) -> None:
    llm.bind_tools([tool], strict=True).invoke("Hello")
    llm.with_structured_output(tool, strict=True).invoke("Ada is 3")
    for request in sandbox.requests:
        function = request.body["tools"][0]["function"]
        assert (function["strict"], function["parameters"]["additionalProperties"]) == (True, False)
    assert "additionalProperties" not in NAMELESS


@pytest.mark.parametrize("strict", [True, False])
def test_strict_is_told_of_where_a_model_takes_no_schemas(llm: ChatEmpirioLabs, sandbox: Sandbox, strict: bool) -> None:
    sandbox.script(Answer('{"name": "Ada", "age": 3}'))
    warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        llm.with_structured_output(Person, method="json_schema", strict=strict).invoke("Ada")
    # Sockets of earlier tests may be collected here.
    own = [str(warning.message) for warning in told if not issubclass(warning.category, ResourceWarning)]
    assert ["strict was not sent" in text for text in own] == [True] * strict


def test_strict_leaves_a_dictionary_that_says_it_itself(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    functions: list[Any] = [{"name": "ping", "description": "Ping."}, {"name": "f", "strict": False, "parameters": {}}]
    llm.bind_tools([{"type": "function", "function": f} for f in functions], strict=True).invoke("Hello")
    assert [tool["function"] for tool in sandbox.requests[0].body["tools"]] == functions


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("function_calling", "tool_choice"), ("function_calling", "tools"), ("json_mode", "response_format")],
)
def test_structured_output_sets_some_arguments_itself(llm: ChatEmpirioLabs, method: Any, arguments: str) -> None:
    with pytest.raises(SettingsError, match=f"sets {arguments} itself"):
        llm.with_structured_output(Person, method=method, **{arguments: []})


NO_OBJECTS: list[Any] = [
    RootModel[list[str]],
    {"title": "Names", "type": "array", "items": {}},
    {"title": "Either", "anyOf": [{"type": "object"}, {"type": "null"}]},
]


@pytest.mark.parametrize("schema", NO_OBJECTS)
@pytest.mark.parametrize("strict", [None, True])
def test_a_schema_that_is_no_object(llm: ChatEmpirioLabs, schema: Any, strict: bool | None) -> None:
    with pytest.raises(SettingsError, match="schema must describe an object with properties"):
        llm.with_structured_output(schema, strict=strict)


@pytest.mark.parametrize("schema", NO_OBJECTS[1:])
def test_a_json_schema_is_sent_whole(llm: ChatEmpirioLabs, sandbox: Sandbox, schema: Any) -> None:
    sandbox.script(Answer("[]"))
    assert llm.with_structured_output(schema, method="json_schema").invoke("Go") == []
    assert json.dumps(schema) in sandbox.requests[0].body["messages"][0]["content"]


def test_arguments_that_are_no_json_cannot_go_back() -> None:
    call = {"name": "f", "args": {"when": object()}, "id": "1"}
    with pytest.raises(UnsupportedContentError, match="arguments of the call of 'f' cannot be sent"):
        convert_messages([AIMessage("", tool_calls=[call])])


def test_tools_beside_a_json_schema(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(Answer('{"name": "Ada", "age": 3}'))
    asked = llm.with_structured_output(Person, method="json_schema", tools=[get_weather])
    assert asked.invoke("Ada") == Person(name="Ada", age=3)
    assert sandbox.requests[-1].body["tools"][0]["function"]["name"] == "get_weather"


CUT_JSON = ['{"name": "Ada Lovel', '{"name": "Ada", "age": 3', '```json\n{"name": "Ada", "age": 3\n```', ""]


@pytest.mark.parametrize("text", CUT_JSON)
@pytest.mark.parametrize("method", ["json_mode", "json_schema"])
@pytest.mark.parametrize("schema", [Person, {**NAMELESS, "title": "Named"}])
@pytest.mark.filterwarnings("ignore:The answer is empty")
def test_json_that_was_cut_off_is_an_error(
    llm: ChatEmpirioLabs, sandbox: Sandbox, text: str, method: Any, schema: Any
) -> None:
    sandbox.script(*[Answer(text, finish_reason="length")] * 3)
    asked = llm.with_structured_output(schema, method=method)
    with pytest.raises(OutputParserException, match=r"not complete JSON \(finish_reason='length'"):
        asked.invoke("As JSON.")
    with pytest.raises(OutputParserException, match="not complete JSON"):
        list(asked.stream("As JSON."))


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
async def test_include_raw_tells_of_what_was_cut_off(
    llm: ChatEmpirioLabs, sandbox: Sandbox, way: str, method: Any
) -> None:
    cut = '{"name": "Ada Lovel'
    calls = [{"name": "Person", "arguments": cut}] if method == "function_calling" else []
    sandbox.script(Answer(None if calls else cut, tool_calls=calls, finish_reason="length"))
    asked = llm.with_structured_output(Person, method=method, include_raw=True)
    found: Any = {}
    if way == "invoke":
        found = asked.invoke("As JSON.")
    elif way == "ainvoke":
        found = await asked.ainvoke("As JSON.")
    elif way == "stream":
        for piece in asked.stream("As JSON."):
            found |= piece
    else:
        async for piece in asked.astream("As JSON."):
            found |= piece
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], OutputParserException)
    assert found["raw"].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("after", ["\n\nHope this helps!", "\n\n**Sources**\n- https://a.example", '\n{"name": "B"}'])
def test_what_comes_after_the_json_is_no_matter(llm: ChatEmpirioLabs, sandbox: Sandbox, after: str) -> None:
    sandbox.script(*[Answer(f'{{"name": "Ada", "age": 3}}{after}')] * 2)
    asked = llm.with_structured_output(Person, method="json_mode")
    assert asked.invoke("As JSON.") == list(asked.stream("As JSON."))[-1] == Person(name="Ada", age=3)


def test_a_call_in_place_of_the_json(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(*[Answer(None, tool_calls=[{"name": "get_weather", "arguments": {"city": "Rome"}}])] * 2)
    asked: Any = llm.with_structured_output(Person, method="json_schema", tools=[get_weather], include_raw=True)
    for found in (asked.invoke("Ada"), *asked.stream("Ada")):
        assert found["raw"].tool_calls[0]["name"] == "get_weather"
        assert found["parsed"] is None


def test_json_that_is_whole_passes_whatever_ended_it(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(*[Answer('```json\n{"name": "A\nda", "age": 3}\n```', finish_reason="length")] * 2)
    asked = llm.with_structured_output(Person, method="json_mode")
    assert asked.invoke("As JSON.") == list(asked.stream("As JSON."))[-1] == Person(name="A\nda", age=3)


def test_a_nameless_call_that_was_answered_can_be_sent(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(Answer(None, tool_calls=[{"name": "", "arguments": "{}"}]))
    message = llm.invoke("x")
    result = ToolMessage("No such tool.", tool_call_id=message.invalid_tool_calls[0]["id"])
    llm.invoke([HumanMessage("x"), message, result])
    assert sandbox.requests[-1].body["messages"][1]["tool_calls"][0]["function"]["name"] == "unknown"
    llm.invoke([HumanMessage("x"), message, HumanMessage("y")])
    assert (
        sandbox.requests[-1].body["messages"][1]["content"].startswith("[A call of a tool without a name was truncated")
    )


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([{"refusal": "I can"}, {"refusal": "not."}], {"refusal": "I cannot."}),
        ([{"reasoning_details": [1]}, {"reasoning_details": [2]}], {"reasoning_details": [1, 2]}),
        ([{"phase": "final", "list": [1]}] * 3, {"phase": "final", "list": [1]}),
        ([{"audio": "x"}, {"audio": {"data": "y"}}, {"refusal": None}], {"audio": {"data": "y"}}),
        (
            [{"audio": {"id": "a", "data": "x"}}, {"audio": {"id": "a", "data": "y"}}],
            {"audio": {"id": "a", "data": "xy"}},
        ),
    ],
)
def test_unknown_keys_of_a_stream_add_up(
    llm: ChatEmpirioLabs, sandbox: Sandbox, pieces: list[Any], whole: dict[str, Any]
) -> None:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": piece}]} for piece in [*pieces, {"content": "."}]]
    sandbox.script(Answer(chunks=[*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]))
    assert whole.items() <= added(llm.stream("x")).response_metadata.items()


def test_a_tokenizer_of_ones_own_counts_messages_too(where: dict[str, Any]) -> None:
    llm = ChatEmpirioLabs(**where, custom_get_token_ids=lambda text: [0] * 1000)
    assert llm.get_num_tokens_from_messages([HumanMessage("a")]) >= 1000


def test_a_call_that_broke_off_spoils_no_conversation(llm: ChatEmpirioLabs, sandbox: Sandbox) -> None:
    """A graph without a node for tools: the call gets no result, and the conversation continues."""
    sandbox.script(Answer("Wait.", finish_reason="length", tool_calls=[{"name": "f", "arguments": '{"a'}]))
    history: list[Any] = [HumanMessage("q")]
    history += [llm.invoke(history), HumanMessage("Hello?")]
    assert history[1].invalid_tool_calls
    assert llm.invoke(history).content.startswith("You said: Hello?")
    assert sandbox.requests[-1].body["messages"][1]["content"] == 'Wait.\n[A call of f was truncated: {"a]'


FOREIGN = [
    {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c1"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
    {"type": "reasoning_content", "reasoning_content": {"text": "Hm."}},
    {"type": "executable_code", "executable_code": "1"},
]


@pytest.mark.parametrize("block", FOREIGN, ids=lambda block: block["type"])
def test_another_providers_blocks_are_left_out(llm: ChatEmpirioLabs, sandbox: Sandbox, block: dict[str, Any]) -> None:
    turn = AIMessage([block, {"type": "text", "text": "Blue."}])
    assert llm.invoke([HumanMessage("q"), turn, HumanMessage("Hello")]).content
    assert sandbox.requests[-1].body["messages"][1] == {"role": "assistant", "content": "Blue."}


def test_a_block_that_nobody_knows_is_left_out_with_a_warning(llm: ChatEmpirioLabs) -> None:
    turn = AIMessage([{"type": "tattoo"}, {"type": "text", "text": "Blue."}])
    with pytest.warns(UserWarning, match="'tattoo' in an AI message was not sent"):
        assert convert_messages([turn]) == [{"role": "assistant", "content": "Blue."}]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "video", "base64": "AA==", "mime_type": "video/mp4"}, "data:video/mp4;base64,AA=="),
        ({"type": "video", "url": "http://x.invalid/a.mp4"}, "http://x.invalid/a.mp4"),
        (
            {"type": "image", "source": {"type": "base64", "data": "AA==", "media_type": "image/png"}},
            "data:image/png;base64,AA==",
        ),
        ({"type": "image", "source": {"type": "url", "url": "http://x.invalid/a.png"}}, "http://x.invalid/a.png"),
    ],
)
def test_media_of_every_spelling(block: dict[str, Any], part: str) -> None:
    (wire,) = convert_messages([HumanMessage([block])])
    (sent,) = wire["content"]
    assert sent[sent["type"]] == {"url": part}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "url": "http://x.invalid/a.wav"},
        {"type": "file", "url": "http://x.invalid/a.pdf"},
        {"type": "image", "file_id": "f1"},
        {"type": "text-plain", "base64": "?"},
        {"type": "hologram"},
    ],
)
def test_media_that_cannot_be_sent(block: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedContentError, match=f"type {block['type']!r} cannot be sent"):
        convert_messages([HumanMessage([block])])


def test_a_plain_document_in_base64_is_text() -> None:
    block = {"type": "text-plain", "base64": "SGVsbG8=", "mime_type": "text/plain"}
    assert convert_messages([HumanMessage([block])]) == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("call", [{"name": "f", "arguments": "null"}, {"name": "", "arguments": "{}"}])
def test_odd_calls_are_the_same_whole_and_streamed(
    llm: ChatEmpirioLabs, sandbox: Sandbox, call: dict[str, Any]
) -> None:
    sandbox.script(*[Answer(content=None, tool_calls=[call])] * 2)
    whole, streamed = llm.invoke("Hello"), added(llm.stream("Hello"))
    assert [c["args"] for c in whole.tool_calls] == [c["args"] for c in streamed.tool_calls]
    assert len(whole.invalid_tool_calls) == len(streamed.invalid_tool_calls)
