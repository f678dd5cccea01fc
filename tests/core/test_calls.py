"""Tool calls as servers send them: truncated, in odd pieces, with repeated ids. Both adapters agree."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import AIMessageChunk
from langchain_core.utils.json import parse_partial_json
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock

from empiriolabs_core.replies import check_completion, why_truncated
from empiriolabs_core.sandbox import Answer, Sandbox
from empiriolabs_core.tool_calls import Brackets, ToolCalls, read_arguments, read_calls, unusable_calls
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.messages import ChunkConverter, create_chat_result
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import StreamedMessage, chat_response
from tests.drivers import DRIVERS, Case, Driver, langchain_async, langchain_sync

EACH_DRIVER = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)
EACH_WAY = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def call(arguments: Any, name: str | None = "delete", call_id: str | None = "c1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(
    calls: list[dict[str, Any]], finish_reason: str | None, stream: bool, usage: Any = None, **further: Any
) -> Answer:
    """Return an answer with calls, as one reply or as one delta for each call."""
    outcome = {"index": 0, "finish_reason": finish_reason, **further}
    if not stream:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        return Answer(body={"id": "1", "model": "m", "choices": [{"message": message, **outcome}], "usage": usage})
    deltas = [{"tool_calls": [{"index": n, **one}]} for n, one in enumerate(calls)]
    chunks: list[Any] = [{"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return Answer(chunks=[*chunks, {"id": "1", "model": "m", "choices": [{"delta": {}, **outcome}], "usage": usage}])


# Truncated calls

CUT = {
    "length": ("length", {}),
    "content_filter": ("content_filter", {}),
    "a relay's native interruption": ("tool_calls", {"native_finish_reason": "insufficient_system_resource"}),
    "a relay's native reason": ("tool_calls", {"native_finish_reason": "length"}),
    "a relay's count of tokens": ("tool_calls", {"usage": {"prompt_tokens": 3, "completion_tokens": 16}}),
    "a relay that says stop": ("stop", {"usage": {"prompt_tokens": 3, "completion_tokens": 17}}),
}
LIMITED = Case("cut", settings={"max_tokens": 16})


@EACH_DRIVER
@EACH_WAY
@pytest.mark.parametrize(("finish_reason", "further"), CUT.values(), ids=CUT)
@pytest.mark.parametrize("text", ["", '{"path": "/ho', None])
def test_a_truncated_call_has_no_arguments_that_could_be_run(
    driver: Driver,
    stream: bool,
    finish_reason: str,
    further: dict[str, Any],
    text: str | None,
    sandbox: Sandbox,
    where: dict[str, Any],
) -> None:
    sandbox.script(answer([call('{"path": "/a"}', "list_files", "c0"), call(text)], finish_reason, stream, **further))
    (whole, (name, found)) = driver(LIMITED, where, stream).tool_calls
    assert whole == ("list_files", {"path": "/a"})
    assert name == "delete"
    of_langchain_stream = stream and driver in (langchain_sync, langchain_async)
    assert found == (text or "") + (('"]' if text else "]") if of_langchain_stream else "")


@pytest.mark.parametrize("finish_reason", ["insufficient_system_resource", "error", None])
@pytest.mark.parametrize("text", ["", '{"path": "/ho'])
def test_calls_of_an_interrupted_answer_are_truncated(finish_reason: str | None, text: str) -> None:
    """No call of such an answer can be run. Other tests check how the adapters report the answer."""
    reason = why_truncated({"finish_reason": finish_reason}, None, {})
    assert reason == (finish_reason or "incomplete")
    assert unusable_calls(read_calls([call(text)]), reason) == {"c1": {"args": text, "reason": reason}}


@EACH_DRIVER
@EACH_WAY
@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("text", ["", None, "null", "{}", " "])
@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 3, "completion_tokens": 15}])
def test_a_whole_call_without_arguments_stays_one(
    driver: Driver,
    stream: bool,
    finish_reason: str,
    text: str | None,
    usage: Any,
    sandbox: Sandbox,
    where: dict[str, Any],
) -> None:
    sandbox.script(answer([call(text)], finish_reason, stream, usage))
    assert driver(LIMITED, where, stream).tool_calls == [("delete", {})]


@EACH_WAY
@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [("", "length", "length"), ('{"a', "length", "length"), ("[1]", "tool_calls", "invalid_json")],
)
def test_the_text_and_the_reason_are_kept_and_the_text_goes_back(
    stream: bool, text: str, finish_reason: str, reason: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    kept = {"c1": {"args": text, "reason": reason}}
    sandbox.script(*[answer([call(text)], finish_reason, stream)] * 2)
    message = ChatEmpirioLabs(**where, streaming=stream).invoke("x")
    assert message.response_metadata["truncated_tool_calls"] == kept
    (invalid,) = message.invalid_tool_calls
    assert (invalid["error"] is None) == stream
    llm = EmpirioLabs(**where)
    asked = [ChatMessage("x")]
    response = list(llm.stream_chat(asked))[-1] if stream else llm.chat(asked)
    assert response.additional_kwargs["truncated_tool_calls"] == kept
    result = {"role": "tool", "tool_call_id": "c1", "content": "Not run."}
    ChatEmpirioLabs(**where).invoke([{"role": "user", "content": "x"}, message, result])
    llm.chat([*asked, response.message, ChatMessage("Not run.", role="tool", additional_kwargs={"tool_call_id": "c1"})])
    for request in sandbox.requests[-2:]:
        assert request.body["messages"][1]["tool_calls"] == [call(text)]


@given(text=st.text(alphabet='{}[]"\\\n: a1', max_size=12))
def test_whatever_a_truncated_call_holds_langchain_runs_nothing(text: str) -> None:
    """LangChain closes brackets and strings, and drops unreadable text."""
    converter = ChunkConverter({"model": "m"})
    pieces = [{"tool_calls": [{"index": 0, **call(text[:3])}]}]
    pieces += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in text[3:]]
    chunks = [converter.convert({"choices": [{"delta": delta}]}) for delta in pieces]
    chunks.append(converter.convert({"choices": [{"delta": {}, "finish_reason": "length"}]}))
    first, *rest = [chunk.message for chunk in [*chunks, converter.finish()] if chunk is not None]
    merged: Any = first.__add__(rest)  # type: ignore[operator]
    whole = bool(text.strip()) and read_arguments(text) is not None
    assert len(merged.tool_calls) == whole
    assert len(merged.invalid_tool_calls) == (not whole)


@given(pieces=st.lists(st.text(alphabet='{}[]"\\ a', max_size=4)))
def test_brackets_are_followed_piece_by_piece(pieces: list[str]) -> None:
    parts, whole = Brackets(), Brackets()
    for piece in pieces:
        parts.feed(piece)
    whole.feed("".join(pieces))
    for name in Brackets.__slots__:
        assert getattr(parts, name) == getattr(whole, name)


def test_escapes_at_the_end_of_a_piece() -> None:
    brackets = Brackets()
    for piece in ('{"a": "\\', '"}', '"}'):
        brackets.feed(piece)
        assert brackets.in_string == (piece != '"}' or not brackets.closed)
    assert brackets.closed
    assert parse_partial_json('{"a": "\\"}"}') == {"a": '"}'}


# Odd pieces

PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
BOTH = [("f", {"city": "Paris"}), ("g", {"city": "Rome"})]


def delta(arguments: str | None = None, name: str | None = None, call_id: str | None = None, **index: Any) -> Any:
    return {**index, "id": call_id, "function": {"name": name, "arguments": arguments}}


SHAPES: dict[str, tuple[list[list[Any]], list[tuple[str, Any]]]] = {
    "two pieces of a call in a delta": (
        [[delta("", "f", "a", index=0), delta('{"city": ', index=0)], [delta('"Pa', index=0), delta('ris"}', index=0)]],
        BOTH[:1],
    ),
    "all pieces of two calls in a delta": (
        [[delta("", "f", "a", index=0), delta("", "g", "b", index=1), delta(PARIS, index=0), delta(ROME, index=1)]],
        BOTH,
    ),
    "neither index nor id, a delta for each": ([[delta(PARIS, "f")], [delta(ROME, "g")]], BOTH),
    "neither index nor id, in a delta": ([[delta(PARIS, "f"), delta(ROME, "g")]], BOTH),
    "neither index nor id, in pieces": (
        [[delta("", "f")], [delta(PARIS[:5])], [delta(PARIS[5:])], [delta(None, "g")], [delta(ROME)]],
        BOTH,
    ),
    "neither index nor id, the same tool": ([[delta(PARIS, "f")], [delta(ROME, "f")]], [BOTH[0], ("f", BOTH[1][1])]),
    "neither index nor id, the same tool without arguments": (
        [[delta("", "f"), delta("", "f")]],
        [("f", {}), ("f", {})],
    ),
    "neither index nor id, the same tool in pieces": (
        [[delta("", "f")], [delta(PARIS)], [delta("", "f")], [delta(ROME[:5])], [delta(ROME[5:])]],
        [BOTH[0], ("f", BOTH[1][1])],
    ),
    "no index, and a name on every piece, the last one empty": (
        [[delta(PARIS[:5], "f")], [delta(PARIS[5:], "f")], [delta("", "f")]],
        BOTH[:1],
    ),
    "no index, and a name on every piece": ([[delta(PARIS[:5], "f")], [delta(PARIS[5:], "f")]], BOTH[:1]),
    "ids, but no index": (
        [[delta("", "f", "a")], [delta(PARIS)], [delta("", "g", "b")], [delta(ROME, None, "b")]],
        BOTH,
    ),
    "an index that counts pieces": (
        [[delta("", "f", "a", index=0)], [delta(PARIS[:5], index=1)], [delta(PARIS[5:], index=2)]],
        BOTH[:1],
    ),
    "an index that counts pieces of two calls": (
        [
            [delta("", "f", "a", index=0)],
            [delta(PARIS, index=1)],
            [delta("", "g", "b", index=2)],
            [delta(ROME[:5], index=3)],
            [delta(ROME[5:], index=4)],
        ],
        BOTH,
    ),
    "an index that counts pieces, and an id on each": (
        [[delta(PARIS[:5], "f", "a", index=0)], [delta(PARIS[5:], None, "a", index=1)]],
        BOTH[:1],
    ),
    "an id made up for every piece": (
        [
            [delta("", "f", "a", index=0)],
            [delta(PARIS[:5], None, "b", index=0)],
            [delta(PARIS[5:], None, "c", index=0)],
        ],
        BOTH[:1],
    ),
    "one index for all, without ids": ([[delta(PARIS, "f", index=0)], [delta(ROME, "g", index=0)]], BOTH),
    "pieces that hold nothing": (
        [[delta(index=0)], [delta(PARIS, "f", "a", index=0)], [delta(index=0)], [delta("", index=1)]],
        BOTH[:1],
    ),
    "arguments as an object": ([[delta({"city": "Paris"}, "f", "a", index=0)]], BOTH[:1]),  # type: ignore[arg-type]
}


def streamed(deltas: list[list[Any]]) -> Answer:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"tool_calls": pieces}}]} for pieces in deltas]
    return Answer(chunks=[*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}])


@EACH_DRIVER
@pytest.mark.parametrize(("deltas", "calls"), SHAPES.values(), ids=SHAPES)
def test_streamed_calls_are_assembled(
    driver: Driver, deltas: list[list[Any]], calls: list[tuple[str, Any]], sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(streamed(deltas))
    assert driver(Case("x"), where, True).tool_calls == calls


@EACH_DRIVER
def test_calls_without_index_and_id_in_a_whole_reply(driver: Driver, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.script(answer([call(PARIS, "f", None), call(ROME, "g", None)], "tool_calls", False))
    assert driver(Case("x"), where, False).tool_calls == BOTH


@pytest.mark.parametrize("deltas", [shape for shape, _ in SHAPES.values()], ids=SHAPES)
def test_a_langchain_chunk_has_one_piece_of_each_call(
    deltas: list[list[Any]], sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(streamed(deltas))
    for chunk in ChatEmpirioLabs(**where).stream("x"):
        assert isinstance(chunk, AIMessageChunk)
        indices = [piece["index"] for piece in chunk.tool_call_chunks]
        assert len(indices) == len(set(indices))
        assert not chunk.invalid_tool_calls or chunk.tool_call_chunks


@EACH_DRIVER
def test_a_choice_that_was_not_requested_is_ignored(driver: Driver, sandbox: Sandbox, where: dict[str, Any]) -> None:
    def chunk(index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}

    chunks: list[Any] = [
        {"choices": [chunk(1, "No")]},
        {"choices": [chunk(0, "Ye")]},
        {"choices": [chunk(1, "pe."), chunk(0, "s.")]},
        {"choices": [chunk(1, "", "length")]},
        {"choices": [chunk(0, "", "stop")]},
        {"choices": [chunk(1, "!")], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ]
    sandbox.script(Answer(chunks=chunks))
    result = driver(Case("x"), where, True)
    assert (result.text, result.finish_reason) == ("Yes.", "stop")
    assert result.usage is not None


HALVES = {
    "joined": (["a\ud83c", "\udf26b"], "a🌦b"),
    "with an empty piece between": (["\ud83c", "", "\udf26"], "🌦"),
    "alone at the end": (["a\ud83c"], "a\ufffd"),
    "alone in the middle": (["a\ud83c", "b", "\udf26c"], "a\ufffdb\ufffdc"),
    "two in a row": (["\ud83c", "\udf26\ud83c", "\udf26"], "🌦🌦"),
}


@EACH_DRIVER
@pytest.mark.parametrize("where_it_is", ["content", "reasoning_content", "arguments"])
@pytest.mark.parametrize(("pieces", "whole"), HALVES.values(), ids=HALVES)
def test_halves_of_characters_are_joined(
    driver: Driver, where_it_is: str, pieces: list[str], whole: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    deltas: list[Any] = [{where_it_is: piece} for piece in pieces]
    if where_it_is == "arguments":
        parts = ['{"city": "', *pieces, '"}']
        deltas = [{"tool_calls": [delta(part, index=0)]} for part in parts]
        deltas[0]["tool_calls"][0]["function"]["name"] = "f"
    chunks = [{"choices": [{"index": 0, "delta": one}]} for one in [*deltas, {"content": "."}]]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    sandbox.script(Answer(chunks=[json.dumps(one) for one in [*chunks, end]]))
    result = driver(Case("x"), where, True)
    if where_it_is == "arguments":
        assert result.tool_calls == [("f", {"city": whole})]
    elif where_it_is == "content":
        # Its end is known when the stream ends.
        assert result.text in (whole + ".", whole)
    else:
        assert result.reasoning == whole
    json.dumps(result.__dict__, ensure_ascii=False).encode()


def test_half_a_character_in_a_whole_reply() -> None:
    message = {"content": "a\ud83c", "reasoning_content": "b\ud83c"}
    reply = check_completion({"choices": [{"message": message, "finish_reason": "stop"}]})
    generation = create_chat_result(reply, {"model": "x"}).generations[0]
    assert generation.text == "a\ufffd"
    assert generation.message.additional_kwargs["reasoning_content"] == "b\ufffd"
    response = chat_response(reply, {"model": "x"})
    assert response.message.content == "a\ufffd"
    assert response.message.model_dump_json()


def test_a_long_call_is_assembled_in_linear_time() -> None:
    """Ten times as many pieces take about ten times as long. Quadratic code would take a hundred times as long."""

    def seconds(count: int) -> float:
        calls = ToolCalls()
        calls.add([delta("", "f", "a", index=0)])
        piece = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a": [1,'}}]
        started = time.process_time()
        for _ in range(count):
            calls.add(piece)
        assert calls.calls[0].length == count * 9
        return time.process_time() - started

    small = min(seconds(2_000) for _ in range(3))
    assert min(seconds(40_000) for _ in range(3)) < 80 * small


# Ids


@EACH_WAY
@pytest.mark.parametrize("ids", [["f", "f"], ["f", "f", "f_2"], ["", "f", "f"]])
def test_ids_are_unique_within_an_answer(stream: bool, ids: list[str], sandbox: Sandbox, where: dict[str, Any]) -> None:
    calls = [call(json.dumps({"n": n}), "f", call_id) for n, call_id in enumerate(ids)]
    sandbox.script(*[answer(calls, "tool_calls", stream)] * 2)
    message = ChatEmpirioLabs(**where, streaming=stream).invoke("x")
    assert isinstance(message, AIMessage)
    llm, asked = EmpirioLabs(**where), [ChatMessage("x")]
    response = list(llm.stream_chat(asked))[-1] if stream else llm.chat(asked)
    blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    of_langchain = [(one["id"], one["args"]) for one in message.tool_calls]
    of_llamaindex = [(block.tool_call_id, block.tool_kwargs) for block in blocks]
    for found in (of_langchain, of_llamaindex):
        assert len({call_id for call_id, _ in found}) == len(ids)
        assert all(call_id for call_id, _ in found)
        assert [arguments for _, arguments in found] == [{"n": n} for n in range(len(ids))]
        if all(ids):
            assert found[0][0] == "f"
            assert found[1][0] == "f_2"


def test_responses_of_llamaindex_hold_snapshots() -> None:
    streamed_message = StreamedMessage({"model": "m"})
    responses = []
    for piece in ("", '{"a": ', "1}"):
        pieces = [delta(piece, "f", "a", index=0)]
        response = streamed_message.add({"choices": [{"index": 0, "delta": {"tool_calls": pieces}}]})
        assert response is not None
        responses.append(response)
    texts = [one.message.blocks[0].tool_kwargs for one in responses if isinstance(one.message.blocks[0], ToolCallBlock)]
    assert texts == ["", '{"a": ', '{"a": 1}']


def test_async_and_sync_read_the_same(sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.script(*[answer([call('{"a')], "length", True)] * 2)
    llm = ChatEmpirioLabs(**where, streaming=True)
    one, other = llm.invoke("x"), asyncio.run(llm.ainvoke("x"))
    assert one.response_metadata["truncated_tool_calls"] == other.response_metadata["truncated_tool_calls"]


# Recorded from DeepSeek

WIRE = Path(__file__).parents[2].parent / "shared" / "wire"
RECORDED = {
    "cut-tool-empty-arguments": [("file_report", "")],
    "cut-tool-half-arguments": [("file_report", '{"summary": ')],
    "cut-tool-second-of-two": [("page_oncall", {"team": "platform"}), ("file_report", '{"summary": ')],
}


@EACH_DRIVER
@EACH_WAY
@pytest.mark.parametrize(("name", "calls"), RECORDED.items(), ids=RECORDED)
def test_recorded_truncated_calls(
    driver: Driver, stream: bool, name: str, calls: list[tuple[str, Any]], sandbox: Sandbox, where: dict[str, Any]
) -> None:
    recording = WIRE / f"ds-chat-{name}{'-stream' if stream else ''}.json"
    if not recording.exists():
        pytest.skip(f"There is no recording {recording.name} on this machine.")
    got = json.loads(recording.read_text())["got"]
    events = [line.removeprefix("data: ") for line in got.splitlines() if line.startswith("data: {")]
    sandbox.script(Answer(chunks=events) if stream else Answer(body=json.loads(got)))
    found = driver(Case("x"), where, stream).tool_calls
    if stream and driver in (langchain_sync, langchain_async):
        calls = [(tool, f"{text}]" if isinstance(text, str) else text) for tool, text in calls]
    assert found == calls
