"""Whatever an endpoint sends, a typed error or an answer comes out; bytes may be cut anywhere; time is linear."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.endpoints import messages as messages_module
from empiriolabs_core.endpoints import responses as responses_module
from empiriolabs_core.errors import EmpirioLabsError, readable
from empiriolabs_core.events import EventDecoder
from empiriolabs_core.replies import StreamCheck, StreamedReply, check_completion

TYPES = [*map(str, responses_module._EVENTS), *map(str, messages_module._EVENTS), "ping"]
KINDS = ["message", "reasoning", "function_call", "text", "thinking", "tool_use", "text_delta", "input_json_delta"]
NAMES = [
    *("item", "response", "delta", "content", "content_block", "index", "output_index", "item_id", "id", "call_id"),
    *("name", "arguments", "input", "text", "summary", "output", "usage", "message", "error", "annotations", "status"),
    *("citations", "partial_json", "thinking", "input_tokens", "output_tokens", "stop_reason", "incomplete_details"),
]
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([*KINDS, "completed", "{}", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4).flatmap(
            lambda found: st.sampled_from(KINDS).map(lambda kind: {**found, "type": kind})
        )
    ),
    max_leaves=10,
)
EVENT = st.builds(
    lambda kind, found: {**found, "type": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=5),
)
OTHERS = pytest.mark.parametrize("name", ["responses", "messages"])


@OTHERS
@given(events=st.lists(EVENT | VALUE, max_size=8))
def test_any_events(name: str, events: list[Any]) -> None:
    make, check, reply = ENDPOINTS[name].reader, StreamCheck(), StreamedReply()
    assert make is not None
    reader, read_chunk = make(), readable(reply.read)
    with contextlib.suppress(EmpirioLabsError):
        for event in events:
            chunk = reader.read(event)
            if chunk is not None:
                read_chunk(check.see(chunk))
        check.end()


@OTHERS
@given(body=st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=6))
def test_any_reply(name: str, body: dict[str, Any]) -> None:
    read = readable(lambda reply: check_completion(ENDPOINTS[name].read_reply(reply)))
    with contextlib.suppress(EmpirioLabsError):
        read(body)
    ENDPOINTS[name].read_usage(body.get("usage"))


def _stream(name: str, deltas: int) -> bytes:
    if name == "responses":
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {"id": "r", "model": "m"}},
            *({"type": "response.output_text.delta", "output_index": 0, "delta": "ü🌦"} for _ in range(deltas)),
            {"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 1}}},
        ]
    else:
        events = [
            {"type": "message_start", "message": {"id": "r", "model": "m"}},
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ü🌦"}}
                for _ in range(deltas)
            ),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 1}},
            {"type": "message_stop"},
        ]
    lines = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join(lines).encode()


def _text(name: str, *reads: bytes) -> str:
    make, decoder, check, reply = ENDPOINTS[name].reader, EventDecoder(), StreamCheck(), StreamedReply()
    assert make is not None
    reader = make()
    for read in reads:
        for event in decoder.feed(read):
            chunk = reader.read(event)
            if chunk is not None:
                reply.read(check.see(chunk))
    check.end()
    return reply.text


@OTHERS
def test_a_stream_cut_at_every_byte(name: str) -> None:
    whole = _stream(name, 2)
    for cut in range(len(whole)):
        assert _text(name, whole[:cut], whole[cut:]) == "ü🌦ü🌦"


@OTHERS
def test_time_is_linear(name: str) -> None:
    def seconds(deltas: int) -> float:
        stream = _stream(name, deltas)
        before = time.process_time()
        _text(name, stream)
        return time.process_time() - before

    # Quadratic time would be a hundred times as long.
    assert seconds(20_000) < 40 * max(min(seconds(2_000) for _ in range(3)), 0.01)
