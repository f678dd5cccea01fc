"""The sandbox rejects malformed requests with an error that names the field, and never fails or hangs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empiriolabs_core.catalog import CARDS, ModelCard
from empiriolabs_core.sandbox import Answer, Fault, Sandbox, server
from empiriolabs_core.sandbox.answers import generate
from empiriolabs_core.sandbox.refusals import Refusal
from empiriolabs_core.sandbox.rules import check_tools
from tests.core.test_sandbox import CALL, TOOLS, USER, chat, named, ok, raw

EMBEDDINGS = {"model": "text-embedding-v4", "input": "a"}
RERANKS = {"model": "qwen3-rerank", "query": "a", "documents": ["a", "b"]}
OTHER = "model-without-a-card"


@pytest.fixture(scope="module")
def _serving() -> Iterator[Sandbox]:
    with Sandbox(models=[OTHER]) as serving:
        yield serving


@pytest.fixture
def open_sandbox(_serving: Sandbox) -> Sandbox:
    """Return a sandbox that also serves a model without a card."""
    _serving.reset()
    return _serving


def refused(answer: Any, param: str, told: str = "", status: int = 400) -> None:
    got, headers, text = answer
    assert (got, headers["content-type"]) == (status, "application/json"), text
    error = json.loads(text)["error"]
    assert error["param"] == param
    assert told in error["message"]


def history(*calls: Any) -> dict[str, Any]:
    """Return the fields of a request whose assistant turn contains these calls, all with results."""
    turn = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": list(calls)}
    return {"messages": [USER, turn, {"role": "tool", "content": "", "tool_call_id": "c1"}]}


def saying(**fields: Any) -> dict[str, Any]:
    return {"messages": [{**USER, **fields}]}


def calling(**function: Any) -> dict[str, Any]:
    return history({**CALL, "function": {**CALL["function"], **function}})


def formatted(**fields: Any) -> dict[str, Any]:
    return {"model": OTHER, "response_format": fields}


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        *[({"model": model}, "model", "model is required") for model in (None, "", [], {}, 5)],
        *[(history(call), "messages", "tool_calls[0]") for call in ("x", {**CALL, "id": []}, {**CALL, "id": None})],
        (
            history({"type": "function", "function": CALL["function"]}),
            "messages",
            "tool_calls[0].id must be a string, got None",
        ),
        (history(CALL, {**CALL, "id": None}), "messages", "tool_calls[1].id must be a string, got None"),
        (
            history({"id": "c1", "type": "function"}),
            "messages",
            "tool_calls[0] must be an object with id and function, got {",
        ),
        *[(calling(name=name), "messages", "function.name must match") for name in (None, "two words", "x" * 65)],
        *[
            (calling(arguments=arguments), "messages", "arguments must be a string with JSON")
            for arguments in (None, {}, 5)
        ],
        (
            {"messages": [{"role": "assistant", "content": "", "tool_calls": 5}]},
            "messages",
            "tool_calls must be a list of objects, got 5",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "", "tool_call_id": []}]},
            "messages",
            "tool_call_id must be a string, got []",
        ),
        *[(saying(content=[{"type": "text", "text": t}]), "messages", ".text must be a string") for t in (None, 3, {})],
        (saying(content=["Hello"]), "messages", "content[0] must be an object with a type, got 'Hello'"),
        (saying(content=[{"text": "Hello"}]), "messages", "content[0] must be an object with a type"),
        (saying(content=[{"type": "image_url"}]), "messages", "unknown variant `image_url`, expected `text`"),
        ({"messages": [{"role": "assistant", "content": "", "reasoning_content": 5}]}, "messages", "reasoning_content"),
        *[({"response_format": f}, "response_format", "must be an object") for f in ("json_object", 5, ["x"])],
        *[({"response_format": {"type": t}}, "response_format", "must be one of text") for t in (None, "xml", [])],
        *[(formatted(type="json_schema", json_schema=s), "response_format", "") for s in (None, "x", {"schema": "x"})],
        (formatted(type="json_schema"), "response_format", "a schema object, got None"),
        *[({"n": n}, "n", "from 1 to 128") for n in ("2", 1.5, -1, 0, 129, 10**30, True)],
        *[({"stop": stop}, "stop", "a list of non-empty strings") for stop in (5, [1], [""], [[1]], "")],
        *[({"max_completion_tokens": t}, "max_completion_tokens", "an integer from") for t in ("x", 1.5, 0, 10**9)],
        *[({"stream": True, "stream_options": o}, "stream_options", "") for o in ("x", {"include_usage": 1})],
        ({"stream_options": {"include_usage": True}}, "stream_options", "along with stream"),
        *[({"logprobs": value}, "logprobs", "true or false") for value in (1, "yes")],
        *[({"top_logprobs": value}, "top_logprobs", "from 0 to 20") for value in (-1, 21, 1.0, True)],
        *[({"frequency_penalty": value}, "frequency_penalty", "from -2 to 2") for value in (3, "x")],
        *[({"presence_penalty": value}, "presence_penalty", "from -2 to 2") for value in (-2.1, True)],
        *[({"seed": value}, "seed", "an integer from") for value in (1.5, "x", 2**63)],
        *[({"logit_bias": value}, "logit_bias", "object") for value in (5, [1])],
        *[({name: 1}, name, f"{name} must be true or false, got 1") for name in ("enable_thinking", "stream")],
        ({"tools": [{"type": "web_search"}]}, "tools", "unknown variant `web_search`, expected `function`"),
        ({"tools": [{}]}, "tools", "tools[0].type"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools", "Tool names must be unique."),
        ({"tools": [named(f"f{n}") for n in range(129)]}, "tools", "at most 128"),
        ({"tool_choice": "required", "enable_thinking": False}, "tool_choice", "needs at least one tool"),
        ({"tool_choice": named("f"), "enable_thinking": False}, "tool_choice", "one of the tools"),
        (saying(content="\ud800"), "messages", r"messages contains '\ud800'"),
    ],
)
def test_malformed_requests(open_sandbox: Sandbox, fields: dict[str, Any], param: str, told: str) -> None:
    refused(chat(open_sandbox, **fields), param, told)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"temperature": NaN}', "NaN is not a valid JSON number"),
        (b'{"model": "\xed\xa0\x80"}', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"5", "a JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "reranks"])
def test_bodies_that_are_no_object(sandbox: Sandbox, body: bytes, told: str, path: str) -> None:
    refused(raw(sandbox, body, path=f"/v1/{path}"), "body", told)


JUNK = [None, True, 0, -1, 1.5, 10**30, "", "x", [], [None], [[]], {}, {"type": None}, {"type": "json_schema"}]
FIELDS = [
    *(
        "model",
        "messages",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "seed",
        "stream",
    ),
    *("stream_options", "tools", "tool_choice", "parallel_tool_calls", "response_format", "logprobs", "top_logprobs"),
    *("logit_bias", "frequency_penalty", "presence_penalty", "enable_thinking", "thinking_budget", "reasoning_effort"),
    *("web_search_linkup", "disable_formatting", "input", "dimensions", "encoding_format", "query", "documents"),
    *("top_n", "instruct", "return_documents"),
]
BODIES = {
    "chat/completions": {"model": OTHER, "messages": [USER], "tools": TOOLS},
    "embeddings": EMBEDDINGS,
    "reranks": RERANKS,
}


@pytest.mark.parametrize("path", BODIES)
def test_anything_in_any_field(open_sandbox: Sandbox, path: str) -> None:
    for field in FIELDS:
        for junk in JUNK:
            status, _, text = raw(open_sandbox, {**BODIES[path], field: junk}, path=f"/v1/{path}")
            assert status in (200, 400, 404), (field, junk, text)
            assert status == 200 or json.loads(text)["error"]["param"], (field, junk, text)


_KEYWORDS = ["type", "properties", "items", "prefixItems", "enum", "const", "anyOf", "oneOf", "allOf", "required"]
_KEYWORDS += ["$ref", "minItems", "maxItems", "minLength", "maxLength", "minimum", "exclusiveMaximum", "multipleOf"]
_LEAVES = st.sampled_from([None, True, False, 0, -1, 2, 0.5, "object", "array", "integer", "null", "#", "#/properties"])
ANY_SCHEMA = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYWORDS), inner, max_size=4)
)


@given(properties=st.dictionaries(st.sampled_from(["a", "b"]), ANY_SCHEMA), more=ANY_SCHEMA)
def test_any_schema(properties: dict[str, Any], more: Any) -> None:
    body = asked({"properties": properties, **(more if isinstance(more, dict) else {})})
    with contextlib.suppress(Refusal):
        check_tools(body)
        (call,) = generate(body, thinking=False).tool_calls
        assert isinstance(json.loads(call["arguments"]), dict)


@pytest.mark.parametrize("levels", [450, 480, 490])
def test_bodies_that_are_nested_about_as_deeply_as_python_can(sandbox: Sandbox, levels: int) -> None:
    deep = '{"properties":{"a":' * levels + "{}" + "}}" * levels
    for fields in ({"stop": "DEEP"}, {"messages": [{"role": "DEEP"}]}, {"tools": ["DEEP"]}, asked("DEEP")):
        body = json.dumps({"model": "deepseek-v4-flash", "messages": [USER], **fields}).replace('"DEEP"', deep)
        # Of the last, some can be filled: it depends on how deep the server's own stack is.
        assert raw(sandbox, body.encode())[0] in ((200, 400) if len(fields) > 1 else (400,))


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        *[("embeddings", {**EMBEDDINGS, "model": model}, "model", "required") for model in ([], {}, None)],
        *[("embeddings", {**EMBEDDINGS, "dimensions": d}, "dimensions", "") for d in (1024.0, True, [1])],
        *[("embeddings", {**EMBEDDINGS, "encoding_format": f}, "encoding_format", "float, base64") for f in ("hex", 1)],
        ("embeddings", {**EMBEDDINGS, "input": "\ud800"}, "input", r"\ud800"),
        ("embeddings", {**EMBEDDINGS, "input": "a " * 8193}, "input", "at most 8192 tokens, got 8193"),
        ("reranks", {**RERANKS, "model": []}, "model", "required"),
        *[("reranks", {**RERANKS, "documents": [d]}, "documents", "[0]") for d in (1, None, {"text": "a"})],
        (
            "reranks",
            {**RERANKS, "documents": ["a", "b " * 4001]},
            "documents",
            "documents[1] must have at most 4000 tokens, got 4001",
        ),
        ("reranks", {**RERANKS, "query": "a " * 4001}, "query", "at most 4000"),
        *[("reranks", {**RERANKS, "top_n": n}, "top_n", "from 1 to 500") for n in ("x", 1.5, 0, -1, 501, True)],
        ("reranks", {**RERANKS, "return_documents": "yes"}, "return_documents", "true or false"),
        ("reranks", {**RERANKS, "instruct": 5}, "instruct", "instruct must be a string, got 5"),
    ],
)
def test_malformed_vectors(sandbox: Sandbox, path: str, body: dict[str, Any], param: str, told: str) -> None:
    refused(raw(sandbox, body, path=f"/v1/{path}"), param, told)
    assert sandbox.ledger == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"model": "text-embedding-v4", "messages": [USER]}),
        ("embeddings", {**EMBEDDINGS, "model": "deepseek-v4-flash"}),
        ("reranks", {**RERANKS, "model": "deepseek-v4-flash"}),
    ],
)
def test_a_model_on_a_route_that_does_not_serve_it(sandbox: Sandbox, path: str, body: dict[str, Any]) -> None:
    refused(raw(sandbox, body, path=f"/v1/{path}"), "model", f"not served by POST /v1/{path}", 404)


def test_what_a_model_without_a_card_or_with_modalities_takes(
    open_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = saying(content=[{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "Look"}])
    said = ok(open_sandbox, model=OTHER, **picture)["choices"][0]["message"]["content"]
    assert said.startswith("You said: Look")
    monkeypatch.setitem(CARDS, OTHER, ModelCard(OTHER, OTHER, input_modalities=("text", "image")))
    assert ok(open_sandbox, model=OTHER, **picture)
    recording = saying(content=[{"type": "input_audio"}])
    refused(chat(open_sandbox, model=OTHER, **recording), "messages", "expected `text`, `image_url`")


def asked(parameters: Any, prompt: str = "Find 7 things.") -> dict[str, Any]:
    """Return the fields of a request whose prompt mentions its tool."""
    function = {"name": "find_things", "parameters": parameters}
    return {**saying(content=prompt), "tools": [{"type": "function", "function": function}]}


def properties(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        *[(value, "must be a JSON schema object") for value in (5, "x", [1])],
        ({"type": "string"}, "parameters.type must be 'object', got 'string'"),
        ({"anyOf": [{"type": "string"}]}, "must describe an object"),
        (properties(a="string"), "a schema must be an object or true, got 'string'"),
        (properties(a={"$ref": "#/$defs/None"}), "must point to a place in the schema"),
        (properties(a={"$ref": "#/properties/a/anyOf/9", "anyOf": []}), "must point to a place in the schema"),
        (properties(a={"$ref": "https://schemas.example/a"}), "must begin with '#/'"),
        (properties(a={"$ref": 3}), "$ref must be a string, got 3"),
        *[({"properties": value}, "properties must be an object") for value in (None, ["a"])],
        *[
            (properties(a={"enum": value}), f"enum must {told}")
            for value, told in (({}, "be a list"), ([], "have at least one"))
        ],
        (properties(a={"anyOf": "x"}), "anyOf must be a list, got 'x'"),
        (properties(a={"anyOf": [False]}), "must allow a value, got [False]"),
        ({"required": None}, "required must be a list, got None"),
        *[
            (properties(a={"type": "array", name: "x"}), f"{name} must be a number >= 0, got 'x'")
            for name in ("minItems", "maxItems")
        ],
        *[
            (properties(a={"type": "string", name: "x"}), f"{name} must be a number >= 0, got 'x'")
            for name in ("minLength", "maxLength")
        ],
        *[
            (properties(a={"type": "number", name: "x"}), f"{name} must be a number, got 'x'")
            for name in ("minimum", "exclusiveMaximum")
        ],
        (properties(a={"type": "integer", "minimum": 2, "maximum": 1}), "no number fits"),
        (properties(a={"type": "number", "multipleOf": 0}), "multipleOf must be a number > 0, got 0"),
        (properties(a={"type": "any"}), "or a list of them, got 'any'"),
        (properties(a={"type": []}), "or a list of them, got []"),
        (properties(a=False) | {"required": ["a"]}, "a schema must be an object or true, got False"),
        (properties(a={"type": "string", "minLength": 10**9}), "exceeds the sandbox's limit"),
        (properties(a={"type": "array", "minItems": 10**30}), "exceeds the sandbox's limit"),
        ({"properties": {f"p{n}": {"$ref": "#"} for n in range(99)}, "required": ["p0", "p1"]}, "exceeds the"),
        ({"required": [[]]}, "TypeError"),
    ],
)
def test_parameters_that_cannot_be_filled(sandbox: Sandbox, parameters: Any, told: str) -> None:
    before = time.monotonic()
    refused(chat(sandbox, **asked(parameters)), "tools", told)
    assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"$ref": "#/$defs/b/anyOf/0"}, 7),
        ({"$ref": "#/$defs/a~1b~0c%25"}, True),
        (True, "Find"),
        ({}, "Find"),
        ({"anyOf": [False, {"type": "null"}]}, None),
        ({"type": "object", "properties": {"no": False}, "required": ["other"]}, {"other": "Find"}),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "format": "date-time"}, "2026-01-31T12:00:00Z"),
        ({"type": "string", "format": "time"}, "12:00:00Z"),
        ({"type": "string", "format": "uuid"}, "6f2b1c9e-3d47-4a58-9b60-7e1f5c2d8a34"),
        ({"type": "string", "format": "email"}, "someone@example.com"),
        ({"type": "string", "minLength": 6, "maxLength": 6}, "Find.."),
        ({"type": "string", "maxLength": 0}, ""),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False}, [7, True]),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "minItems": 2}, [7, "Find"]),
        ({"type": "array", "items": [{"type": "boolean"}]}, [True]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array", "items": {"type": "null"}, "minItems": 1000}, [None] * 1000),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "exclusiveMaximum": 7}, 6.0),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "integer", "minimum": 10, "maximum": 20}, 10),
        ({"type": "integer", "minimum": 0, "maximum": 5}, 5),
        ({"type": "integer", "multipleOf": 5}, 5),
        ({"type": "integer", "multipleOf": 2.5, "minimum": 6}, 10),
        ({"type": "number", "multipleOf": 0.1, "exclusiveMinimum": 7}, 7.1),
    ],
)
def test_values_fit_their_schemas(sandbox: Sandbox, schema: Any, made: Any) -> None:
    defs = {"b": {"anyOf": [{"type": "integer"}]}, "a/b~c%": {"type": "boolean"}}
    parameters = {**properties(a=schema), "$defs": defs}
    call = ok(sandbox, **asked(parameters))["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"a": made}


def test_parameters_without_a_schema_and_a_number_that_no_float_holds(sandbox: Sandbox) -> None:
    amount = properties(a={"type": "integer"}, b={"type": "number"})
    for parameters, made in ((None, "{}"), ({"a": "string"}, "{}"), (amount, '{"a": 1, "b": 1.0}')):
        reply = ok(sandbox, **asked(parameters, f"Find things: {'9' * 400}."))
        assert reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == made


@pytest.mark.parametrize(
    ("prompt", "made"),
    [
        ('Give JSON. {"properties": {"name": "Dinagat"}}', {"name", "properties", "Dinagat"}),
        ('Give JSON. {"properties": {"name": {"type": "Point"}}}', {"name", "properties", "type", "Point"}),
        ('Give JSON. {"properties": {"age": {"type": "integer"}}}', {"age"}),
        ("Give JSON. " + '{"properties":' * 3000, {"properties"}),
    ],
    ids=["data", "data like a schema", "schema", "nested"],
)
def test_json_mode_tells_schemas_from_data(sandbox: Sandbox, prompt: str, made: set[str]) -> None:
    reply = ok(sandbox, response_format={"type": "json_object"}, **saying(content=prompt))
    assert json.loads(reply["choices"][0]["message"]["content"]).keys() == made


def test_a_response_format_that_cannot_be_filled(open_sandbox: Sandbox) -> None:
    schema = properties(a={"$ref": "#/$defs/none"})
    wanted = formatted(type="json_schema", json_schema={"name": "x", "schema": schema})
    refused(chat(open_sandbox, **wanted), "response_format", "must point to a place in the schema")
    schema["properties"]["a"] = {"type": "boolean"}
    assert ok(open_sandbox, **wanted)["choices"][0]["message"]["content"] == '{"a": true}'


@pytest.mark.parametrize("content", [" " * 200_000, "{" * 200_000, '"' * 200_000, "Aa " * 100_000])
def test_no_prompt_keeps_it_busy(sandbox: Sandbox, content: str) -> None:
    before = time.monotonic()
    ok(sandbox, **saying(content=content), response_format={"type": "text"}, tools=TOOLS)
    told = [*history(CALL)["messages"][:2], {"role": "tool", "tool_call_id": "c1", "content": content}]
    assert len(ok(sandbox, messages=told, n=128, max_tokens=393_216)["choices"]) == 128
    assert time.monotonic() - before < 10


def test_a_defect_is_told(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(server, "generate", fail)
    status, _, text = chat(sandbox)
    assert (status, json.loads(text)["error"]["code"]) == (500, "internal_error")
    assert json.loads(text)["error"]["message"] == "LookupError: no such thing"


def test_a_refused_request_takes_no_credit() -> None:
    with Sandbox(credits=2) as sandbox:
        wrong = [chat(sandbox, n="x"), chat(sandbox, **asked({"required": None})), raw(sandbox, b"{")]
        assert [answer[0] for answer in wrong] == [400, 400, 400]
        assert raw(sandbox, {**RERANKS, "top_n": 0}, path="/v1/reranks")[0] == 400
        assert raw(sandbox, RERANKS, path="/v1/reranks")[0] == 200
        assert [chat(sandbox)[0] for _ in range(2)] == [200, 402]


def test_a_scripted_body_is_billed_and_can_be_faulty(sandbox: Sandbox) -> None:
    body = {"choices": [], "usage": {"completion_tokens": 5, "prompt_tokens_details": None}}
    sandbox.script(Answer(body=body), Answer(body=[1, 2, 3, 4]))
    assert ok(sandbox) == body
    assert (sandbox.ledger[-1].prompt_tokens > 0, sandbox.ledger[-1].completion_tokens) == (True, 5)
    sandbox.fail(Fault("truncate", after=2))
    assert chat(sandbox)[2] == "[1,2"


@pytest.mark.parametrize(
    ("header", "status"),
    [("{key}", 401), ("Basic {key}", 401), ("Bearer", 401), ("bearer {key}", 200), ("BEARER  {key}", 200)],
)
def test_the_scheme_of_the_authorization(sandbox: Sandbox, header: str, status: int) -> None:
    body = {"model": "deepseek-v4-flash", "messages": [USER]}
    assert raw(sandbox, body, {"authorization": header.format(key=sandbox.api_key)})[0] == status


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"content": 5}, "content must be a string or None, got 5"),
        ({"reasoning": 5}, "reasoning must be a string or None, got 5"),
        ({"finish_reason": 5}, "finish_reason must be a string or None, got 5"),
        ({"usage": 5}, "usage must be a dict .*, or None, got 5"),
        ({"extra": 5}, "extra must be a dict .*, got 5"),
        ({"extra": {"a": {1}}}, "extra must be JSON serializable"),
        ({"content": "\ud800"}, "content must be JSON serializable"),
        ({"chunks": 5}, "chunks must be a list .*, got 5"),
        ({"chunks": "data"}, "chunks must be a list .*, got 'data'"),
        ({"chunks": [5]}, "chunks must contain only dictionaries and strings, got 5"),
        ({"tool_calls": "x"}, "tool_calls must be a list .*, got 'x'"),
        ({"tool_calls": ["x"]}, "tool_calls must contain dictionaries .*, got 'x'"),
        ({"tool_calls": [{"name": "f", "arguments": 5}]}, "A tool call must have a name and arguments"),
        ({"tool_calls": [{"name": 5, "arguments": {}}]}, "A tool call must have a name and arguments"),
    ],
)
def test_invalid_answers_raise_immediately(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Answer(**arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        *[({"status": value}, f"status must be an HTTP status .*, got {value!r}") for value in ("x", 99, 600, True)],
        *[({"seconds": value}, f"seconds must be a number .*, got {value!r}") for value in ("x", -1, float("inf"))],
        *[({"after": value}, f"after must be an integer .*, got {value!r}") for value in ("x", 1.5, -1)],
        ({"size": "x"}, "size must be an integer .*, got 'x'"),
        ({"headers": {"retry-after": 1}}, "headers must be a dict of strings, got {"),
        ({"message": 5}, "message must be a string, got 5"),
        ({"kind": "redirect"}, "The fault 'redirect' needs a target"),
        ({"kind": "choices", "value": {1}}, "value must be JSON serializable"),
    ],
)
def test_invalid_faults_raise_immediately(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Fault(**{"kind": "status", **arguments})


@pytest.mark.parametrize("port", [99999, -1])
def test_an_invalid_port(port: int) -> None:
    command = [sys.executable, "-m", "empiriolabs_core.sandbox", "--port", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.startswith(
        f"The sandbox cannot start: port must be from 1 to 65535, or 0 for a free port, got {port}."
    )


@pytest.mark.parametrize("strict_reasoning", [True, False])
def test_the_reasoning_of_plain_answers_is_wanted_back_on_request(strict_reasoning: bool) -> None:
    turn = {"role": "assistant", "content": "It is 5."}
    again = {"messages": [USER, turn, USER], "tools": TOOLS}
    with Sandbox(strict_reasoning=strict_reasoning) as serving:
        serving.script(Answer("It is 5.", reasoning="Two and three."), Answer("It is 6."))
        for _ in range(2):
            ok(serving, messages=[USER])
        status, _, text = chat(serving, **again)
        assert status == (400 if strict_reasoning else 200)
        assert strict_reasoning == ("must be passed back" in text)
        ok(serving, **{**again, "messages": [USER, {**turn, "reasoning_content": "Two and three."}, USER]})
        # Not without tools, not with thinking off, and not for an answer that had none.
        ok(serving, messages=again["messages"])
        ok(serving, **again, enable_thinking=False)
        ok(serving, **{**again, "messages": [USER, {**turn, "content": "It is 6."}, USER]})
