"""The field `endpoint`: accepted values, and values that are rejected before a request is sent."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from empiriolabs_core.catalog import CARDS, ModelCard
from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.errors import ReportedError, SettingsError
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

HELLO = {"role": "user", "content": "Hello"}
CLASSES = pytest.mark.parametrize("owner", [Settings, ChatEmpirioLabs, EmpirioLabs])


def settings(**given: Any) -> Settings:
    return Settings(api_key="sk-0", **given)


@CLASSES
def test_the_field(owner: Any) -> None:
    assert owner(api_key="sk-0").endpoint == "chat/completions"
    for name in ENDPOINTS:
        assert owner(api_key="sk-0", endpoint=name).endpoint == name
    assert owner(api_key="sk-0", use_responses_api=True).endpoint == "responses"
    assert owner(api_key="sk-0", use_responses_api=False).endpoint == "chat/completions"
    assert owner(api_key="sk-0", use_responses_api=None).endpoint == "chat/completions"
    with pytest.raises(SettingsError, match="given twice"):
        owner(api_key="sk-0", endpoint="messages", use_responses_api=True)


@CLASSES
@pytest.mark.parametrize("value", ["chat", "", "completions", 3, ["messages"], "v1/messages"])
def test_other_values(owner: Any, value: Any) -> None:
    with pytest.raises(SettingsError, match="endpoint must be one of 'chat/completions', 'responses', 'messages', got"):
        owner(api_key="sk-0", endpoint=value)


@pytest.mark.parametrize(
    "value", ["https://user:sk-secret@api.example/v1", "/v1/responses", "api.example.com", "api.example.com:8080/v1"]
)
def test_a_url_is_told_to_be_the_base_url(value: str) -> None:
    with pytest.raises(SettingsError, match=r"got a URL or path\. Set the URL of the API with base_url") as raised:
        settings(endpoint=value)
    assert "secret" not in str(raised.value)


def test_a_call_chooses_its_endpoint() -> None:
    model = settings(endpoint="responses")
    paths = [
        model.request([HELLO], call, stream=False).endpoint.path
        for call in ({}, {"endpoint": "messages"}, {"use_responses_api": False}, {"endpoint": None})
    ]
    assert paths == ["/responses", "/messages", "/chat/completions", "/responses"]
    restored = pickle.loads(pickle.dumps(ChatEmpirioLabs(api_key="sk-0", endpoint="messages")))
    assert restored.endpoint == "messages"


def test_the_card_lists_the_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CARDS, "x", ModelCard("x", "X", endpoints=("POST /v1/chat/completions", "POST /v1/messages")))
    assert settings(model="x", endpoint="messages").endpoint == "messages"
    told = "x does not support endpoint='responses'. It supports: POST /v1/chat/completions, POST /v1/messages."
    with pytest.raises(SettingsError) as raised:
        settings(model="x", endpoint="responses")
    assert str(raised.value) == told
    with pytest.raises(SettingsError, match="text-embedding-v4 does not support endpoint='chat/completions'"):
        settings(model="text-embedding-v4")
    # A model without a card, or whose card lists none, may be on any.
    assert settings(model="unknown", endpoint="responses").endpoint == "responses"


@pytest.mark.parametrize(
    ("endpoint", "call"),
    [
        ("responses", {"stop": ["END"]}),
        ("responses", {"seed": 7}),
        ("messages", {"logprobs": True}),
        ("messages", {"model_kwargs": {"n": 2}}),
        ("messages", {"metadata": {"a": "b"}}),
        ("messages", {"extra_body": {"presence_penalty": 1}}),
    ],
)
def test_what_an_endpoint_cannot_express(endpoint: str, call: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"endpoint='{endpoint}' does not support"):
        settings().request([HELLO], {**call, "endpoint": endpoint}, stream=False)


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_the_internal_form_is_the_same_on_each(endpoint: str) -> None:
    """Costs and citations read it."""
    call = {"max_tokens": 5, "web_search_linkup": True, "reasoning_effort": "low"}
    chat = settings().request([HELLO], call, stream=True)
    other = settings(endpoint=endpoint).request([HELLO], call, stream=True)
    assert other.body == chat.body == chat.sent
    assert other.sent != chat.sent
    assert other.sent["web_search_linkup"] is True
    assert "stream_options" not in other.sent


def test_a_forced_tool_turns_thinking_off_and_sends_no_effort() -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    for endpoint in ("responses", "messages"):
        with pytest.warns(UserWarning, match="cannot think while a tool is forced"):
            sent = (
                settings(endpoint=endpoint, reasoning_effort="high")
                .request([HELLO], {"tools": [tool], "tool_choice": "required"}, stream=False)
                .sent
            )
        assert sent["enable_thinking"] is False
        assert not {"reasoning", "reasoning_effort", "output_config"} & sent.keys()


def test_the_code_of_a_reported_error_is_its_type_where_there_is_no_other() -> None:
    assert ReportedError("x", {"type": "overloaded_error"}).code == "overloaded_error"
    assert ReportedError("x", {"type": "a", "code": "b"}).code == "b"
