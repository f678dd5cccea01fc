"""The endpoints' translators: pure functions, one small reader per stream."""

from __future__ import annotations

from typing import Any

import pytest

from empiriolabs_core.arguments import standard_fields
from empiriolabs_core.endpoints import CHAT, ENDPOINTS, messages, responses
from empiriolabs_core.errors import (
    IncompleteStreamError,
    InvalidReplyError,
    ReportedError,
    SettingsError,
    UnsupportedContentError,
    warn_once,
)
from empiriolabs_core.replies import StreamCheck, StreamedReply, read_usage
from tests.drivers import WEATHER

RESPONSES, MESSAGES = ENDPOINTS["responses"], ENDPOINTS["messages"]
BOTH = pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES], ids=lambda endpoint: endpoint.name)
HELLO = {"role": "user", "content": "Hello"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
TURN = {"role": "assistant", "content": "I look.", "reasoning_content": "Weather.", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def sent(endpoint: Any, *conversation: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": list(conversation or [HELLO]), **fields}
    before = repr(body)
    wire: dict[str, Any] = endpoint.write_body(body)
    assert repr(body) == before, "the given body was changed"
    return wire


def streamed(endpoint: Any, *events: dict[str, Any]) -> tuple[StreamedReply, str, StreamCheck]:
    reader, reply, check, reasoning = endpoint.reader(), StreamedReply(), StreamCheck(), []
    for event in events:
        chunk = reader.read(event)
        if chunk is not None:
            delta = reply.read(check.see(chunk))
            reasoning.append(delta.reasoning if delta else "")
    return reply, "".join(reasoning), check


def calls(reply: StreamedReply) -> list[tuple[str | None, str | None, str]]:
    return [(call.id, call.name, call.arguments) for call in reply.tool_calls.calls]


def counts(usage: Any) -> tuple[Any, ...]:
    """Return input, output, total, cached and reasoning tokens."""
    return (read_usage(usage) or ())[:5]


def test_every_standard_field_is_sent_translated_or_rejected() -> None:
    for module in (responses, messages):
        assert not module._MISSING & module._TRANSLATED
        assert standard_fields() >= module._MISSING
    # These keep their names on both endpoints, or on the one that is named.
    same = {"model", "stream", "temperature", "top_p", "service_tier"}
    on_responses = {
        *("metadata", "moderation", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "safety_identifier", "store", "user"),
    }
    known = standard_fields()
    assert known - responses._MISSING - responses._TRANSLATED == (same | on_responses) & known
    assert known - messages._MISSING - messages._TRANSLATED == same & known


def test_chat_completions_are_sent_as_they_are() -> None:
    body = {"model": "m", "messages": [HELLO]}
    assert CHAT.write_body(body) is body
    assert CHAT.read_reply(body) is body
    assert CHAT.read_usage(body) is body
    assert CHAT.reader is None


def test_responses_conversation() -> None:
    wire = sent(
        RESPONSES,
        {"role": "system", "content": "Be short."},
        {"role": "developer", "content": "Be kind."},
        HELLO,
        TURN,
        RESULT,
        {"role": "developer", "content": "Now be long."},
    )
    assert wire == {
        "model": "m",
        "instructions": "Be short.\n\nBe kind.",
        "input": [
            {"type": "message", "role": "user", "content": "Hello"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "Weather."}],
            },
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
            },
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "get_weather",
                "arguments": '{"city": "Paris"}',
                "status": "completed",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "Sunny"},
            {"type": "message", "role": "system", "content": "Now be long."},
        ],
        "store": False,
    }


def test_responses_reasoning_is_always_followed_by_an_item() -> None:
    turn = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    kinds = [item["type"] for item in sent(RESPONSES, HELLO, turn, HELLO)["input"]]
    assert kinds == ["message", "reasoning", "message", "message"]
    empty = {**TURN, "content": None, "reasoning_content": ""}
    kinds = [item["type"] for item in sent(RESPONSES, HELLO, empty, RESULT)["input"]]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]


def test_responses_system_messages_alone_are_the_input() -> None:
    wire = sent(RESPONSES, {"role": "system", "content": "Say hello."})
    assert wire["input"] == [{"type": "message", "role": "system", "content": "Say hello."}]
    assert "instructions" not in wire


def test_responses_content_parts() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://example.com/a.pdf"}}
    known = {"type": "file", "file": {"file_id": "file-1"}}
    wire = sent(RESPONSES, {"role": "user", "content": [{"type": "text", "text": "See"}, PICTURE, file, known]})
    assert wire["input"][0]["content"] == [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_url": "https://example.com/a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ]
    wire = sent(RESPONSES, HELLO, TURN, {**RESULT, "content": [PICTURE]})
    assert wire["input"][-1]["output"][0]["type"] == "input_image"


def test_responses_tools() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}
    server = {"type": "web_search"}
    wire = sent(RESPONSES, tools=[WEATHER, bare, server], tool_choice={"type": "function", "function": {"name": "now"}})
    assert wire["tools"][0] == {"type": "function", **WEATHER["function"], "strict": False}  # type: ignore[dict-item]
    assert wire["tools"][1]["strict"] is True
    assert wire["tools"][1]["parameters"] == {"type": "object", "properties": {}}
    assert wire["tools"][2] == server
    assert wire["tool_choice"] == {"type": "function", "name": "now"}
    assert sent(RESPONSES, tools=[WEATHER], tool_choice="required")["tool_choice"] == "required"
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]}
    wire = sent(RESPONSES, tools=[bare], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert wire["tool_choice"]["tools"] == [{"type": "function", "name": "now"}]


def test_responses_fields() -> None:
    schema = {"name": "place", "schema": SCHEMA, "strict": True}
    wire = sent(
        RESPONSES,
        max_tokens=100,
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": schema},
        verbosity="low",
        logprobs=True,
        top_logprobs=2,
        include=["reasoning.encrypted_content"],
        n=1,
        frequency_penalty=0,
        stream=True,
        stream_options={"include_usage": True},
        enable_thinking=True,
        reasoning={"summary": "auto"},
    )
    assert wire == {
        "model": "m",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "max_output_tokens": 100,
        "text": {"format": {"type": "json_schema", **schema}, "verbosity": "low"},
        "top_logprobs": 2,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "stream": True,
        "enable_thinking": True,
        "store": False,
    }
    assert sent(RESPONSES, store=True)["store"] is True


def test_messages_conversation() -> None:
    second = {**CALL, "id": "call_2", "function": {"name": "now", "arguments": "not JSON"}}
    wire = sent(
        MESSAGES,
        {"role": "system", "content": "Be short."},
        HELLO,
        {"role": "user", "content": "Weather?"},
        {**TURN, "tool_calls": [CALL, second]},
        RESULT,
        {**RESULT, "tool_call_id": "call_2", "content": ""},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "And?"},
    )
    assert wire == {
        "model": "m",
        "max_tokens": 4096,
        "system": "Be short.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Weather.", "signature": ""},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Paris"}},
                    {"type": "tool_use", "id": "call_2", "name": "now", "input": {"invalid_json": "not JSON"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "Sunny"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": ""},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    }


def test_messages_leaves_empty_turns_out() -> None:
    thought = {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    assert sent(MESSAGES, HELLO, thought, {"role": "user", "content": ""})["messages"] == [HELLO]
    for nothing in ({"role": "system", "content": "Hi"}, {"role": "user", "content": ""}):
        with pytest.raises(SettingsError, match="requires at least one user or assistant message"):
            sent(MESSAGES, nothing)


def test_messages_keeps_an_empty_thinking_block_before_a_call() -> None:
    wire = sent(MESSAGES, HELLO, {**TURN, "content": None, "reasoning_content": ""}, RESULT)
    assert wire["messages"][1]["content"][0] == {"type": "thinking", "thinking": "", "signature": ""}


def test_messages_content_parts() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}}
    page = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    wire = sent(MESSAGES, {"role": "user", "content": [{"type": "text", "text": ""}, PICTURE, page, file]})
    assert wire["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"},
            "title": "a.pdf",
        },
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        (
            {"type": "function", "function": {"name": "now"}},
            False,
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_messages_tool_choice(choice: Any, parallel: bool | None, expected: Any) -> None:
    fields = {"tool_choice": choice, "parallel_tool_calls": parallel}
    given = {name: value for name, value in fields.items() if value is not None}
    assert sent(MESSAGES, tools=[WEATHER], **given).get("tool_choice") == expected


def test_messages_fields() -> None:
    wire = sent(
        MESSAGES,
        tools=[WEATHER, {"type": "function", "function": {"name": "now"}}],
        stop=["END"],
        user="u1",
        reasoning_effort="high",
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
        stream=True,
        stream_options={"include_usage": True},
        thinking_budget=7,
        store=False,
    )
    del wire["messages"]
    function: Any = WEATHER["function"]
    assert wire == {
        "model": "m",
        "max_tokens": 4096,
        "tools": [
            {
                "name": function["name"],
                "description": function["description"],
                "input_schema": function["parameters"],
            },
            {"name": "now", "input_schema": {"type": "object", "properties": {}}},
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "high"},
        "stream": True,
        "thinking_budget": 7,
    }
    wire = sent(MESSAGES, response_format={"type": "json_object"})
    assert wire["system"] == "Answer with one JSON object and nothing else."


def test_messages_max_tokens_is_the_cards_default() -> None:
    body = {"messages": [HELLO], "model": "deepseek-v4-pro"}
    assert MESSAGES.write_body(body)["max_tokens"] == 4096
    assert MESSAGES.write_body({**body, "max_tokens": 5})["max_tokens"] == 5


@BOTH
def test_effort_none_turns_thinking_off(endpoint: Any) -> None:
    wire = sent(endpoint, reasoning_effort="none")
    assert wire["enable_thinking"] is False
    assert not {"reasoning", "output_config", "reasoning_effort"} & wire.keys()


@BOTH
def test_the_gateways_own_fields_stay_at_top_level(endpoint: Any) -> None:
    own = {"enable_thinking": True, "thinking_budget": 9, "web_search_linkup": True, "disable_formatting": True}
    assert sent(endpoint, **own, something_new=1).items() >= {**own, "something_new": 1}.items()


NOT_ON: dict[str, dict[str, Any]] = {
    "responses": {"stop": ["END"]},
    "messages": {
        "logprobs": True,
        "top_logprobs": 2,
        "metadata": {"a": "b"},
        "store": True,
        "prompt_cache_key": "k",
        "verbosity": "low",
        "safety_identifier": "s",
    },
}
NOWHERE: dict[str, Any] = {
    "n": 2,
    "seed": 7,
    "frequency_penalty": 1,
    "presence_penalty": 0.5,
    "logit_bias": {"1": 2},
    "prediction": {"type": "content", "content": "x"},
    "audio": {"voice": "a", "format": "wav"},
    "modalities": ["text", "audio"],
    "web_search_options": {},
}


@BOTH
def test_what_an_endpoint_cannot_express_is_an_error(endpoint: Any) -> None:
    missing = {**NOWHERE, **NOT_ON[endpoint.name]}
    for name, value in missing.items():
        with pytest.raises(SettingsError, match=rf"endpoint='{endpoint.name}' does not support {name}\."):
            sent(endpoint, **{name: value})
    for kind in ("input_audio", "video_url"):
        part: dict[str, Any] = {"type": kind, kind: {"url": "u"}}
        with pytest.raises(UnsupportedContentError, match=kind):
            sent(endpoint, {"role": "user", "content": [part]})
        with pytest.raises(UnsupportedContentError, match="in a system message"):
            sent(endpoint, {"role": "system", "content": [part]}, HELLO)
    with pytest.raises(UnsupportedContentError, match="role 'critic'"):
        sent(endpoint, {"role": "critic", "content": "No."})
    with pytest.raises(SettingsError, match="custom tools"):
        sent(endpoint, tools=[{"type": "custom", "custom": {"name": "x"}}])
    with pytest.raises(SettingsError, match="response_format"):
        sent(endpoint, response_format="json")


def test_a_file_id_is_not_on_messages() -> None:
    with pytest.raises(UnsupportedContentError, match="'file'"):
        sent(MESSAGES, {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]})
    with pytest.raises(SettingsError, match="tool_choice"):
        sent(MESSAGES, tools=[WEATHER], tool_choice={"type": "allowed_tools", "allowed_tools": {}})


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (RESPONSES, {"max_tokens": 5, "max_output_tokens": 6}),
        (RESPONSES, {"input": "Hi"}),
        (MESSAGES, {"system": "Hi", "response_format": {"type": "json_object"}}),
        (MESSAGES, {"output_config": {"effort": "low"}, "reasoning_effort": "high"}),
    ],
)
def test_a_field_is_set_in_one_place(endpoint: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="Set it in one place"):
        sent(endpoint, **fields)


@BOTH
def test_a_name_is_left_out_with_one_warning(endpoint: Any) -> None:
    warn_once.cache_clear()
    named = {**HELLO, "name": "Ann"}
    with pytest.warns(UserWarning, match="does not support names of messages"):
        assert "Ann" not in repr(sent(endpoint, named))
    # Warnings are errors here, so a second one would fail.
    assert "Ann" not in repr(sent(endpoint, named))


# Replies.

MESSAGE_ITEM = {
    "type": "message",
    "content": [
        {
            "type": "output_text",
            "text": "It is ",
            "annotations": [{"type": "url_citation", "url": "https://a.example"}],
        },
        {"type": "output_text", "text": "sunny.", "logprobs": [{"token": "sunny", "logprob": -1}]},
    ],
}
REASONING_ITEM = {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}
SUMMARY_ITEM = {"type": "reasoning", "id": "rs", "summary": [{"text": "First"}, {"text": "Then"}]}
CALL_ITEM = {"type": "function_call", "id": "fc", "call_id": "call_1", "name": "now", "arguments": '{"a":1}'}
SEARCH_ITEM = {"type": "web_search_call", "id": "ws", "status": "completed"}


def response(*output: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"id": "r1", "created_at": 5, "model": "m", "status": status, "output": list(output), **fields}


def test_responses_reply() -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "input_tokens_details": {"cached_tokens": 2}}
    reply = RESPONSES.read_reply(response(REASONING_ITEM, MESSAGE_ITEM, CALL_ITEM, SEARCH_ITEM, usage=usage))
    (choice,) = reply["choices"]
    assert (reply["id"], reply["created"], reply["model"]) == ("r1", 5, "m")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["logprobs"] == {"content": [{"token": "sunny", "logprob": -1}]}
    assert choice["message"] == {
        "role": "assistant",
        "content": "It is sunny.",
        "reasoning_content": "Hm",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"a":1}'}}],
        "annotations": [{"type": "url_citation", "url": "https://a.example"}],
        "other_items": [SEARCH_ITEM],
    }
    assert counts(reply["usage"]) == (5, 3, 8, 2, None)


def test_responses_reply_summary_and_refusal() -> None:
    refusal = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    message = RESPONSES.read_reply(response(SUMMARY_ITEM, refusal))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "refusal": "No.", "reasoning_content": "First\n\nThen"}
    for events in ([done(refusal, 0)], [piece("refusal", "N", 0), piece("refusal", "o.", 0), done(refusal, 0)]):
        assert streamed(RESPONSES, *events, ended(refusal))[0].unknown == {"refusal": "No."}
    assert streamed(RESPONSES, ended(refusal))[0].unknown == {"refusal": "No."}


@pytest.mark.parametrize(
    ("status", "reason", "output", "expected"),
    [
        ("completed", None, [MESSAGE_ITEM], "stop"),
        ("completed", None, [CALL_ITEM], "tool_calls"),
        ("incomplete", "max_output_tokens", [REASONING_ITEM], "length"),
        ("incomplete", "content_filter", [], "content_filter"),
        ("incomplete", None, [CALL_ITEM], "length"),
    ],
)
def test_responses_finish_reason(status: str, reason: str | None, output: list[Any], expected: str) -> None:
    details = {"reason": reason} if reason else None
    whole = response(*output, status=status, incomplete_details=details)
    assert RESPONSES.read_reply(whole)["choices"][0]["finish_reason"] == expected
    kind = "response.incomplete" if status == "incomplete" else "response.completed"
    reply, _, _ = streamed(RESPONSES, {"type": kind, "response": whole})
    assert reply.last["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (response(status="failed", error={"code": "server_error", "message": "Oh"}), ReportedError),
        (response(status="failed"), ReportedError),
        (response(status="cancelled"), ReportedError),
        (response(status="queued"), InvalidReplyError),
        (response(status="in_progress"), InvalidReplyError),
        ({"id": "x", "choices": []}, InvalidReplyError),
    ],
)
def test_responses_reply_that_is_not_one(reply: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        RESPONSES.read_reply(reply)


def test_messages_reply() -> None:
    cited = {"type": "web_search_result_location", "url": "https://a.example", "cited_text": "Sun"}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    blocks = [
        {"type": "thinking", "thinking": "Hm", "signature": "x"},
        search,
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "sunny.", "citations": [cited]},
        {"type": "tool_use", "id": "t1", "name": "now", "input": {"ä": 1}},
        {"type": "tool_use", "id": "t2", "name": "now"},
    ]
    usage = {
        "input_tokens": 9,
        "cache_read_input_tokens": 14,
        "cache_creation_input_tokens": 1,
        "output_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    wire = {"id": "m1", "model": "m", "content": blocks, "stop_reason": "end_turn", "usage": usage}
    reply = MESSAGES.read_reply({**wire, "stop_sequence": "X"})
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    assert reply["choices"][0]["message"] == {
        "role": "assistant",
        "content": "It is sunny.",
        "reasoning_content": "Hm",
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "now", "arguments": '{"ä": 1}'}},
            {"id": "t2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
        "citations": [cited],
        "other_items": [search],
        "stop_sequence": "X",
    }
    assert counts(reply["usage"]) == (24, 6, 30, 14, 2)


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [*messages.FINISH_REASONS.items(), ("pause_turn", "pause_turn"), (None, "stop")],
)
def test_messages_finish_reason(stop_reason: str | None, expected: str | None) -> None:
    reply = MESSAGES.read_reply({"content": [{"type": "text", "text": "Hi"}], "stop_reason": stop_reason})
    assert reply["choices"][0]["finish_reason"] == expected


def test_messages_reply_that_is_not_one() -> None:
    with pytest.raises(InvalidReplyError, match="returned 200, but no message"):
        MESSAGES.read_reply({"id": "x", "choices": []})
    with pytest.raises(ReportedError):
        MESSAGES.read_reply({"type": "error", "error": {"type": "api_error", "message": "Oh"}})


@BOTH
def test_usage_under_chats_names_is_kept(endpoint: Any) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert endpoint.read_usage(usage) == usage
    assert endpoint.read_usage(None) is None
    assert endpoint.read_usage("?") == "?"


# Streams of responses.


def added(item: dict[str, Any], index: int | None = None) -> dict[str, Any]:
    return _placed({"type": "response.output_item.added", "item": item}, index)


def done(item: dict[str, Any], index: int | None = None) -> dict[str, Any]:
    return _placed({"type": "response.output_item.done", "item": item}, index)


def piece(kind: str, delta: str, index: int | None = None, **fields: Any) -> dict[str, Any]:
    return _placed({"type": f"response.{kind}.delta", "delta": delta, **fields}, index)


def _placed(event: dict[str, Any], index: int | None) -> dict[str, Any]:
    return event if index is None else {**event, "output_index": index}


def ended(*output: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": response(*output, **fields)}


CREATED = {"type": "response.created", "response": {"id": "r1", "model": "m", "created_at": 5}}
ARGUMENTS = "function_call_arguments"


def call_item(number: int, arguments: str = "") -> dict[str, Any]:
    call = {"id": f"fc_{number}", "call_id": f"call_{number}", "name": f"tool_{number}", "arguments": arguments}
    return {"type": "function_call", **call}


def test_responses_stream() -> None:
    reply, reasoning, check = streamed(
        RESPONSES,
        CREATED,
        added({"type": "reasoning", "id": "rs"}, 0),
        piece("reasoning_text", "Hm", 0),
        done(REASONING_ITEM, 0),
        added({"type": "message", "id": "msg"}, 1),
        piece("output_text", "Sun", 1, logprobs=[{"token": "Sun", "logprob": -1}]),
        piece("output_text", "ny", 1),
        {
            "type": "response.output_text.annotation.added",
            "annotation": {"url": "https://a.example"},
            "output_index": 1,
        },
        done(MESSAGE_ITEM, 1),
        done(SEARCH_ITEM, 2),
        ended(MESSAGE_ITEM, usage={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}),
    )
    check.end()
    assert (reply.text, reasoning) == ("Sunny", "Hm")
    assert reply.sources == {"annotations": [{"url": "https://a.example"}]}
    assert reply.unknown["other_items"] == [SEARCH_ITEM]
    assert reply.last["id"] == "r1"
    assert counts(reply.usage) == (3, 4, 7, None, None)


def test_responses_stream_summary_once() -> None:
    _, reasoning, _ = streamed(
        RESPONSES,
        added({"type": "reasoning", "id": "rs"}, 0),
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
        piece("reasoning_summary_text", "First", 0),
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
        piece("reasoning_summary_text", "Then", 0),
        piece("reasoning_text", "The same at length", 0),
        done(SUMMARY_ITEM, 0),
    )
    assert reasoning == "First\n\nThen"


def test_responses_stream_of_whole_items() -> None:
    """Servers that send an item with its last event only."""
    reply, reasoning, _ = streamed(
        RESPONSES, done(REASONING_ITEM, 0), done(MESSAGE_ITEM, 1), done(call_item(0, "{}"), 2), ended()
    )
    assert (reply.text, reasoning) == ("It is sunny.", "Hm")
    assert calls(reply) == [("call_0", "tool_0", "{}")]
    assert reply.sources["annotations"]
    assert reply.last["choices"][0]["finish_reason"] == "tool_calls"


def test_responses_stream_of_one_event() -> None:
    reply, reasoning, check = streamed(RESPONSES, CREATED, ended(REASONING_ITEM, MESSAGE_ITEM, CALL_ITEM))
    check.end()
    assert (reply.text, reasoning, calls(reply)) == ("It is sunny.", "Hm", [("call_1", "now", '{"a":1}')])


@pytest.mark.parametrize("by", ["index", "id", "order"])
def test_responses_stream_parallel_calls(by: str) -> None:
    """Calls are numbered by themselves, whichever name of an item the server uses."""

    def places(number: int) -> dict[str, Any]:
        named: dict[str, dict[str, Any]] = {
            "index": {"output_index": number + 1},
            "id": {"item_id": f"fc_{number}"},
            "order": {},
        }
        return named[by]

    both = [
        [
            {**added(call_item(n)), **places(n)},
            *({**piece(ARGUMENTS, text), **places(n)} for text in ('{"n":', f"{n}}}")),
        ]
        for n in (0, 1)
    ]
    interleaved = [event for pair in zip(*both, strict=True) for event in pair]
    if by == "order":
        interleaved = [event for events in both for event in events]
    over = [
        {**done(call_item(n, f'{{"n":{n}}}')), **({} if by == "order" else places(n)), "item_id": None} for n in (0, 1)
    ]
    reply, _, _ = streamed(RESPONSES, added({"type": "reasoning", "id": "rs"}, 0), *interleaved, *over, ended())
    assert calls(reply) == [("call_0", "tool_0", '{"n":0}'), ("call_1", "tool_1", '{"n":1}')]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([{"type": f"response.{ARGUMENTS}.done", "arguments": '{"a":1}'}], '{"a":1}'),
        ([piece(ARGUMENTS, '{"a"'), {"type": f"response.{ARGUMENTS}.done", "arguments": '{"a":1}'}], '{"a":1}'),
        ([done(call_item(0, '{"a":1}'))], '{"a":1}'),
        ([piece(ARGUMENTS, '{"a":'), piece(ARGUMENTS, "1}"), done(call_item(0, '{"a":1}'))], '{"a":1}'),
        ([piece(ARGUMENTS, '{"a":1}'), done(call_item(0, '{ "a": 1 }'))], '{"a":1}'),
        ([piece(ARGUMENTS, '{"a":1}'), done(call_item(0, "{}"))], '{"a":1}'),
        ([], ""),
    ],
)
def test_responses_stream_arguments_come_once(events: list[dict[str, Any]], expected: str) -> None:
    begun = call_item(0, "" if events else "ignored")
    reply, _, _ = streamed(RESPONSES, added(begun), *events, ended(call_item(0, '{"a":1}')))
    assert calls(reply) == [("call_0", "tool_0", expected)]


def test_responses_stream_calls_in_the_last_event_alone() -> None:
    reply, _, _ = streamed(RESPONSES, piece("output_text", "Hi"), ended(MESSAGE_ITEM, call_item(0, "{}")))
    assert (reply.text, calls(reply)) == ("Hi", [("call_0", "tool_0", "{}")])
    assert reply.last["choices"][0]["finish_reason"] == "tool_calls"


def test_responses_stream_calls_without_ids() -> None:
    bare = {"type": "function_call", "name": "now", "arguments": "{}"}
    reply, _, _ = streamed(RESPONSES, added({**bare, "arguments": ""}), done(bare), ended(bare))
    assert [(name, arguments) for _, name, arguments in calls(reply)] == [("now", "{}")]


def test_responses_stream_errors() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4}
    failed = {
        "type": "response.failed",
        "response": {"error": {"code": "server_error", "message": "Oh"}, "usage": usage},
    }
    check, reader = StreamCheck(), RESPONSES.reader()  # type: ignore[misc]
    with pytest.raises(ReportedError, match="Oh") as raised:
        check.see(reader.read(failed))
    assert raised.value.code == "server_error"
    assert check.usage == {"prompt_tokens": 3, "completion_tokens": 4}
    for event in ({"type": "error", "code": "x", "message": "Oh"}, {"type": "error", "error": {"message": "Oh"}}):
        with pytest.raises(ReportedError, match="Oh"):
            streamed(RESPONSES, event)
    with pytest.raises(ReportedError, match="Oh"):
        streamed(RESPONSES, {"error": {"message": "Oh"}})
    with pytest.raises(ReportedError, match="failed"):
        streamed(RESPONSES, {"type": "response.failed", "response": {}})


# Streams of messages.


def start(index: int | None, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int | None, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **fields}}


def stop(index: int | None) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def last(stop_reason: str | None, **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}


STARTED = {"type": "message_start", "message": {"id": "m1", "model": "m", "usage": {"input_tokens": 3}}}
STOPPED = {"type": "message_stop"}


def test_messages_stream() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    reply, reasoning, check = streamed(
        MESSAGES,
        STARTED,
        {"type": "ping"},
        start(0, type="thinking", thinking=""),
        delta(0, "thinking", thinking="Hm"),
        delta(0, "signature", signature="x"),
        stop(0),
        start(1, **search),
        delta(1, "input_json", partial_json='{"query":'),
        delta(1, "input_json", partial_json='"sun"}'),
        stop(1),
        start(2, type="text", text="It"),
        delta(2, "text", text=" is sunny."),
        delta(2, "citations", citation={"url": "https://a.example"}),
        stop(2),
        start(3, type="tool_use", id="t1", name="now"),
        delta(3, "input_json", partial_json=""),
        delta(3, "input_json", partial_json="{}"),
        start(4, type="tool_use", id="t2", name="later", input={"a": 1}),
        stop(4),
        stop(3),
        last("tool_use", input_tokens=0, output_tokens=4),
        STOPPED,
    )
    check.end()
    assert (reply.text, reasoning) == ("It is sunny.", "Hm")
    assert calls(reply) == [("t1", "now", "{}"), ("t2", "later", '{"a": 1}')]
    assert reply.sources == {"citations": [{"url": "https://a.example"}]}
    assert reply.unknown["other_items"] == [{**search, "input": {"query": "sun"}}]
    assert reply.last["choices"][0]["finish_reason"] == "tool_calls"
    assert counts(reply.usage) == (3, 4, 7, None, None)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([last("max_tokens")], "length"),
        ([last("end_turn"), last(None, output_tokens=9)], "stop"),
        ([last(None, output_tokens=9)], "stop"),
        ([], "stop"),
    ],
)
def test_messages_stream_ends(events: list[dict[str, Any]], expected: str) -> None:
    reply, _, check = streamed(MESSAGES, STARTED, delta(0, "text", text="Hi"), *events, STOPPED)
    check.end()
    assert reply.last["choices"][0]["finish_reason"] == expected
    if any(event["usage"] for event in events):
        assert counts(reply.usage) == (3, 9, 12, None, None)


def test_messages_stream_without_block_stops() -> None:
    reply, _, check = streamed(
        MESSAGES,
        STARTED,
        start(None, type="tool_use", id="t1", name="now"),
        delta(None, "input_json", partial_json='{"a":1}'),
        start(1, type="tool_use", id="t2", name="later", input={"b": 2}),
        STOPPED,
    )
    check.end()
    assert calls(reply) == [("t1", "now", '{"a":1}'), ("t2", "later", '{"b": 2}')]
    assert reply.last["choices"][0]["finish_reason"] == "tool_calls"


def test_messages_stream_errors() -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    for event in ({"type": "error", "error": error}, {"error": error}):
        with pytest.raises(ReportedError, match="Overloaded"):
            streamed(MESSAGES, STARTED, event)


@BOTH
def test_a_stream_that_breaks_off_is_not_an_answer(endpoint: Any) -> None:
    some = piece("output_text", "Hi") if endpoint is RESPONSES else delta(0, "text", text="Hi")
    for events in ([], [CREATED if endpoint is RESPONSES else STARTED], [some]):
        _, _, check = streamed(endpoint, *events)
        with pytest.raises(IncompleteStreamError):
            check.end()
