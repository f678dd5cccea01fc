"""The sandbox on /v1/responses and /v1/messages, through the clients of OpenAI and Anthropic and on the raw wire."""

from __future__ import annotations

import functools
import http.client
import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.sandbox.endpoints import ENDPOINTS
from tests.core.test_sandbox import raw

anthropic = pytest.importorskip("anthropic", reason="The client of Anthropic is not installed: pip install anthropic.")

MODEL = "deepseek-v4-flash"
CHAT, RESPONSES, MESSAGES = (endpoint.path for endpoint in ENDPOINTS)
OF = {endpoint.path: endpoint for endpoint in ENDPOINTS}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Weather of a city.", "parameters": SCHEMA}
TOOLS: dict[str, Any] = {
    CHAT: {"type": "function", "function": FUNCTION},
    RESPONSES: {"type": "function", **FUNCTION, "strict": False},
    MESSAGES: {"name": "get_weather", "description": "Weather of a city.", "input_schema": SCHEMA},
}
REQUESTS: dict[str, Any] = {
    CHAT: {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]},
    RESPONSES: {"model": MODEL, "input": "Hello"},
    MESSAGES: {"model": MODEL, "max_tokens": 500, "messages": [{"role": "user", "content": "Hello"}]},
}
CITATION = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
FLAT_CITATION = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
ANSWERS = {
    "text": Answer("Hi there. 😀"),
    "thinking": Answer("Four.", reasoning="Two and two."),
    "only thinking": Answer("", reasoning="Two and two."),
    "nothing": Answer(""),
    "calls": Answer(
        "Let me see.",
        reasoning="Two cities.",
        tool_calls=[{"name": "get_weather", "arguments": {"city": c}} for c in ("Oslo", "Köln")],
    ),
    "call without arguments": Answer(None, tool_calls=[{"name": "now", "arguments": ""}]),
    "cut": Answer("A long", finish_reason="length"),
    "filtered": Answer("", finish_reason="content_filter"),
    "refusal": Answer(None, extra={"refusal": "I cannot say."}),
    "citations": Answer("So it is.", extra={"annotations": [FLAT_CITATION]}),
    "cached": Answer("x", usage={"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}}),
}


def posted(sandbox: Sandbox, path: str, **fields: Any) -> Any:
    status, _, text = raw(sandbox, {**REQUESTS[path], **fields}, path=path)
    assert status == 200, text
    return json.loads(text)


def events(sandbox: Sandbox, path: str, **fields: Any) -> list[Any]:
    """Return the events of a stream, after checking their names."""
    status, headers, text = raw(sandbox, {**REQUESTS[path], "stream": True, **fields}, path=path)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream"), text
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.fixture(scope="module")
def serving() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def gpt(sandbox: Sandbox) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(sandbox: Sandbox) -> Iterator[Any]:
    address = sandbox.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=address, api_key=sandbox.api_key, max_retries=0) as client:
        yield client


def strictly(kind: Any, value: Any) -> Any:
    """Return a value as the clients' type, checked in full: the clients themselves do not check replies."""
    return adapter_of(kind).validate_python(value)


adapter_of = functools.cache(pydantic.TypeAdapter)


@pytest.mark.parametrize("name", ANSWERS)
def test_responses_are_valid_by_openais_types(sandbox: Sandbox, name: str) -> None:
    sandbox.script(ANSWERS[name], ANSWERS[name])
    whole = posted(sandbox, RESPONSES, tools=[TOOLS[RESPONSES]])
    found = events(sandbox, RESPONSES, tools=[TOOLS[RESPONSES]])
    strictly(Response, whole)
    for event in found:
        strictly(ResponseStreamEvent, event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    last = found[-1]["response"]
    assert without_ids(last) == without_ids(whole)
    assert found[-1]["type"] == f"response.{whole['status']}"
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == last["output"]
    for kind, part in (("reasoning_text", "reasoning_text"), ("output_text", "output_text"), ("refusal", "refusal")):
        texts = [p.get("text", p.get("refusal")) for item in done for p in item.get("content", ()) if p["type"] == part]
        deltas = [event["delta"] for event in found if event["type"] == f"response.{kind}.delta"]
        assert "".join(deltas) == "".join(texts)


@pytest.mark.parametrize("name", ANSWERS)
def test_messages_are_valid_by_anthropics_types(sandbox: Sandbox, claude: Any, name: str) -> None:
    sandbox.script(*[ANSWERS[name]] * 3)
    whole = posted(sandbox, MESSAGES, tools=[TOOLS[MESSAGES]])
    found = events(sandbox, MESSAGES, tools=[TOOLS[MESSAGES]])
    strictly(anthropic.types.Message, whole)
    for event in found:
        if event["type"] != "ping":  # The SDK passes pings over.
            strictly(anthropic.types.RawMessageStreamEvent, event)
    assert (found[0]["type"], found[1]["type"], found[-1]["type"]) == ("message_start", "ping", "message_stop")
    # What Anthropic's own client makes of the stream is the whole reply.
    with claude.messages.stream(**REQUESTS[MESSAGES], tools=[TOOLS[MESSAGES]]) as stream:
        last = stream.get_final_message().to_dict()
    assert [without_ids(block) for block in last["content"]] == [without_ids(block) for block in whole["content"]]
    for key in ("stop_reason", "stop_sequence", "role"):
        assert last[key] == whole[key]
    for key in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
        assert last["usage"][key] == whole["usage"][key]


def without_ids(value: Any) -> Any:
    """Return a value without what differs between two answers, and without nulls."""
    if isinstance(value, list):
        return [without_ids(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    left_out = ("id", "call_id", "signature", "created_at", "parsed_arguments", "parsed_output", "parsed")
    return {key: without_ids(v) for key, v in value.items() if key not in left_out and v is not None}


def test_the_finish_reasons_of_responses(sandbox: Sandbox) -> None:
    for reason, status, detail in (
        ("stop", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ):
        sandbox.script(Answer("a", finish_reason=reason))
        got = posted(sandbox, RESPONSES)
        assert (got["status"], got["incomplete_details"]) == (status, detail)
        assert got["output"][-1]["status"] == status


def test_the_finish_reasons_of_messages(sandbox: Sandbox) -> None:
    for reason, told in (("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("odd", "odd")):
        sandbox.script(Answer("a", finish_reason=reason))
        assert posted(sandbox, MESSAGES)["stop_reason"] == told
    sandbox.script(Answer("a b STOP c"), Answer("a b STOP c"), Answer("a b"))
    got = posted(sandbox, MESSAGES, stop_sequences=["END", "STOP"])
    assert (got["stop_reason"], got["stop_sequence"], got["content"][0]["text"]) == ("stop_sequence", "STOP", "a b ")
    assert events(sandbox, MESSAGES, stop_sequences=["STOP"])[-2]["delta"]["stop_sequence"] == "STOP"
    assert posted(sandbox, MESSAGES, stop_sequences=["STOP"])["stop_reason"] == "end_turn"


def test_cached_tokens(sandbox: Sandbox) -> None:
    """Anthropic's `input_tokens` excludes cached tokens; OpenAI's includes them."""
    sandbox.script(ANSWERS["cached"], ANSWERS["cached"], ANSWERS["cached"])
    usage = posted(sandbox, RESPONSES)["usage"]
    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) == (100, 64)
    usage = posted(sandbox, MESSAGES)["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (36, 64)
    start = events(sandbox, MESSAGES)[0]["message"]["usage"]
    assert (start["input_tokens"], start["cache_read_input_tokens"]) == (36, 64)
    assert {line.prompt_tokens for line in sandbox.ledger} == {100}
    assert {line.cached_tokens for line in sandbox.ledger} == {64}


def test_a_tool_loop_with_openais_client(sandbox: Sandbox, gpt: openai.OpenAI) -> None:
    tools: Any = [TOOLS[RESPONSES]]
    history: list[Any] = [{"role": "user", "content": "What is the weather in 'Oslo'?"}]
    first = gpt.responses.create(model=MODEL, input=history, tools=tools, store=False)
    call = first.output[-1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Oslo"})
    history += [item.to_dict() for item in first.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "Rain."})
    with gpt.responses.stream(model=MODEL, input=history, tools=tools, store=False) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        last = stream.get_final_response()
    assert text == last.output_text == "The tools say: Rain."
    assert last.usage is not None
    assert last.usage.input_tokens == sandbox.ledger[-1].prompt_tokens
    assert [(line.path, line.stream) for line in sandbox.ledger] == [(RESPONSES, False), (RESPONSES, True)]


def test_a_tool_loop_with_anthropics_client(sandbox: Sandbox, claude: Any) -> None:
    asked = {"model": MODEL, "max_tokens": 500, "tools": [TOOLS[MESSAGES]], "system": "Be short."}
    history: list[Any] = [{"role": "user", "content": "What is the weather in 'Oslo'?"}]
    first = claude.messages.create(messages=history, **asked)
    assert [block.type for block in first.content] == ["thinking", "tool_use"]
    assert (first.stop_reason, first.content[-1].input) == ("tool_use", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": first.content[-1].id, "content": "Rain."}
    history += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    with claude.messages.stream(messages=history, **asked) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == "The tools say: Rain."
    assert last.usage.input_tokens == sandbox.ledger[-1].prompt_tokens
    assert [(line.path, line.stream) for line in sandbox.ledger] == [(MESSAGES, False), (MESSAGES, True)]


async def test_the_async_clients(sandbox: Sandbox) -> None:
    address = sandbox.base_url.removesuffix("/v1")
    async with (
        openai.AsyncOpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key) as gpt,
        gpt.responses.stream(**REQUESTS[RESPONSES]) as stream,
    ):
        seen = [event.type async for event in stream]
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")
    async with (
        anthropic.AsyncAnthropic(base_url=address, api_key=sandbox.api_key) as claude,
        claude.messages.stream(**REQUESTS[MESSAGES]) as stream,
    ):
        assert (await stream.get_final_text()).startswith("You said: Hello")


CONVERSATION: dict[str, Any] = {
    CHAT: {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "reasoning_content": "A call.",
                "tool_calls": [
                    {"id": i, "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
                    for i in ("a", "b")
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            {"role": "tool", "tool_call_id": "b", "content": "Sun."},
            {"role": "user", "content": "Which?"},
        ],
        "max_tokens": 500,
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "user": "u1",
        "stop": ["STOP"],
        "tool_choice": "auto",
    },
    RESPONSES: {
        "instructions": "Be short.",
        "input": [
            {"role": "user", "content": "Weather?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "A call."}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
            *[
                {"type": "function_call", "call_id": i, "name": "get_weather", "arguments": '{"city": "Oslo"}'}
                for i in ("a", "b")
            ],
            {"type": "function_call_output", "call_id": "a", "output": "Rain."},
            {"type": "function_call_output", "call_id": "b", "output": "Sun."},
            {"type": "message", "role": "user", "content": "Which?"},
        ],
        "max_output_tokens": 500,
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "user": "u1",
        "tool_choice": "auto",
    },
    MESSAGES: {
        "system": "Be short.",
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "A call.", "signature": ""},
                    {"type": "text", "text": "Let me see."},
                    *[
                        {"type": "tool_use", "id": i, "name": "get_weather", "input": {"city": "Oslo"}}
                        for i in ("a", "b")
                    ],
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "Rain."},
                    {"type": "tool_result", "tool_use_id": "b", "content": "Sun."},
                ],
            },
            {"role": "user", "content": "Which?"},
        ],
        "max_tokens": 500,
        "output_config": {"effort": "low"},
        "metadata": {"user_id": "u1"},
        "stop_sequences": ["STOP"],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    },
}


def test_one_conversation_is_the_same_on_all_endpoints(sandbox: Sandbox) -> None:
    chat, *others = (
        OF[path].read({"model": MODEL, "tools": [TOOLS[path]], **fields}, strict=True)
        for path, fields in CONVERSATION.items()
    )
    for other in others:
        assert other == {name: value for name, value in chat.items() if name != "stop" or "stop" in other}
    for path, fields in CONVERSATION.items():
        raw(sandbox, {"model": MODEL, "tools": [TOOLS[path]], **fields}, path=path)
    assert len({line.prompt_tokens for line in sandbox.ledger}) == 1
    assert [line.path for line in sandbox.ledger] == [CHAT, RESPONSES, MESSAGES]


@pytest.mark.parametrize(
    ("path", "wire", "chat"),
    [
        (RESPONSES, {"tool_choice": {"type": "function", "name": "f"}}, {"tool_choice": "named"}),
        (RESPONSES, {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        (RESPONSES, {"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            RESPONSES,
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        (RESPONSES, {"enable_thinking": False}, {"enable_thinking": False}),
        (MESSAGES, {"tools": [TOOLS[MESSAGES]], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        (
            MESSAGES,
            {"tools": [TOOLS[MESSAGES]], "tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": "named"},
        ),
        (MESSAGES, {"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        (
            MESSAGES,
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"enable_thinking": True, "thinking_budget": 2000},
        ),
        (
            MESSAGES,
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}}},
        ),
        (MESSAGES, {"web_search_linkup": True, "temperature": 1}, {"web_search_linkup": True, "temperature": 1}),
    ],
)
def test_fields_are_read(path: str, wire: Any, chat: Any) -> None:
    got = OF[path].read({**REQUESTS[path], **wire}, strict=True)
    named = {"type": "function", "function": {"name": "f"}}
    for name, value in chat.items():
        assert got[name] == (named if value == "named" else value)
    assert got["messages"] == [{"role": "user", "content": "Hello"}]


PICTURE = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("path", "given", "part"),
    [
        (
            RESPONSES,
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
            {"url": PICTURE, "detail": "auto"},
        ),
        (
            MESSAGES,
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"url": PICTURE},
        ),
        (MESSAGES, {"type": "image", "source": {"type": "url", "url": "https://a"}}, {"url": "https://a"}),
    ],
)
def test_pictures_are_read_and_judged_by_the_card(sandbox: Sandbox, path: str, given: Any, part: Any) -> None:
    turn = [{"role": "user", "content": [given]}]
    body = {**REQUESTS[path], ("input" if path == RESPONSES else "messages"): turn}
    assert OF[path].read(body, strict=True)["messages"][0]["content"] == [{"type": "image_url", "image_url": part}]
    status, _, text = raw(sandbox, body, path=path)
    assert status == 400
    assert "unknown variant `image_url`" in text


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "content": []}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "x"}
ASKED = {"role": "user", "content": "Hello"}
THOUGHT = {"type": "thinking", "thinking": "t", "signature": ""}
USED = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "x"}


def said(*blocks: Any, role: str = "assistant", then: Any = ASKED) -> dict[str, Any]:
    return {"messages": [ASKED, {"role": role, "content": list(blocks)}, then]}


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        (RESPONSES, {"stop": ["x"]}, "Unknown parameter: 'stop'."),
        (RESPONSES, {"messages": []}, "Unknown parameter: 'messages'."),
        (RESPONSES, {"reasoning_effort": "low"}, "Unknown parameter: 'reasoning_effort'."),
        (RESPONSES, {"stream_options": {"include_usage": True}}, "'stream_options.include_usage'"),
        (RESPONSES, {"previous_response_id": "resp_1"}, "Send the whole history"),
        (RESPONSES, {"input": []}, "input must be a non-empty string or a non-empty list of items, got []"),
        (RESPONSES, {"input": None}, "input must be a non-empty string or a non-empty list of items, got None"),
        (
            RESPONSES,
            {"input": [{"type": "item_reference", "id": "x"}]},
            "must be one of message, reasoning, function_call, function_call_output, got 'item_reference'",
        ),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "must be one of input_text",
        ),
        (
            RESPONSES,
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
            "must be one of output_text",
        ),
        (RESPONSES, {"input": [ASKED, REASONING]}, "without its required following item"),
        (RESPONSES, {"input": [ASKED, REASONING, ASKED]}, "without its required following item"),
        (
            RESPONSES,
            {"input": [ASKED, {**REASONING, "id": None}, CALL, OUTPUT]},
            "input[1].id must be a string, got None",
        ),
        (RESPONSES, {"input": [ASKED, {"type": "reasoning", "id": "a"}, CALL]}, "parameter: 'input[1].summary'."),
        (RESPONSES, {"input": [ASKED, CALL, OUTPUT]}, "The `reasoning_content` in the thinking mode must be passed"),
        (RESPONSES, {"input": [ASKED, REASONING, CALL, OUTPUT]}, "must be passed back"),
        (RESPONSES, {"input": [ASKED, CALL], "enable_thinking": False}, "The tool calls ['c1'] have no result"),
        (RESPONSES, {"input": [ASKED, OUTPUT]}, "is the result of tool call 'c1', which is not open"),
        (
            RESPONSES,
            {"input": [ASKED, {**CALL, "arguments": {}}, OUTPUT]},
            "input[1].arguments must be a string, got {}",
        ),
        (RESPONSES, {"tools": [TOOLS[CHAT]]}, "Unknown parameter: 'tools[0].function'."),
        (RESPONSES, {"tools": [{"type": "function"}]}, "Missing required parameter: 'tools[0].name'."),
        (RESPONSES, {"tools": [{"type": "web_search"}]}, "unknown variant `web_search`"),
        (RESPONSES, {"tools": [TOOLS[RESPONSES]], "tool_choice": "required"}, "Thinking mode does not support"),
        (RESPONSES, {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "'tool_choice.name'"),
        (
            RESPONSES,
            {"text": {"format": {"type": "json_schema", "json_schema": {}}}},
            "text.format.name must be a string, got None",
        ),
        (RESPONSES, {"text": {"format": {"type": "json_object"}}}, "must contain the word 'json'"),
        (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens must be an integer from 1 to 393216, got 0"),
        (
            RESPONSES,
            {"reasoning": {"effort": "huge"}},
            "reasoning.effort must be one of none, low, medium, high, max, got 'huge'",
        ),
        (RESPONSES, {"temperature": 3}, "temperature must be a number from 0 to 2, got 3"),
        (MESSAGES, {"max_tokens": None}, "max_tokens: Field required"),
        (MESSAGES, {"max_tokens": 0}, "max_tokens must be an integer from 1 to 393216, got 0"),
        (MESSAGES, {"stop": ["x"]}, "Unknown parameter: 'stop'."),
        (MESSAGES, {"reasoning_effort": "low"}, "Unknown parameter: 'reasoning_effort'."),
        (
            MESSAGES,
            {"output_config": {"effort": "huge"}},
            "output_config.effort must be one of none, low, medium, high, max, got 'huge'",
        ),
        (MESSAGES, {"output_config": {"format": {"type": "json_object"}}}, "must be 'json_schema', got 'json_object'"),
        (MESSAGES, {"metadata": {"run": "1"}}, "metadata.run: Extra inputs"),
        (MESSAGES, {"stop_sequences": [" "]}, "stop_sequences[0] must be a non-blank string, got ' '"),
        (MESSAGES, {"messages": [{"role": "system", "content": "x"}]}, "Send system at the top level"),
        (MESSAGES, {"messages": [{"role": "assistant", "content": "x"}, ASKED]}, 'must use the "user" role'),
        (MESSAGES, {"messages": [ASKED, {"role": "assistant", "content": "x"}]}, "prefill"),
        (MESSAGES, {"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        (MESSAGES, said({"type": "text", "text": ""}), "text content blocks must be non-empty"),
        (MESSAGES, said({"type": "text", "text": "x"}, THOUGHT), "thinking blocks must come first"),
        (MESSAGES, said(THOUGHT), "more than thinking"),
        (MESSAGES, said({"type": "redacted_thinking", "data": "x"}), "must be one of thinking, text, tool_use"),
        (MESSAGES, said({"type": "thinking", "thinking": "t"}, USED), "signature must be a string, got None"),
        (MESSAGES, said(USED, {"type": "text", "text": "x"}), "text must come before the tool_use"),
        (MESSAGES, said({**USED, "input": "{}"}), "input must be an object, got '{}'"),
        (MESSAGES, said(THOUGHT, USED), "must not precede the results of the tool calls"),
        (MESSAGES, said({"type": "text", "text": "x"}, RESULT, role="user"), "tool_result blocks must come before"),
        (
            MESSAGES,
            said(USED, then={"role": "user", "content": [RESULT]}),
            "The `content[].thinking` in the thinking mode must be passed back to the API.",
        ),
        (MESSAGES, {"tools": [TOOLS[CHAT]]}, "must be 'custom', with name and input_schema"),
        (MESSAGES, {"tools": [{"name": "f"}]}, "tools[0].input_schema: Field required"),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}]}, "must be 'object'"),
        (MESSAGES, {"tool_choice": {"type": "auto"}}, "only be specified while providing tools"),
        (MESSAGES, {"tools": [TOOLS[MESSAGES]], "tool_choice": {"type": "any"}}, "Thinking mode does not support"),
        (MESSAGES, {"tools": [TOOLS[MESSAGES]], "tool_choice": "auto"}, "tool_choice must be an object, got 'auto'"),
        (MESSAGES, {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "cannot be disabled"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 100}}, "must be at least 1024"),
        (MESSAGES, {"thinking": {"type": "enabled"}, "enable_thinking": True}, "but not both"),
    ],
)
def test_invalid_requests_are_rejected(sandbox: Sandbox, path: str, fields: Any, told: str) -> None:
    status, headers, text = raw(sandbox, {**REQUESTS[path], **fields}, path=path)
    assert (status, headers["content-type"]) == (400, "application/json"), text
    answer = json.loads(text)
    assert told in answer["error"]["message"]
    if path == MESSAGES:
        assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")
        assert set(answer["error"]) == {"type", "message"}
    else:
        assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert not sandbox.ledger


def test_the_lenient_sandbox_leaves_out_the_rules_of_the_upstreams() -> None:
    with Sandbox(strict=False) as lenient:
        for path, fields in (
            (RESPONSES, {"input": [ASKED, CALL, OUTPUT]}),
            (MESSAGES, {"messages": [{"role": "assistant", "content": "x"}]}),
            (MESSAGES, said(USED, then={"role": "user", "content": [RESULT]})),
        ):
            posted(lenient, path, **fields)


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_keys_models_credits_and_limits(path: str) -> None:
    with Sandbox(credits=1, rate_limit=3) as small:
        assert raw(small, REQUESTS[path], {}, path=path)[0] == 401
        status, _, text = raw(small, {**REQUESTS[path], "model": "none"}, path=path)
        assert (status, "The model 'none' does not exist" in text) == (404, True)
        posted(small, path)
        assert raw(small, REQUESTS[path], path=path)[0] == 402
        small._credits = None
        posted(small, path)
        status, headers, text = raw(small, REQUESTS[path], path=path)
        assert (status, headers["retry-after"]) == (429, "1")
        if path == MESSAGES:
            assert json.loads(text)["error"]["type"] == "rate_limit_error"


def test_typed_errors_of_the_clients(sandbox: Sandbox, gpt: openai.OpenAI, claude: Any) -> None:
    sandbox.fail(Fault("status", status=529), Fault("status", status=429, message="Slow down"), Fault("error_event"))
    with pytest.raises(anthropic.InternalServerError, match="overloaded_error"):
        claude.messages.create(**REQUESTS[MESSAGES])
    with pytest.raises(openai.RateLimitError, match="Slow down"):
        gpt.responses.create(**REQUESTS[RESPONSES])
    with (
        pytest.raises(anthropic.APIStatusError, match="The model provider"),
        claude.messages.stream(**REQUESTS[MESSAGES]) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_faults_have_the_form_of_the_endpoint(sandbox: Sandbox, path: str) -> None:
    told = {"code": "upstream_error", "message": "Broken."}
    sandbox.fail(Fault("error_body", message="Broken."), Fault("choices", value=[]), Fault("choices"))
    error = posted(sandbox, path)["error"]
    assert error["message"] == "Broken."
    place = "output" if path == RESPONSES else "content"
    assert posted(sandbox, path)[place] == []
    assert place not in posted(sandbox, path)
    sandbox.fail(Fault("error_event", after=3, message="Broken."), Fault("no_finish"), Fault("no_done"))
    event = events(sandbox, path)[3]
    assert event["type"] == "error"
    if path == RESPONSES:
        assert {name: event[name] for name in told} == told
    else:
        assert event["error"] == {"type": "api_error", "message": "Broken."}
    cut, open_end = events(sandbox, path), events(sandbox, path)
    last = ("response.output_item.done", "response.completed")
    assert (cut[-1]["type"], open_end[-1]["type"]) == (
        last if path == RESPONSES else ("content_block_stop", "message_delta")
    )


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_connections_break_on_every_endpoint(sandbox: Sandbox, path: str) -> None:
    for kind in ("cut", "reset", "truncate", "half_json"):
        sandbox.fail(Fault(kind, after=2))
        try:
            _, _, text = raw(sandbox, {**REQUESTS[path], "stream": True}, path=path)
        except (http.client.IncompleteRead, ConnectionResetError):
            continue
        assert kind in ("truncate", "half_json")
        assert text.count("\n\n") == 2
    assert not sandbox.ledger


def test_scripted_events_and_replies_are_sent_as_they_are(sandbox: Sandbox, gpt: openai.OpenAI) -> None:
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Out of order."}}}
    sandbox.script(Answer(chunks=[failed, "[DONE]"]), Answer(body={"odd": 1}))
    _, _, text = raw(sandbox, {**REQUESTS[RESPONSES], "stream": True}, path=RESPONSES)
    assert text == f"event: response.failed\ndata: {json.dumps(failed)}\n\ndata: [DONE]\n\n"
    assert posted(sandbox, RESPONSES) == {"odd": 1}


def test_arguments_that_are_not_json(sandbox: Sandbox) -> None:
    """Text can hold them, but a whole tool_use block has to be an object."""
    answer = Answer(None, tool_calls=[{"name": "get_weather", "arguments": '{"city": "Os'}], finish_reason="length")
    sandbox.script(answer, answer, answer)
    assert posted(sandbox, RESPONSES)["output"][0]["arguments"] == '{"city": "Os'
    assert posted(sandbox, MESSAGES)["content"][0]["input"] == {"invalid_json": '{"city": "Os'}
    deltas = [event["delta"].get("partial_json", "") for event in events(sandbox, MESSAGES) if "delta" in event]
    assert "".join(deltas) == '{"city": "Os'


def test_an_unknown_route_lists_the_known_ones(sandbox: Sandbox) -> None:
    for path, status in (("/v1/nowhere", 404), ("/v1/v1/messages", 404), ("/v1/models", 405)):
        got, headers, text = raw(sandbox, {}, path=path)
        assert (got, headers["content-type"]) == (status, "application/json")
        assert f"There is no route POST {path}." in json.loads(text)["detail"]
        assert {f"POST {known}" for known in OF} < set(json.loads(text)["routes"])


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@given(data=st.data())
def test_odd_requests_are_refused_or_answered(serving: Sandbox, path: str, data: st.DataObject) -> None:
    """Invalid data anywhere in a request never causes an error within the sandbox."""
    junk = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "role", "content", "id"]), inner)
            ),
        )
    )
    body = json.loads(json.dumps({**CONVERSATION[path], "model": MODEL, "tools": [TOOLS[path]], "stream": True}))
    places = list(places_in(body))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = junk
    status, _, text = raw(serving, body, path=path)
    assert status in (200, 400, 404), (key, junk, text)


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places_in(value[key])
