"""One cassette for each wire case, replayed by both adapters, sync and async.

The folder of a cassette says where it was recorded: `sandbox` and `local_model` are no recordings of the live
gateway. See the README of each.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from empiriolabs_core.errors import (
    DEFAULT_API_BASE,
    ContextOverflowError,
    IncompleteStreamError,
    InsufficientCreditsError,
    ReportedError,
)
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.sandbox.local_model import LocalModel
from tests.drivers import DRIVERS, WEATHER, Case, Result
from tests.recording import is_live, is_recording

HERE = Path(__file__).parent
WEATHER_QUESTION = ({"role": "user", "content": "What is the weather in Paris?"},)
AFTER_TOOL = (
    *WEATHER_QUESTION,
    {
        "role": "assistant",
        "reasoning": "I should call get_weather.",
        "tool_calls": [{"id": "call_1", "name": "get_weather", "arguments": {"city": "Paris"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees"},
)
TIME = {**WEATHER, "function": {**WEATHER["function"], "name": "get_time"}}  # type: ignore[dict-item]


def _deltas(*calls: list[dict[str, Any]]) -> Answer:
    """Return an answer that streams these `tool_calls` deltas, one chunk each."""
    head: dict[str, Any] = {"id": "chatcmpl-odd", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"tool_calls": deltas}}]} for deltas in calls]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    return Answer(chunks=[*chunks, end])


def _delta(index: int | None, arguments: str, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    delta: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name is not None:
        delta["function"]["name"] = name
    return {**delta, "id": call_id} if call_id is not None else delta


PARIS_AND_ROME = [("get_weather", {"city": "Paris"}), ("get_time", {"city": "Rome"})]


@dataclass(frozen=True)
class Wire:
    """A wire case: what is asked, what the sandbox is told to do, and what must come of it."""

    case: Case
    check: Callable[[Result], None] | None = None
    raises: type[Exception] | None = None
    stream: bool = False
    script: tuple[Answer, ...] = ()
    faults: tuple[Fault | None, ...] = ()

    def __str__(self) -> str:
        return self.case.name


def _thinks(result: Result) -> None:
    assert result.reasoning
    assert result.text
    assert result.finish_reason == "stop"
    assert result.usage is not None
    assert result.usage["reasoning"]


def _answers_without_thinking(result: Result) -> None:
    assert not result.reasoning
    assert result.text


def _calls_weather(result: Result) -> None:
    assert result.tool_calls == [("get_weather", {"city": "Paris"})]
    assert result.finish_reason == "tool_calls"


def _calls_both(result: Result) -> None:
    assert result.tool_calls == PARIS_AND_ROME


def _tells_the_weather(result: Result) -> None:
    assert "21 degrees" in result.text


def _has_json(result: Result) -> None:
    assert set(json.loads(result.text)) == {"city"}


def _was_cut(result: Result) -> None:
    assert result.finish_reason == "length"


def _has_invalid_call(result: Result) -> None:
    ((name, arguments),) = result.tool_calls
    assert name == "get_weather"
    assert arguments.startswith('{"city": ')


def _lists_sources(result: Result) -> None:
    assert "https://" in result.text


TOOLS = {"tools": [WEATHER, TIME]}
JSON_QUESTION = ({"role": "user", "content": "Name a city. Answer in json with the key 'city'."},)
STATUSES: dict[str, tuple[int, type[Exception]]] = {
    "invalid_api_key": (401, openai.AuthenticationError),
    "insufficient_credits": (402, InsufficientCreditsError),
    "model_not_found": (404, openai.NotFoundError),
    "rate_limit_exceeded": (429, openai.RateLimitError),
    "upstream_error": (502, openai.InternalServerError),
    "model_unavailable": (503, openai.InternalServerError),
}
OVERFLOW = "This model's maximum context length is 1000000 tokens. However, you requested 1200000 tokens."

WIRES = [
    Wire(Case("thinking"), _thinks),
    Wire(Case("thinking_streamed"), _thinks, stream=True),
    Wire(Case("thinking_off", settings={"enable_thinking": False}), _answers_without_thinking),
    Wire(Case("thinking_off_streamed", settings={"reasoning_effort": "none"}), _answers_without_thinking, stream=True),
    Wire(
        Case("unicode_streamed", ({"role": "user", "content": "Repeat: 你好 🌦 \u2028 ﷺ"},)),
        stream=True,
        check=lambda result: _contains(result, "你好 🌦 \u2028 ﷺ"),
    ),
    Wire(Case("tool_call", WEATHER_QUESTION, call={"tools": [WEATHER]}), _calls_weather),
    Wire(Case("tool_call_streamed", WEATHER_QUESTION, call={"tools": [WEATHER]}), _calls_weather, stream=True),
    Wire(Case("tool_result", AFTER_TOOL, call={"tools": [WEATHER]}), _tells_the_weather),
    Wire(Case("tool_result_streamed", AFTER_TOOL, call={"tools": [WEATHER]}), _tells_the_weather, stream=True),
    Wire(
        Case("forced_tool_choice", WEATHER_QUESTION, call={"tools": [WEATHER], "tool_choice": "required"}),
        _calls_weather,
    ),
    Wire(Case("json_mode", JSON_QUESTION, call={"response_format": {"type": "json_object"}}), _has_json),
    Wire(Case("web_search", settings={"web_search_linkup": True}), _lists_sources),
    Wire(Case("web_search_streamed", settings={"web_search_linkup": True}), _lists_sources, stream=True),
    Wire(Case("cut_by_max_tokens", settings={"max_tokens": 18}), _was_cut),
    Wire(
        Case("tool_calls_in_one_chunk", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [_delta(0, '{"city": "Paris"}', "a", "get_weather"), _delta(1, '{"city": "Rome"}', "b", "get_time")]
            ),
        ),
    ),
    Wire(
        Case("tool_calls_interleaved", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [_delta(0, "", "a", "get_weather")],
                [_delta(1, "", "b", "get_time")],
                [_delta(0, '{"city": ')],
                [_delta(1, '{"city": ')],
                [_delta(0, '"Paris"}')],
                [_delta(1, '"Rome"}')],
            ),
        ),
    ),
    Wire(
        Case("tool_calls_index_reused", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [_delta(0, '{"city": ', "a", "get_weather")],
                [_delta(0, '"Paris"}')],
                [_delta(0, '{"city": ', "b", "get_time")],
                [_delta(0, '"Rome"}')],
            ),
        ),
    ),
    Wire(
        Case("tool_calls_name_and_id_repeated", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [_delta(0, '{"city": ', "a", "get_weather")],
                [_delta(0, '"Paris"}', "a", "get_weather")],
                [_delta(1, '{"city": ', "b", "get_time")],
                [_delta(1, '"Rome"}', "b", "get_time")],
            ),
        ),
    ),
    Wire(
        Case("tool_calls_null_name_first", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [{"index": 0, "id": "a", "function": {"name": None, "arguments": None}}],
                [_delta(0, '{"city": "Paris"}', "", "get_weather")],
                [_delta(1, '{"city": "Rome"}', "b", "get_time")],
            ),
        ),
    ),
    Wire(
        Case("tool_calls_without_function", call=TOOLS),
        _calls_both,
        stream=True,
        script=(
            _deltas(
                [{"index": 0, "id": "a"}],
                [_delta(0, '{"city": "Paris"}', None, "get_weather")],
                [_delta(1, '{"city": "Rome"}', "b", "get_time")],
                [{"index": 1, "function": None}],
            ),
        ),
    ),
    Wire(
        Case("tool_call_invalid_json", call=TOOLS),
        _has_invalid_call,
        stream=True,
        script=(_deltas([_delta(0, '{"city": ', "a", "get_weather")]),),
    ),
    *[
        Wire(
            Case(code, settings={"max_retries": 0}),
            raises=error,
            faults=(Fault("status", status=status, code=code, message=f"Refused: {code}."),),
        )
        for code, (status, error) in STATUSES.items()
    ],
    Wire(
        Case("context_overflow"),
        raises=ContextOverflowError,
        faults=(Fault("status", status=400, code="invalid_request_error", message=OVERFLOW),),
    ),
    Wire(
        Case("rate_limit_then_answer", settings={"max_retries": 2}),
        _thinks,
        faults=(
            Fault("status", status=429, code="rate_limit_exceeded", headers={"retry-after": "1"}),
            Fault("status", status=503, code="model_unavailable"),
        ),
    ),
    Wire(Case("error_in_mid_stream"), raises=ReportedError, stream=True, faults=(Fault("error_event", after=3),)),
    Wire(Case("stream_without_finish"), raises=IncompleteStreamError, stream=True, faults=(Fault("no_finish"),)),
]


def _contains(result: Result, text: str) -> None:
    assert text in result.text


def _mark(source: str, name: str) -> Any:
    return pytest.mark.default_cassette(str(HERE / source / f"{name}.yaml"))


@pytest.fixture
def address(request: pytest.FixtureRequest, recording: bool) -> Iterator[dict[str, Any]]:
    """Where to ask: the public URL on replay; the sandbox, told what to do, while recording."""
    wire: Wire = request.node.callspec.params["wire"]
    if is_live() and (wire.script or wire.faults):
        pytest.skip("The live gateway cannot be told to do this; the recording of the sandbox stays.")
    if not recording or is_live():
        key = {} if recording else {"api_key": "sk-empiriolabs-replayed"}
        yield {"base_url": DEFAULT_API_BASE, "max_retries": 0, **key}
        return
    with Sandbox(faults=wire.faults) as sandbox:
        sandbox.script(*wire.script)
        # Cassettes of compressed replies would need the same compression libraries to be read.
        plain = {"accept-encoding": "identity"}
        yield {
            "base_url": sandbox.base_url,
            "api_key": sandbox.api_key,
            "max_retries": 0,
            "default_headers": plain,
        }


def _ask(wire: Wire, driver: str, where: dict[str, Any]) -> None:
    expected = pytest.raises(wire.raises) if wire.raises else contextlib.nullcontext()
    with expected:
        result = DRIVERS[driver](wire.case, where, wire.stream)
    if wire.check is not None:
        wire.check(result)


@pytest.mark.vcr
@pytest.mark.filterwarnings("ignore:The answer is empty")
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("wire", [pytest.param(w, marks=_mark("sandbox", str(w)), id=str(w)) for w in WIRES])
def test_recorded_against_the_sandbox(wire: Wire, driver: str, address: dict[str, Any]) -> None:
    _ask(wire, driver, address)


ELSEWHERE = [
    (endpoint, wire)
    for endpoint in ("responses", "messages")
    for wire in WIRES
    # Scripted chunks are shapes of chat completions; tests/core/test_endpoints.py has those of the others.
    if not wire.script
]


@pytest.mark.vcr
@pytest.mark.filterwarnings("ignore:The answer is empty")
@pytest.mark.parametrize("driver", ["langchain", "llamaindex-async"])
@pytest.mark.parametrize(
    ("endpoint", "wire"),
    [pytest.param(e, w, marks=_mark(f"sandbox/{e}", str(w)), id=f"{e}-{w}") for e, w in ELSEWHERE],
)
def test_recorded_on_another_endpoint(endpoint: str, wire: Wire, driver: str, address: dict[str, Any]) -> None:
    _ask(wire, driver, {**address, "endpoint": endpoint})


def _some_text(result: Result) -> None:
    assert result.text or result.reasoning
    assert result.usage is not None


def _some_call(result: Result) -> None:
    assert [name for name, _ in result.tool_calls] == ["get_weather"]
    assert isinstance(result.tool_calls[0][1], dict)


SKY = ({"role": "user", "content": "What is the color of the sky?"},)
FIXED = {"seed": 1, "temperature": 0.0, "max_tokens": 60}
LOCAL_WIRES = [
    Wire(Case("text", SKY, FIXED), _some_text),
    Wire(Case("text_streamed", SKY, FIXED), _some_text, stream=True),
    Wire(Case("tool_call", WEATHER_QUESTION, FIXED, {"tools": [WEATHER], "tool_choice": "required"}), _some_call),
    Wire(
        Case("tool_call_streamed", WEATHER_QUESTION, FIXED, {"tools": [WEATHER], "tool_choice": "required"}),
        _some_call,
        stream=True,
    ),
    Wire(Case("tool_result", AFTER_TOOL, FIXED, {"tools": [WEATHER]}), _some_text),
]


@pytest.fixture(scope="module")
def llama_server(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if not is_recording(request.config):
        yield None
        return
    model = LocalModel()
    yield model.base_url
    model.stop()


@pytest.mark.vcr
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("wire", [pytest.param(w, marks=_mark("local_model", str(w)), id=str(w)) for w in LOCAL_WIRES])
def test_recorded_against_llama_cpp(wire: Wire, driver: str, llama_server: str | None) -> None:
    """An independent server that was not written for this project, with a real model behind it."""
    where = {"base_url": llama_server or DEFAULT_API_BASE, "api_key": "local", "max_retries": 0}
    _ask(wire, driver, where)
