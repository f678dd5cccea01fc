"""The same conversation and settings give the same request body from both adapters, and the same answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, TextBlock

from empiriolabs_core.errors import UnsupportedContentError
from empiriolabs_core.sandbox import Answer, Sandbox
from empiriolabs_core.settings import RequestFields
from langchain_empiriolabs.messages import convert_messages
from llamaindex_empiriolabs.messages import to_wire
from tests.drivers import DRIVERS, WEATHER, Case, canonical

LOOP = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Paris and Ὀλυμπία? 🌦"},
    {
        "role": "assistant",
        "reasoning": "I should look.",
        "tool_calls": [{"id": "call_1", "name": "get_weather", "arguments": {"city": "Paris", "n": 1.5}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
    {"role": "assistant", "content": "Sunny.", "reasoning": "It said so."},
    {"role": "user", "content": "And now?"},
)
WITHOUT_REASONING = (
    *LOOP[:2],
    {"role": "assistant", "tool_calls": LOOP[2]["tool_calls"]},
    *LOOP[3:],
)
SETTINGS: dict[str, Any] = {
    "model": "deepseek-v4-pro:variant2",
    "temperature": 0.3,
    "top_p": 0.5,
    "max_tokens": 300,
    "stop": ["never said"],
    "enable_thinking": True,
    "thinking_budget": 128,
    "reasoning_effort": "high",
    "web_search_linkup": True,
    "disable_formatting": True,
    "send_back_reasoning": "always",
    "endpoint": "chat/completions",
    "stream_usage": False,
    "extra_body": {"service_hint": {"a": [1, None]}},
    "model_kwargs": {"seed": 7},
}
CASES = [
    Case("plain"),
    *[Case(f"field_{name}", settings={name: value}) for name, value in SETTINGS.items()],
    *[Case(f"call_{name}", call={name: value}) for name, value in SETTINGS.items()],
    Case("effort_none", settings={"reasoning_effort": "none"}),
    Case("thinking_off", settings={"enable_thinking": False}),
    Case("all_fields", conversation=LOOP, settings=SETTINGS),
    Case("call_over_constructor", settings={"temperature": 0.1, "max_tokens": 90}, call={"temperature": 0.0}),
    Case("call_replaces_thinking", settings={"reasoning_effort": "high"}, call={"enable_thinking": False}),
    Case("extra_body_merged", settings={"extra_body": {"a": {"x": 1}}}, call={"extra_body": {"a": {"y": 2}}}),
    Case("known_in_extra_body", settings={"extra_body": {"enable_thinking": False, "seed": 3}}),
    Case("tool_loop", conversation=LOOP, call={"tools": [WEATHER]}),
    Case("tool_loop_never", conversation=LOOP, settings={"send_back_reasoning": "never", "enable_thinking": False}),
    Case("tool_loop_always", conversation=LOOP, settings={"send_back_reasoning": "always"}),
    Case("tool_loop_without_reasoning", conversation=WITHOUT_REASONING, call={"tools": [WEATHER]}),
    Case("tool_loop_family", conversation=WITHOUT_REASONING, settings={"model": "deepseek-v4-pro-0813"}),
    Case(
        "forced_tool_family",
        settings={"model": "deepseek-v4-1-flash"},
        call={"tools": [WEATHER], "tool_choice": "required"},
    ),
    Case("tool_choice_auto", call={"tools": [WEATHER], "tool_choice": "auto"}),
    Case("tool_choice_required", call={"tools": [WEATHER], "tool_choice": "required"}),
    Case("no_tools", call={"tools": [], "tool_choice": "required", "parallel_tool_calls": True}),
    Case(
        "json_mode_with_search",
        settings={"web_search_linkup": True},
        call={"response_format": {"type": "json_object"}},
        conversation=({"role": "user", "content": "Answer as json with 'city'."},),
    ),
    Case(
        "json_schema",
        call={"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {}}}}},
    ),
    Case("options", call={"timeout": 30, "total_timeout": 60, "max_retries": 1, "extra_headers": {"x-trace": "1"}}),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_body_and_answer(case: Case, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    results = {name: drive(case, where, stream) for name, drive in DRIVERS.items()}
    bodies = [canonical(request.body) for request in sandbox.requests]
    assert len(bodies) == len(DRIVERS)
    assert len(set(bodies)) == 1, bodies
    # Everything is equal except the cached tokens, which grow with each call.
    for result in results.values():
        if result.usage:
            result.usage["cached"] = None
    assert len({repr(result) for result in results.values()}) == 1, results


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", DRIVERS)
def test_the_reasoning_of_a_closing_answer_goes_back(
    name: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    """With tools, the strict sandbox rejects a conversation if a plain answer lacks its reasoning."""
    drive, asked = DRIVERS[name], {"role": "user", "content": "Hello"}
    sandbox.script(Answer("It is 5.", reasoning="Two and three."))
    first = drive(Case("first", call={"tools": [WEATHER]}), where, stream)
    history = [asked, {"role": "assistant", "content": first.text, "reasoning": first.reasoning}, asked]
    again = Case("again", conversation=history, call={"tools": [WEATHER]})
    assert drive(again, where, stream).text
    assert sandbox.requests[-1].body["messages"][1]["reasoning_content"] == "Two and three."
    with pytest.raises(openai.BadRequestError, match="must be passed back"):
        drive(replace(again, settings={"send_back_reasoning": "never"}), where, stream)
    # Without tools, servers ignore reasoning, so it is neither sent nor required.
    drive(replace(again, call={}), where, stream)
    assert "reasoning_content" not in sandbox.requests[-1].body["messages"][1]


@pytest.mark.parametrize("name", DRIVERS)
def test_an_image_for_a_family_that_accepts_images(name: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    url = {"url": "http://127.0.0.1/a.png"}
    image = [{"type": "image_url", "image_url": url}]
    for model, taken in (("deepseek-v4-1-flash", True), ("deepseek-v4-flash-0731", False)):
        case = Case("image", conversation=[{"role": "user", "content": image}], settings={"model": model})
        if not taken:
            with pytest.raises(UnsupportedContentError, match="contains image content"):
                DRIVERS[name](case, where, False)
            continue
        assert DRIVERS[name](case, where, False).text
        assert sandbox.requests[-1].body["messages"][0]["content"] == image


def test_every_typed_field_is_covered() -> None:
    assert set(SETTINGS) == set(RequestFields.model_fields)


def test_every_typed_field_is_on_the_wire(sandbox: Sandbox, where: dict[str, Any]) -> None:
    for drive in DRIVERS.values():
        drive(Case("all", settings=SETTINGS), where, True)
        sent = sandbox.requests[-1].body
        ours = {"send_back_reasoning", "endpoint", "stream_usage", "extra_body", "model_kwargs"}
        assert {name: sent[name] for name in SETTINGS if name not in ours} == {
            name: value for name, value in SETTINGS.items() if name not in ours
        }
        assert sent["seed"] == 7
        assert sent["service_hint"] == {"a": [1, None]}
        assert "stream_options" not in sent
        assert "max_completion_tokens" not in sent


def test_items_of_a_tool_result_stay_apart() -> None:
    """A tool of an MCP server returns a list as one text block per item."""
    items = ["snow", "wind"]
    blocks: list[Any] = [{"type": "text", "text": item} for item in items]
    wire = [{"role": "tool", "tool_call_id": "1", "content": "snow\nwind"}]
    assert convert_messages([ToolMessage(blocks, tool_call_id="1")]) == wire
    anthropic: list[Any] = [{"type": "tool_result", "tool_use_id": "1", "content": blocks}]
    assert convert_messages([HumanMessage(anthropic)]) == wire
    told = ChatMessage(role="tool", blocks=[TextBlock(text=item) for item in items])
    told.additional_kwargs["tool_call_id"] = "1"
    assert to_wire([told]) == wire
