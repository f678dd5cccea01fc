"""Answers that were interrupted, refused, filtered or empty, and errors in unusual forms, in both adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core import exceptions as langchain
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import (
    ContextOverflowError,
    InterruptedAnswerError,
    ReportedError,
    StructuredOutputError,
)
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.errors import EmpirioLabsRefusalError
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case

EACH_WAY = [
    pytest.param(name, stream, id=f"{name}-{'stream' if stream else 'whole'}")
    for name in DRIVERS
    for stream in (False, True)
]
REFUSAL_ERROR = getattr(langchain, "ModelRefusalError", OutputParserException)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class City(BaseModel):
    """A city."""

    name: str


def scripted(choice: dict[str, Any], stream: bool, **head: Any) -> Answer:
    """Return an answer whose only, or last, choice is the given one."""
    message = {"role": "assistant", "content": "Half of", **choice.pop("message", {})}
    if not stream:
        return Answer(body={"id": "1", "choices": [{"index": 0, "message": message, **choice}], **head})
    first = {"id": "1", "choices": [{"index": 0, "delta": message, "finish_reason": None}]}
    return Answer(chunks=[first, {"id": "1", "choices": [{"index": 0, "delta": {}, **choice}], **head}])


INTERRUPTED: list[tuple[dict[str, Any], str, str]] = [
    ({"finish_reason": "insufficient_system_resource"}, "insufficient_system_resource", "insufficient_system_resource"),
    ({"finish_reason": "error"}, "error", "finish_reason='error'"),
    ({"finish_reason": None, "error": {"code": 502, "message": "Bad gateway."}}, "502", "Bad gateway."),
    ({"finish_reason": "stop", "error": {"code": "x", "detail": "Out of memory."}}, "x", "Out of memory."),
    ({"finish_reason": "error", "error": "Overloaded."}, "", "Overloaded."),
]


@pytest.mark.parametrize(("name", "stream"), EACH_WAY)
@pytest.mark.parametrize(("choice", "code", "said"), INTERRUPTED)
def test_an_interrupted_answer_is_a_retryable_error(
    name: str, stream: bool, choice: dict[str, Any], code: str, said: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(scripted(dict(choice), stream, usage=USAGE))
    with track_cost() as costs, pytest.raises(InterruptedAnswerError, match=said) as raised:
        DRIVERS[name](Case("x"), where, stream)
    assert (raised.value.code or "") == code
    if name.startswith("langchain"):
        assert isinstance(raised.value, langchain.ModelAPIError)
        assert raised.value.is_retryable
    # What was generated is billed all the same.
    assert (costs.total.output_tokens, costs.total.calls_of_unknown_cost) == (5, 0)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_whole_answer_with_a_null_finish_reason_was_interrupted(
    name: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(scripted({"finish_reason": None}, False), scripted({}, False))
    with pytest.raises(InterruptedAnswerError, match="finish_reason=None"):
        DRIVERS[name](Case("x"), where, False)
    # Some servers never send one, which says nothing.
    assert DRIVERS[name](Case("x"), where, False).text == "Half of"


def test_chunks_before_an_interruption_stay_valid(sandbox: Sandbox, where: dict[str, Any]) -> None:
    answer = Answer("One two three", finish_reason="insufficient_system_resource")
    sandbox.script(answer, answer)
    texts: list[str] = []
    with pytest.raises(InterruptedAnswerError):
        texts.extend(str(chunk.content) for chunk in ChatEmpirioLabs(**where).stream("Hello"))
    with pytest.raises(InterruptedAnswerError):
        texts.extend(response.delta or "" for response in EmpirioLabs(**where).stream_chat([ChatMessage("Hello")]))
    assert "".join(texts) == "One two three" * 2


def test_an_agent_retries_an_interrupted_answer(sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.script(Answer("Half", finish_reason="insufficient_system_resource"), Answer("Whole."))
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0)
    agent = create_agent(ChatEmpirioLabs(**where), [], middleware=[retry])
    assert agent.invoke({"messages": "Hello"})["messages"][-1].content == "Whole."


@pytest.mark.parametrize(("name", "stream"), EACH_WAY)
@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ({"code": 7, "detail": "Out of memory."}, "Out of memory."),
        ({"message": None, "code": "oom"}, "oom"),
        ({"message": {"text": "Nested."}}, "Nested."),
        ("Plain.", "Plain."),
        ({"message": "Said.", "code": 1}, ": Said."),
    ],
)
def test_an_error_without_a_message_is_shown(
    name: str, stream: bool, error: Any, shown: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(Answer(chunks=[{"error": error}]) if stream else Answer(body={"error": error}))
    with pytest.raises(ReportedError, match=shown) as raised:
        DRIVERS[name](Case("x"), where, stream)
    assert "None" not in str(raised.value).replace("'message': None", "")


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize(
    "wording",
    [
        "The total length of all messages is too long.",
        "too_many_prompt_tokens",
        "prompt too long; exceeded max context length by 1119046 tokens",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "Your input exceeds the context window of this model.",
        "Input tokens exceed the configured limit of 272000 tokens.",
        "Range of input length should be [1, 129024]",
    ],
)
def test_wordings_of_a_context_overflow(name: str, wording: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(Fault("status", status=400, message=wording))
    with pytest.raises(ContextOverflowError) as raised:
        DRIVERS[name](Case("x"), where, False)
    assert isinstance(raised.value, langchain.ContextOverflowError) == name.startswith("langchain")


# Refused and empty answers

REFUSED = Answer("", extra={"refusal": "I cannot help."})
FILTERED = Answer("Half of", finish_reason="content_filter")
EMPTY = {
    "plain text": (Answer("Paris."), OutputParserException, "called no tool"),
    "length": (Answer("I would say", finish_reason="length"), OutputParserException, "finish_reason='length'"),
    "another tool": (Answer(None, tool_calls=[{"name": "f", "arguments": {}}]), OutputParserException, "f"),
    "refusal": (REFUSED, REFUSAL_ERROR, "I cannot help"),
    "filter": (FILTERED, REFUSAL_ERROR, "filtered"),
}


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("schema", [City, {"title": "City", "type": "object", "properties": {}}], ids=["class", "dict"])
@pytest.mark.parametrize("case", EMPTY)
def test_structured_output_without_a_call(
    case: str, schema: Any, way: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    answer, kind, said = EMPTY[case]
    sandbox.script(answer)
    structured = ChatEmpirioLabs(**where).with_structured_output(schema)

    async def astream() -> list[Any]:
        return [found async for found in structured.astream("Hello")]

    ways = {
        "invoke": lambda: structured.invoke("Hello"),
        "ainvoke": lambda: asyncio.run(structured.ainvoke("Hello")),
        "stream": lambda: list(structured.stream("Hello")),
        "astream": lambda: asyncio.run(astream()),
    }
    with pytest.raises(kind, match=said) as raised:
        ways[way]()
    assert isinstance(raised.value, StructuredOutputError) or case == "another tool"


@pytest.mark.parametrize("case", EMPTY)
def test_include_raw_reports_it(case: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    answer, kind, said = EMPTY[case]
    sandbox.script(answer)
    found = ChatEmpirioLabs(**where).with_structured_output(City, include_raw=True).invoke("Hello")
    assert isinstance(found, dict)
    assert isinstance(found["raw"], AIMessage)
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], kind)
    assert said in str(found["parsing_error"])


@pytest.mark.parametrize("method", ["json_mode", "json_schema"])
@pytest.mark.parametrize("answer", [REFUSED, FILTERED])
def test_refusals_of_the_json_methods(method: Any, answer: Answer, sandbox: Sandbox, where: dict[str, Any]) -> None:
    structured = ChatEmpirioLabs(**where).with_structured_output(City, method=method)
    sandbox.script(answer, answer)
    for ask in (structured.invoke, lambda prompt: list(structured.stream(prompt))):
        with pytest.raises(EmpirioLabsRefusalError) as raised:
            ask("Hello, answer in JSON.")
        assert raised.value.raw_message is not None


@pytest.mark.parametrize("way", ["whole", "async", "stream", "astream"])
@pytest.mark.parametrize("case", EMPTY)
def test_structured_prediction_without_a_call(case: str, way: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    answer, _, said = EMPTY[case]
    sandbox.script(answer)
    llm, prompt = EmpirioLabs(**where), PromptTemplate("Hello")

    async def astream() -> list[Any]:
        return [found async for found in await llm.astream_structured_predict(City, prompt)]

    ways = {
        "whole": lambda: llm.structured_predict(City, prompt),
        "async": lambda: asyncio.run(llm.astructured_predict(City, prompt)),
        "stream": lambda: list(llm.stream_structured_predict(City, prompt)),
        "astream": lambda: asyncio.run(astream()),
    }
    with pytest.raises(StructuredOutputError) as raised:
        ways[way]()
    if case in ("length", "refusal"):
        assert said in str(raised.value)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("answer", "block"),
    [
        (REFUSED, {"type": "refusal", "refusal": "I cannot help."}),
        (FILTERED, {"type": "refusal", "refusal": "", "extras": {"category": "content_filter"}}),
    ],
)
def test_a_refusal_is_a_standard_block(
    stream: bool, answer: Answer, block: dict[str, Any], sandbox: Sandbox, where: dict[str, Any]
) -> None:
    llm = ChatEmpirioLabs(**where)
    sandbox.script(answer)
    message: Any = llm.invoke("Hello")
    if stream:
        sandbox.script(answer)
        first, *rest = llm.stream("Hello")
        message = first.__add__(rest)  # type: ignore[arg-type]
    found = [{n: v for n, v in b.items() if n != "index"} for b in message.content_blocks if b["type"] == "refusal"]
    assert found == [block]
    # It goes back as what the model said, as an empty turn would mean nothing to it.
    llm.invoke([("human", "Hello"), message, ("human", "Why?")])
    sent = sandbox.requests[-1].body["messages"][1]
    assert sent == {"role": "assistant", "content": answer.content or "I cannot help."}


def test_the_refusal_middleware_reacts(sandbox: Sandbox, where: dict[str, Any]) -> None:
    middleware = pytest.importorskip("langchain.agents.middleware")
    if not hasattr(middleware, "ModelRefusalMiddleware"):
        pytest.skip("This version of langchain has no refusal middleware.")
    agent = create_agent(ChatEmpirioLabs(**where), [], middleware=[middleware.ModelRefusalMiddleware()])
    for answer in (REFUSED, FILTERED):
        sandbox.script(answer)
        with pytest.raises(REFUSAL_ERROR):
            agent.invoke({"messages": "Hello"})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_refusal_is_the_text_in_llamaindex(stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm, asked = EmpirioLabs(**where), [ChatMessage("Hello")]
    sandbox.script(REFUSED)
    if not stream:
        assert llm.chat(asked).message.content == "I cannot help."
        return
    responses = list(llm.stream_chat(asked))
    assert responses[-1].message.content == "I cannot help."
    assert "".join(response.delta or "" for response in responses) == "I cannot help."


@pytest.mark.parametrize("name", DRIVERS)
def test_a_filtered_answer_without_a_message(name: str, sandbox: Sandbox, where: dict[str, Any]) -> None:
    """As recorded at Azure."""
    sandbox.script(Answer(body={"choices": [{"index": 0, "finish_reason": "content_filter"}], "usage": USAGE}))
    result = DRIVERS[name](Case("x"), where, False)
    assert (result.text, result.finish_reason, (result.usage or {})["output"]) == ("", "content_filter", 5)
