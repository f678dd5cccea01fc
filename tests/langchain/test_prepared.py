"""Chunks of streams equal the chunks of LangChain's constructors, although they are built without them."""

from __future__ import annotations

import copy
import json
import pickle
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from pydantic import BaseModel

from langchain_empiriolabs.messages import ChunkConverter

WHOLE = '{"text": "a \\"b\\" {c} [d]", "more": [1, {"x": null}], "n": -1.5e3}'


def converted(delta: dict[str, Any], converter: ChunkConverter | None = None) -> ChatGenerationChunk:
    chunk = (converter or ChunkConverter({"model": "m"})).convert({"choices": [{"index": 0, "delta": delta}]})
    assert chunk is not None
    return chunk


def constructed(chunk: ChatGenerationChunk) -> ChatGenerationChunk:
    """Build a chunk from the same values with LangChain's constructors."""
    message: Any = chunk.message
    values = {"content": message.content, "additional_kwargs": message.additional_kwargs}
    if message.tool_call_chunks:
        values["tool_call_chunks"] = copy.deepcopy(message.tool_call_chunks)
    return ChatGenerationChunk(message=AIMessageChunk(response_metadata=message.response_metadata, **values))


def state(model: BaseModel) -> dict[str, Any]:
    found = dict(model.__getstate__())
    found["__dict__"] = {
        name: state(value) if isinstance(value, BaseModel) else value for name, value in found["__dict__"].items()
    }
    return found


def assert_same(one: ChatGenerationChunk, other: ChatGenerationChunk) -> None:
    assert one == other
    assert state(one) == state(other)
    assert one.model_dump() == other.model_dump()
    assert one.model_dump_json() == other.model_dump_json()
    assert pickle.loads(pickle.dumps(one)) == other
    assert copy.deepcopy(one) == other.model_copy()
    assert one + one == other + other
    assert one.__add__([one, one]) == other.__add__([other, other])
    assert repr(one) == repr(other)


@given(st.text(min_size=1), st.text())
def test_text_is_like_the_constructors(text: str, reasoning: str) -> None:
    chunk = converted({"content": text, "reasoning_content": reasoning})
    assert_same(chunk, constructed(chunk))


LIKE_JSON = st.text(alphabet='{}[]":, \t\n\\abcnultrefs019-.', max_size=12)
PIECES = LIKE_JSON | st.sampled_from(["{}", "null", " {", '{"a": 1}'])


@given(PIECES)
def test_pieces_of_calls_are_like_the_constructors(piece: str) -> None:
    converter = ChunkConverter({"model": "m"})
    first = converted(
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": '{"a": '}}]}, converter
    )
    assert_same(first, constructed(first))
    delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece or "x"}}]}
    chunk = converted(delta, converter)
    assert_same(chunk, constructed(chunk))
    assert first + chunk == constructed(first) + constructed(chunk)


@given(st.lists(st.integers(1, len(WHOLE) - 1), max_size=8).map(sorted))
def test_a_merged_call_is_like_langchains(cuts: list[int]) -> None:
    pieces = [WHOLE[start:end] for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True) if start < end]
    converter = ChunkConverter({"model": "m"})
    named = {"id": "1", "function": {"name": "f", "arguments": ""}}
    merged = converted({"tool_calls": [{"index": 0, **named}]}, converter)
    other = constructed(merged)
    for piece in pieces:
        chunk = converted({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, converter)
        merged, other = merged + chunk, other + constructed(chunk)
    assert merged == other
    message: Any = merged.message
    assert message.tool_calls[0]["args"] == json.loads(WHOLE)


def test_no_containers_are_shared() -> None:
    one, other = converted({"content": "a"}).message, converted({"content": "a"}).message
    for name in ("tool_calls", "invalid_tool_calls", "tool_call_chunks", "additional_kwargs", "response_metadata"):
        assert getattr(one, name) is not getattr(other, name)
    assert one.model_fields_set is not other.model_fields_set


def test_what_is_not_text_is_validated_by_langchain() -> None:
    piece = tool_call_chunk(name=None, args="x", id=None, index=0)
    call = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "x"}}
    assert converted({"tool_calls": [call]}).message.tool_call_chunks[0] == {**piece, "id": "1", "name": "f"}  # type: ignore[attr-defined]


def test_long_arguments_take_linear_time() -> None:
    def seconds(count: int) -> float:
        converter, before = ChunkConverter({"model": "m"}), time.process_time()
        for number in range(count):
            call = {"index": 0, "function": {"arguments": "word " if number else '{"text": "'}}
            converter.convert({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
        return time.process_time() - before

    # With quadratic time, the factor would be 64.
    assert seconds(80_000) / min(seconds(10_000) for _ in range(3)) < 32
