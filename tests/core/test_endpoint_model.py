"""llama.cpp's own server with a small real model, on all three endpoints.

The same conversation must take the same number of prompt tokens on each: so nothing is lost or added on the way to the
model's template.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.sandbox.local_model import LocalModel
from tests.drivers import DRIVERS, WEATHER, Case

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.slow,
    # So few tokens end in the model's thoughts.
    pytest.mark.filterwarnings("ignore:The answer is empty"),
    pytest.mark.timeout(300),
]

HELLO = {"role": "user", "content": "Say hello."}
LOOP = (
    {"role": "system", "content": "Use tools."},
    {"role": "user", "content": "What is the weather in Paris?"},
    {
        "role": "assistant",
        "content": "I look it up.",
        "reasoning": "The tool knows.",
        "tool_calls": [{"id": "call_1", "name": "get_weather", "arguments": {"city": "Paris"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "18 C, sunny"},
)
THINKING: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
WEATHER_QUESTION = {"role": "user", "content": "Weather in Paris?"}
FORCED = {"type": "function", "function": {"name": "get_weather"}}
CASES = [
    Case("text", [HELLO]),
    Case("system", [{"role": "system", "content": "Be short."}, HELLO]),
    Case("turns", [HELLO, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again."}]),
    Case("thinking", [HELLO], call={"extra_body": THINKING}),
    Case("required", [WEATHER_QUESTION], call={"tools": [WEATHER], "tool_choice": "required"}),
    Case("named", [WEATHER_QUESTION], call={"tools": [WEATHER], "tool_choice": FORCED}),
    Case("loop", LOOP, call={"tools": [WEATHER]}),
    Case("loop without content", [*LOOP[:2], {**LOOP[2], "content": ""}, LOOP[3]], call={"tools": [WEATHER]}),
    Case("loop with empty reasoning", [*LOOP[:2], {**LOOP[2], "reasoning": ""}, LOOP[3]], call={"tools": [WEATHER]}),
]


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    running = LocalModel()
    yield running
    running.stop()


def _settings(model: LocalModel, endpoint: str, max_tokens: int) -> dict[str, Any]:
    return {
        "model": "smollm2-135m",
        "base_url": model.base_url,
        "api_key": "local",
        "max_tokens": max_tokens,
        "temperature": 0,
        "endpoint": endpoint,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_prompt_has_as_many_tokens_on_each_endpoint(case: Case, model: LocalModel) -> None:
    adapters = zip(ENDPOINTS, ("langchain", "llamaindex-async", "langchain"), strict=True)
    results = [DRIVERS[adapter](case, _settings(model, endpoint, 2), False) for endpoint, adapter in adapters]
    counts = [result.usage["input"] for result in results if result.usage]
    assert len(counts) == len(ENDPOINTS)
    assert len(set(counts)) == 1, counts


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("adapter", ["langchain-async", "llamaindex"])
def test_streams(endpoint: str, adapter: str, model: LocalModel) -> None:
    drive = DRIVERS[adapter]
    text = drive(CASES[0], _settings(model, endpoint, 12), True)
    assert text.text
    assert text.usage
    whole = drive(CASES[0], _settings(model, endpoint, 12), False)
    assert (whole.text, whole.usage["output"] if whole.usage else 0) == (text.text, text.usage["output"])
    thought = drive(CASES[3], _settings(model, endpoint, 24), True)
    assert thought.reasoning
    called = drive(CASES[4], _settings(model, endpoint, 60), True)
    assert [name for name, _ in called.tool_calls] == ["get_weather"]
    assert isinstance(called.tool_calls[0][1], dict)
    assert called.finish_reason == "tool_calls"
