"""Streams and calls in the forms that servers send: both adapters agree, whole and in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core.errors import IncompleteStreamError, InvalidReplyError
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case, Driver

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
EACH_DRIVER = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)


def chunk(delta: Any, finish_reason: str | None = None, **further: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "1", "model": "m", "choices": [choice], **further}


AFTERWARDS = {
    "usage with a choice": chunk({"role": "assistant", "content": ""}, usage=USAGE),
    "usage with the finish_reason again": chunk({"content": ""}, "stop", usage=USAGE),
    "a source": chunk({"annotations": [{"url": "https://a.example"}]}),
    "nothing": chunk(None),
}


@EACH_DRIVER
@pytest.mark.parametrize("late", AFTERWARDS.values(), ids=AFTERWARDS)
def test_what_comes_after_the_finish_reason(
    driver: Driver, late: dict[str, Any], sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(Answer(chunks=[chunk({"content": "Hi"}), chunk({"content": ""}, "stop"), late]))
    result = driver(Case("x"), where, True)
    assert (result.text, result.finish_reason) == ("Hi", "stop")
    assert (result.usage or {}).get("input") == (5 if "usage" in late else None)


@EACH_DRIVER
@pytest.mark.parametrize("delta", [{}, None])
def test_a_stream_of_nothing_is_no_answer(driver: Driver, delta: Any, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.script(Answer(chunks=[chunk(delta)]))
    with pytest.raises(IncompleteStreamError):
        driver(Case("x"), where, True)


@EACH_DRIVER
@pytest.mark.filterwarnings("ignore:A part of type 'thinking'")
@pytest.mark.parametrize("stream", [False, True])
def test_content_as_a_list_of_texts(driver: Driver, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": None}, {"type": "refusal", "refusal": "lo"}]
    parts += [{"type": "thinking", "thinking": "Hm."}]
    body = {"choices": [{"message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}]}
    sandbox.script(Answer(chunks=[chunk({"content": parts}), chunk({}, "stop")]) if stream else Answer(body=body))
    assert driver(Case("x"), where, stream).text == "Hello"


@EACH_DRIVER
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content", [5, [{"type": "image"}], {"text": 5}])
def test_content_that_is_no_text(
    driver: Driver, stream: bool, content: Any, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    sandbox.script(Answer(chunks=[chunk({"content": content}), chunk({}, "stop")]) if stream else Answer(body=body))
    with pytest.raises(InvalidReplyError, match="content that is not text"):
        driver(Case("x"), where, stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call_id", [None, ""])
def test_calls_without_an_id_get_one(sandbox: Sandbox, where: dict[str, Any], stream: bool, call_id: Any) -> None:
    calls = [{"index": n, "id": call_id, "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    body = {"choices": [{"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    streamed = [chunk({"tool_calls": calls}), chunk({}, "tool_calls")]
    answer = Answer(chunks=streamed) if stream else Answer(body=body)
    sandbox.script(answer, answer)
    message = ChatEmpirioLabs(**where, streaming=stream).invoke("x")
    llm, asked = EmpirioLabs(**where), [ChatMessage("x")]
    response = list(llm.stream_chat(asked))[-1] if stream else llm.chat(asked)
    of_langchain = [call["id"] for call in message.tool_calls]
    of_llamaindex = [call.tool_id for call in llm.get_tool_calls_from_response(response)]
    for found in (of_langchain, of_llamaindex):
        assert len(set(found)) == 2
        assert all(found)
