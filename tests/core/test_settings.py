"""The typed fields: accepted values, rejected values and their messages."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from empiriolabs_core.catalog import CARDS
from empiriolabs_core.errors import DEFAULT_API_BASE, MissingKeyError, SettingsError, UnsupportedContentError
from empiriolabs_core.sandbox import Sandbox
from empiriolabs_core.sandbox.entries import FURTHER_MODELS
from empiriolabs_core.settings import DEFAULT_MODEL, Settings
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs

KEY = "sk-canary-0123456789"
USER = {"role": "user", "content": "Hello"}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}
CLASSES: list[type[Settings]] = [Settings, ChatEmpirioLabs, EmpirioLabs]


def body(settings: Settings | None = None, messages: Any = (USER,), stream: bool = False, **call: Any) -> Any:
    return (settings or Settings(api_key=KEY)).request(messages, call, stream=stream).body


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"temperature": 2.01}, ["temperature", "2.01", "2"]),
    ({"temperature": -0.1}, ["temperature", "-0.1", "0"]),
    ({"temperature": math.nan}, ["temperature", "nan"]),
    ({"temperature": "hot"}, ["temperature", "hot"]),
    ({"temperature": True}, ["temperature", "True"]),
    ({"top_p": 1.5}, ["top_p", "1.5", "1"]),
    ({"max_tokens": 0}, ["max_tokens", "0", "1"]),
    ({"max_tokens": 393217}, ["max_tokens", "393217", "393216"]),
    ({"max_tokens": 1.5}, ["max_tokens", "1.5"]),
    ({"thinking_budget": 0}, ["thinking_budget", "0", "1"]),
    ({"thinking_budget": 400_000}, ["thinking_budget", "400000", "393216"]),
    ({"thinking_budget": True}, ["thinking_budget", "True"]),
    ({"reasoning_effort": "extreme"}, ["reasoning_effort", "extreme", "max"]),
    ({"enable_thinking": "no"}, ["enable_thinking", "no"]),
    ({"stop": ["a", "b", "c", "d", "e"]}, ["stop", "5", "4"]),
    ({"stop": ["a", ""]}, ["stop", "empty"]),
    ({"send_back_reasoning": "sometimes"}, ["send_back_reasoning", "sometimes"]),
    ({"reasoning_effort": "none", "enable_thinking": True}, ["reasoning_effort", "enable_thinking"]),
    ({"reasoning_effort": "none", "thinking_budget": 5}, ["reasoning_effort", "thinking_budget=5"]),
    ({"enable_thinking": False, "thinking_budget": 5}, ["enable_thinking", "thinking_budget=5"]),
    ({"enable_thinking": False, "reasoning_effort": "low"}, ["enable_thinking", "reasoning_effort='low'"]),
    ({"temprature": 1}, ["temprature", "temperature", "extra_body"]),
    ({"wholly_unknown": 1}, ["wholly_unknown", "extra_body"]),
    ({"model_kwargs": {"temprature": 1}}, ["temprature"]),
    ({"extra_body": {"messages": []}}, ["messages"]),
    ({"extra_body": "x"}, ["extra_body", "dict"]),
    ({"timeout": -1}, ["timeout", "-1"]),
    ({"timeout": {"read": 5}}, ["timeout", "read"]),
    ({"max_retries": -1}, ["max_retries", "-1", "0"]),
    ({"max_retries": "3"}, ["max_retries", "3"]),
    ({"timeout": math.inf}, ["timeout", "inf"]),
    ({"model": ""}, ["model"]),
]


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=[str(arguments)[:50] for arguments, _ in BAD])
@pytest.mark.parametrize("owner", CLASSES)
def test_bad_arguments_are_refused(owner: type[Settings], arguments: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(SettingsError) as constructed:
        owner(api_key=KEY, **arguments)
    with pytest.raises(SettingsError) as called:
        body(owner(api_key=KEY), **arguments)
    for error in (constructed, called):
        text = str(error.value)
        assert all(word in text for word in told), text
        assert KEY not in text
        assert text.endswith(".")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ("x", "dict"),
        ({f"a: {KEY}": "1"}, "begins with 'a'"),
        ({"x": f"é {KEY}"}, "'x'"),
        ({"x": f"1\n{KEY}"}, "'x'"),
        ({"x": 1}, "'x'"),
    ],
)
def test_headers_that_cannot_be_sent(headers: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=f"extra_headers.*{told}") as called:
        body(extra_headers=headers)
    with pytest.raises(SettingsError, match="default_headers") as constructed:
        Settings(api_key=KEY, default_headers=headers)
    assert KEY not in f"{called.value}{constructed.value}"


def test_a_header_can_be_left_out_of_a_call(sandbox: Sandbox, where: dict[str, Any]) -> None:
    ChatEmpirioLabs(**where).invoke("x", extra_headers={"X-Stainless-Lang": openai.Omit(), "x-mine": "a\tb"})
    headers = sandbox.requests[0].headers
    assert "x-stainless-lang" not in headers
    assert headers["x-mine"] == "a\tb"


def test_a_time_out_under_two_names() -> None:
    with pytest.raises(SettingsError, match="'timeout' was given twice"):
        body(timeout=5, request_timeout=6)


def test_none_is_a_value_where_the_field_takes_it() -> None:
    class Limited(ChatEmpirioLabs):
        limit: int | None = 5

    mine: Any = Limited
    assert mine(api_key=KEY, limit=None).limit is None
    assert mine(api_key=KEY).limit == 5


@pytest.mark.parametrize("owner", CLASSES)
@pytest.mark.parametrize("arguments", [{"api_key": KEY}, {"base_url": "x"}, {"default_headers": {"x": KEY}}])
def test_a_constructors_argument_on_a_call(owner: type[Settings], arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(arguments))!r} is a constructor argument") as refused:
        body(owner(api_key=KEY), **arguments)
    assert "extra_body" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"tools": [len]}, "tools cannot be sent"),
        ({"response_format": int}, "response_format must be a dict or a pydantic class"),
        ({"seed": math.nan}, "seed cannot be sent"),
        ({"extra_body": {"other": {"key": KEY, "until": object()}}}, "other cannot be sent"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"x": object()}}}},
            "response_format cannot be sent",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format has no schema"),
        ({"stream_options": "x"}, "stream_options must be a dict, .* got 'x'"),
    ],
)
def test_what_is_no_json_is_refused(sandbox: Sandbox, where: dict[str, Any], call: dict[str, Any], told: str) -> None:
    llm = ChatEmpirioLabs(**where)
    with pytest.raises(SettingsError, match=told) as refused:
        list(llm.stream("x", **call))
    assert KEY not in str(refused.value)
    if "stream_options" not in call:
        with pytest.raises(SettingsError, match=told):
            llm.invoke("x", **call)
    assert not sandbox.requests


@pytest.mark.parametrize("owner", CLASSES)
@pytest.mark.parametrize("value", [5, "proxy", None])
@pytest.mark.parametrize("name", ["http_client", "http_async_client"])
def test_what_is_no_http_client(owner: type[Settings], name: str, value: Any) -> None:
    # The third is the other one.
    other = openai.DefaultHttpxClient if "async" in name else openai.DefaultAsyncHttpxClient
    with pytest.raises(SettingsError, match=f"{name} must be an openai"):
        owner(api_key=KEY, **{name: value or other()})


@pytest.mark.parametrize(
    ("owner", "arguments", "told"),
    [
        (EmpirioLabsEmbeddings, {"extra_body": {}}, "has no argument 'extra_body'.$"),
        (EmpirioLabsEmbeddings, {"top_p": 0.5}, "has no argument 'top_p'.$"),
        (EmpirioLabsEmbeddings, {"chunk_size": 5, "batch_size": 5}, "'batch_size' was given twice"),
        (EmpirioLabsRerank, {"top_k": 3}, "Did you mean 'top_n'"),
    ],
)
def test_advice_leads_somewhere(owner: Any, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        owner(api_key=KEY, **arguments)


@pytest.mark.parametrize("owner", CLASSES)
@pytest.mark.parametrize("name", ["extra_body", "model_kwargs"])
def test_a_typed_field_in_a_dictionary_counts_where_none_was_given_by_name(owner: Any, name: str) -> None:
    held = {"temperature": 0.5, "seed": 7}
    assert body(owner(api_key=KEY, temperature=None, **{name: held}))["temperature"] == 0.5
    assert body(owner(api_key=KEY).model_copy(update={name: held}))["temperature"] == 0.5
    assert body(owner(api_key=KEY), temperature=None, **{name: held})["temperature"] == 0.5
    assert body(owner(api_key=KEY), temperature=1, **{name: held})["temperature"] == 1


@pytest.mark.parametrize("owner", CLASSES)
def test_none_is_not_set(owner: type[Settings]) -> None:
    arguments: dict[str, Any] = dict.fromkeys(owner.model_fields)
    unset = owner(**{**arguments, "api_key": KEY})
    assert (unset.model, unset.max_retries, unset.stream_usage) == (DEFAULT_MODEL, 2, True)
    assert body(unset) == body(Settings(api_key=KEY))


def test_a_standard_field_of_a_call_replaces_the_models() -> None:
    settings = Settings(
        api_key=KEY, model="other", response_format={"type": "json_schema", "json_schema": {"name": "A"}}
    )
    assert body(settings, response_format={"type": "text"})["response_format"] == {"type": "text"}


def test_stream_options_go_with_streams_only() -> None:
    settings = Settings(api_key=KEY, stream_options={"include_usage": False})
    assert "stream_options" not in body(settings)
    assert body(settings, stream=True)["stream_options"] == {"include_usage": False}


@pytest.mark.parametrize("owner", CLASSES)
def test_a_timeout_of_the_client_survives_json(owner: Any) -> None:
    before = owner(api_key=KEY, timeout=openai.Timeout(5, connect=1))
    after = owner(api_key=KEY, timeout=json.loads(before.model_dump_json())["timeout"])
    assert after.timeout == before.timeout


def test_assigned_values_are_checked_when_they_are_used(sandbox: Sandbox) -> None:
    settings: Any = Settings(api_key=KEY)
    settings.timeout, settings.api_key = None, "sk-other"
    assert settings.gateway.connection.timeout == 900
    assert settings.gateway.connection.api_key.get_secret_value() == "sk-other"
    settings.max_retries = "x"
    with pytest.raises(SettingsError, match="max_retries"):
        settings.gateway


@pytest.mark.parametrize("owner", CLASSES)
@pytest.mark.parametrize(
    "arguments", [{"base_url": "gateway.invalid/v1"}, {"base_url": "ftp://gateway.invalid"}, {"max_retries": -1}]
)
def test_bad_connections_are_refused(owner: type[Settings], arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(arguments))):
        owner(api_key=KEY, **arguments)


@pytest.mark.parametrize("key", ["sk-canary\n", "sk canary", "sk-\u2028canary", ""])
def test_a_malformed_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(SettingsError, match="EMPIRIOLABS_API_KEY") as refused:
        ChatEmpirioLabs(api_key=key)
    assert not key or key not in str(refused.value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("ask", [lambda: ChatEmpirioLabs().invoke("Hello"), lambda: EmpirioLabs().complete("Hello")])
def test_a_missing_key_is_told_before_anything_is_sent(ask: Callable[[], Any]) -> None:
    with pytest.raises(MissingKeyError, match="EMPIRIOLABS_API_KEY"):
        ask()


def test_defaults() -> None:
    settings = Settings()
    assert settings.model == DEFAULT_MODEL == "deepseek-v4-flash"
    assert settings.base_url == DEFAULT_API_BASE
    assert settings.timeout == 900
    assert body() == {"model": DEFAULT_MODEL, "messages": [USER]}
    assert body(stream=True)["stream_options"] == {"include_usage": True}


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", KEY)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", "http://gateway.invalid/v1/")
    for settings in (Settings(), Settings(api_key=None, base_url=None)):
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == KEY
        assert settings.base_url == "http://gateway.invalid/v1"


@pytest.mark.parametrize(
    ("spelling", "name", "value"),
    [
        ("model_name", "model", "x"),
        ("empiriolabs_api_base", "base_url", "http://x.invalid/v1"),
        ("api_base", "base_url", "http://x.invalid/v1"),
        ("request_timeout", "timeout", 5),
        ("stop_sequences", "stop", ["a"]),
        ("additional_kwargs", "model_kwargs", {"seed": 1}),
        ("max_completion_tokens", "max_tokens", 5),
    ],
)
@pytest.mark.parametrize("owner", CLASSES)
def test_other_spellings(owner: type[Settings], spelling: str, name: str, value: Any) -> None:
    assert getattr(owner(**{spelling: value}), name) == value
    with pytest.raises(SettingsError, match="twice"):
        owner(**{spelling: value, name: value})


@pytest.mark.parametrize("owner", CLASSES)
def test_standard_fields_and_extra_body(owner: type[Settings]) -> None:
    settings = owner(api_key=KEY, seed=7, extra_body={"own": {"a": 1}, "thinking_budget": 9, "user": "me"})
    assert settings.thinking_budget == 9
    assert settings.extra_body == {"own": {"a": 1}}
    sent = body(settings, seed=8, extra_body={"own": {"b": 2}})
    assert (sent["seed"], sent["user"], sent["own"], sent["thinking_budget"]) == (8, "me", {"a": 1, "b": 2}, 9)
    assert settings.extra_body == {"own": {"a": 1}}


@pytest.mark.parametrize("owner", CLASSES)
@pytest.mark.parametrize("spelling", ["additional_kwargs", "model_kwargs"])
def test_extra_body_within_further_fields(owner: type[Settings], spelling: str) -> None:
    """The place that OpenAILike of LlamaIndex has for it."""
    settings = owner(api_key=KEY, **{spelling: {"seed": 7, "extra_body": {"own": 1, "web_search_linkup": True}}})
    assert settings.web_search_linkup is True
    assert settings.extra_body == {"own": 1}
    sent = body(settings, **{spelling: {"extra_body": {"thinking_budget": 9}}})
    assert (sent["seed"], sent["own"], sent["web_search_linkup"], sent["thinking_budget"]) == (7, 1, True, 9)


def test_no_messages() -> None:
    with pytest.raises(SettingsError, match="messages must not be empty"):
        body(messages=[])


def test_a_timeout_of_the_client_is_taken() -> None:
    timeout = openai.Timeout(5, connect=1)
    assert Settings(timeout=timeout).timeout is timeout
    assert Settings(timeout=None).timeout == 900


# Wire rules


@pytest.mark.parametrize("model", [*(model for model in CARDS if model.startswith("deepseek-v4-")), *FURTHER_MODELS])
def test_an_empty_reasoning_fills_in_where_the_model_insists(model: str) -> None:
    messages = [USER, CALLED, RESULT]
    assert body(Settings(model=model), messages)["messages"][1] == {**CALLED, "reasoning_content": ""}
    assert body(Settings(model=model, enable_thinking=False), messages)["messages"][1] == CALLED
    assert body(Settings(model=model, send_back_reasoning="never"), messages)["messages"][1] == CALLED
    assert body(Settings(model="other"), messages)["messages"][1] == CALLED
    assert "reasoning_content" not in CALLED


SPOKEN = {"role": "assistant", "content": "Hi", "reasoning_content": "a"}
MUTE = {"role": "assistant", "content": "Ho"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
PLAIN_TURNS, LOOP = [USER, SPOKEN, USER, MUTE, USER], [USER, SPOKEN, USER, CALLED, RESULT, SPOKEN, USER, MUTE, USER]


def reasoning_sent(settings: Settings, messages: Any, **call: Any) -> list[str | None]:
    """Return the reasoning of each assistant turn of a request; `None` where the field is missing."""
    sent = body(settings, messages, **call)["messages"]
    return [message.get("reasoning_content") for message in sent if message["role"] == "assistant"]


@pytest.mark.parametrize(
    ("policy", "plain", "with_tools", "loop"),
    [
        ("tool_calls", [None, None], ["a", None], ["a", "", "a", None]),
        ("always", ["a", None], ["a", None], ["a", "", "a", None]),
        ("never", [None, None], [None, None], [None, None, None, None]),
    ],
)
def test_send_back_reasoning(policy: Any, plain: Any, with_tools: Any, loop: Any) -> None:
    settings = Settings(send_back_reasoning=policy)
    assert reasoning_sent(settings, PLAIN_TURNS) == plain
    assert reasoning_sent(settings, PLAIN_TURNS, tools=TOOLS) == with_tools
    assert reasoning_sent(settings, PLAIN_TURNS, extra_body={"tools": TOOLS}) == with_tools
    assert reasoning_sent(settings, PLAIN_TURNS, tools=[]) == plain
    assert reasoning_sent(settings, LOOP) == loop
    # With thinking off, or for a model without a card, the same reasoning is sent, but no empty one is added.
    unfilled = [reasoning or None for reasoning in loop]
    assert reasoning_sent(Settings(send_back_reasoning=policy, enable_thinking=False), LOOP) == unfilled
    assert reasoning_sent(Settings(send_back_reasoning=policy, model="other"), LOOP) == unfilled
    assert SPOKEN["reasoning_content"] == "a"


@pytest.mark.parametrize("policy", ["tool_calls", "always"])
def test_plain_turns_get_no_empty_reasoning(policy: Any) -> None:
    empty = {**MUTE, "reasoning_content": ""}
    assert reasoning_sent(Settings(send_back_reasoning=policy), [USER, empty, USER], tools=TOOLS) == [None]


FORCED = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}


def test_a_forced_choice_turns_thinking_off() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sent = body(**FORCED)
        assert (sent["enable_thinking"], sent["tool_choice"]) == (False, "required")
        assert "enable_thinking" not in body(Settings(model="other"), **FORCED)
        assert body(Settings(enable_thinking=False), **FORCED)["enable_thinking"] is False
        assert "enable_thinking" not in body(Settings(reasoning_effort="none"), **FORCED)
    for asked in ({"enable_thinking": True}, {"thinking_budget": 9}, {"reasoning_effort": "high"}):
        for model in (DEFAULT_MODEL, "other"):
            with pytest.warns(UserWarning, match="cannot think while a tool is forced") as told:
                sent = body(Settings(model=model, **asked), **FORCED)
            assert len(told) == 1
            assert sent["enable_thinking"] is False
            assert not {"thinking_budget", "reasoning_effort"} & set(sent)


def test_auto_is_left_out_and_an_empty_list_of_tools_too() -> None:
    assert "tool_choice" not in body(tools=FORCED["tools"], tool_choice="auto")
    assert body(tools=FORCED["tools"], tool_choice="none")["tool_choice"] == "none"
    assert set(body(tools=[], tool_choice="required", parallel_tool_calls=False)) == {"model", "messages"}


def test_json_with_search_leaves_the_footer_out() -> None:
    wants = {"response_format": {"type": "json_object"}}
    assert body(Settings(web_search_linkup=True), **wants)["disable_formatting"] is True
    assert body(Settings(web_search_linkup=True, disable_formatting=False), **wants)["disable_formatting"] is False
    assert "disable_formatting" not in body(Settings(web_search_linkup=True))
    assert "disable_formatting" not in body(**wants)


def test_a_call_replaces_the_thinking_controls() -> None:
    settings = Settings(reasoning_effort="high")
    assert {name for name in body(settings, enable_thinking=False) if "hinking" in name or "eason" in name} == {
        "enable_thinking"
    }
    assert body(settings, temperature=0.5)["reasoning_effort"] == "high"
    assert body(settings, reasoning_effort=None)["reasoning_effort"] == "high"


def test_a_schema_goes_into_a_message_where_the_model_takes_none() -> None:
    wants = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": "T"}}}}
    system = {"role": "system", "content": "Be brief."}
    sent = body(messages=[system, USER], **wants)
    assert sent["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in sent["messages"]] == ["system", "system", "user"]
    assert '{"title": "T"}' in sent["messages"][1]["content"]
    assert body(Settings(model="other"), **wants)["response_format"]["type"] == "json_schema"


def test_content_that_the_model_cannot_take_is_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": "http://x.invalid/a.png"}}
    with pytest.raises(UnsupportedContentError, match=r"message 0 \(user\) contains image content"):
        body(messages=[{"role": "user", "content": [part]}])
    assert body(Settings(model="other"), [{"role": "user", "content": [part]}])["messages"][0]["content"] == [part]


def test_a_stream_asks_for_usage() -> None:
    assert body(Settings(stream_usage=False), stream=True) == {
        "model": DEFAULT_MODEL,
        "messages": [USER],
        "stream": True,
    }
    sent = body(stream=True, stream_options={"include_obfuscation": False})
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@given(
    st.dictionaries(
        st.sampled_from([*Settings.model_fields, "seed", "n", "junk"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.text())
        | st.dictionaries(st.text(), st.integers()),
    )
)
def test_nothing_but_settings_errors_comes_out(arguments: dict[str, Any]) -> None:
    try:
        sent = body(Settings(**{"api_key": KEY, **arguments}))
    except SettingsError:
        return
    assert None not in sent.values()


# Secrets and copies


@pytest.mark.parametrize("owner", CLASSES)
def test_the_key_stays_here(owner: type[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = owner(api_key=KEY, default_headers={"x-other-key": KEY}, http_client=openai.DefaultHttpxClient())
    assert settings.gateway.client
    for shown in (repr(settings), str(settings), repr(settings.gateway.connection), str(settings.model_dump())):
        assert KEY not in shown
    assert KEY.encode() not in pickle.dumps(settings)
    loaded = pickle.loads(pickle.dumps(settings))
    assert loaded.api_key is None
    assert loaded.http_client is None
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", KEY)
    again = pickle.loads(pickle.dumps(settings))
    assert again.api_key.get_secret_value() == KEY


@pytest.mark.parametrize("owner", CLASSES)
def test_copies_have_clients_of_their_own(owner: type[Settings], sandbox: Sandbox) -> None:
    settings = owner(api_key=sandbox.api_key, base_url=sandbox.base_url, http_client=openai.DefaultHttpxClient())
    first = settings.gateway
    assert first is settings.gateway
    assert copy.deepcopy(settings).gateway is not first
    other = settings.model_copy(update={"base_url": "http://127.0.0.2:9/v1"})
    assert other.gateway.connection.base_url == "http://127.0.0.2:9/v1"
    assert settings.gateway is first


@pytest.mark.parametrize("owner", CLASSES)
def test_positional_arguments_are_told(owner: Any) -> None:
    name = owner.__name__
    with pytest.raises(TypeError, match=rf"{name} accepts only keyword arguments: {name}\(model='deepseek-v4-flash'\)"):
        owner("deepseek-v4-flash")
    with pytest.raises(TypeError, match=r"\(model=\.\.\.\)"):
        owner(KEY)
