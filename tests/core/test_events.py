"""Server-sent events, compared with a slow decoder that follows the standard literally, and over sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empiriolabs_core.errors import IncompleteStreamError, InvalidReplyError, ReportedError
from empiriolabs_core.events import DONE, EventDecoder
from tests.drivers import DRIVERS, Case, Driver
from tests.raw_server import RawServer

EACH_DRIVER = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)


def reference(body: bytes) -> list[Any]:
    """Return the values of a whole stream, as the standard's "Parsing" and "Interpreting an event stream" say."""
    text = body.decode("utf-8")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    values, data = [], ""
    *lines, _unfinished = text.split("\n")
    for line in lines:
        if line == "":
            if data != "" and data.removesuffix("\n").strip():
                data = data.removesuffix("\n")
                values.append(DONE if data.startswith("[DONE]") else json.loads(data))
            data = ""
            continue
        name, _, value = line.partition(":")
        if name == "data":
            data += value.removeprefix(" ") + "\n"
    return values


def decoded(body: bytes, *cuts: int) -> list[Any]:
    decoder, values, start = EventDecoder(), [], 0
    for cut in (*cuts, len(body)):
        values += decoder.feed(body[start:cut])
        start = cut
    return values


STREAMS = {
    "plain": 'data: {"a": 1}\n\ndata: [DONE]\n\n',
    "no space": 'data:{"a": 1}\n\ndata:[DONE]\n\n',
    "carriage returns": 'data: {"a": 1}\r\rdata: 2\r\r',
    "both": 'data: {"a": 1}\r\n\r\ndata: 2\r\n\r\n',
    "mixed ends": 'data: {"a":\rdata: 1}\n\r\ndata: 2\r\n\rdata: 3\n\n',
    "a byte order mark": '\ufeffdata: {"a": 1}\n\n',
    "two byte order marks": '\ufeff\ufeffdata: 1\n\ndata: "\ufeff"\n\n\ufeffdata: 3\n\n',
    "comments": ": keep-alive\n\n:\n\ndata: 1\n: in between\n\n: OPENROUTER PROCESSING\n\ndata: 2\n\n",
    "events without data": "retry: 3000\n\nid: 7\n\nevent: ping\n\ndata: 1\n\n",
    "other fields": 'id: 1\nevent: message\nretry: 5\nunknown: x\ndata: {"a": 1}\n\n',
    "many lines of data": 'data: {"a":\ndata\ndata: [1,\ndata:  2]}\n\n',
    "empty data": "data:\n\ndata: \n\ndata\n\ndata: 1\n\n",
    "a field whose name begins alike": "database: 1\n\ndata: 2\n\ndat: 3\n\n",
    "text of all lengths": 'data: {"a": "ü€🌦\u2028\u2029\u0085"}\n\n',
    "no end": "data: 1\n\ndata: 2",
    "no blank line": "data: 1\n\ndata: 2\n",
    "after [DONE]": "data: [DONE]\n\ndata: 1\n\n",
}


@pytest.mark.parametrize("text", STREAMS.values(), ids=STREAMS)
def test_decodes_like_the_standard_at_every_cut(text: str) -> None:
    body = text.encode()
    expected = reference(body)
    assert expected or "{" not in text
    assert decoded(body) == expected
    assert decoded(body, *range(1, len(body))) == expected
    for cut in range(1, len(body)):
        assert decoded(body, cut) == expected, cut
        assert decoded(body, cut, cut) == expected, cut


FIELDS = ["data: ", "data:1\n", 'data: {"a": "ü🌦\u2028"}\n\n', "event: x\n", "retry: 1\n", ": c\n", "data: [DONE]\n\n"]
PARTS = st.sampled_from([*FIELDS, "\n", "\r", "\r\n", "\n\n", "data", ":", " ", "id", "\ufeff", "x"])
UNREADABLE = r"(?i)expecting|invalid|extra data|codec|unterminated|BOM|limit"
"""What the standard library says of text that is not JSON."""


@given(st.lists(PARTS, max_size=30), st.data())
def test_decodes_any_stream_like_the_standard(parts: list[str], data: st.DataObject) -> None:
    body = "".join(parts).encode()
    try:
        expected = reference(body)
    except ValueError:
        with pytest.raises(ValueError, match=UNREADABLE):
            decoded(body)
        return
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8).map(sorted))
    assert decoded(body, *cuts) == expected


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_parses_json_like_the_standard_library(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()):
        assert repr(decoded(f"data: {text}\n\n".encode())) == repr([json.loads(text)] if text.strip() else [])


@pytest.mark.parametrize(
    "text",
    ["NaN", "-Infinity", "1" * 4000, '"\\ud83d"', "[" * 500 + "]" * 500, "1e999", '{"a": 1, "a": 2}'],
    ids=lambda text: str(text)[:20],
)
def test_accepts_what_the_standard_library_accepts(text: str) -> None:
    assert repr(decoded(f"data: {text}\n\n".encode())) == repr([json.loads(text)])


@pytest.mark.parametrize("data", [b"{", b"x", b'"\xff"', b"{'a': 1}", b"\xef\xbb\xbf1", b"1" * 5000])
def test_data_that_is_not_json(data: bytes) -> None:
    with pytest.raises(ValueError, match=UNREADABLE):
        decoded(b"data: " + data + b"\n\n")


def test_what_came_before_an_error_is_yielded() -> None:
    events = EventDecoder().feed(b"data: 1\n\ndata: {\n\ndata: 2\n\n")
    assert next(events) == 1
    with pytest.raises(ValueError, match=UNREADABLE):
        next(events)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('error: {"error": {"message": "out of memory", "code": 500}}', {"message": "out of memory", "code": 500}),
        ('error: {"message": "out of memory"}', {"message": "out of memory"}),
        ("error: out of memory", "out of memory"),
        ('event: error\ndata: {"message": "out of memory"}', {"message": "out of memory"}),
        ('event: error\ndata: {"error": "out of memory"}', "out of memory"),
        ("error:", "no message"),
    ],
)
def test_errors_in_place_of_data(line: str, error: Any) -> None:
    assert decoded(f"data: 1\n\n{line}\n\ndata: 2\n\n".encode()) == [1, {"error": error}, 2]


def seconds(body: bytes, size: int) -> float:
    decoder, before = EventDecoder(), time.process_time()
    for start in range(0, len(body), size):
        for _ in decoder.feed(body[start : start + size]):
            pass
    return time.process_time() - before


@pytest.mark.parametrize("body", [b'data: "%s"\n\n', b"data: [\n%sdata: 1]\n\n", b": %s\n\n"])
def test_time_is_linear(body: bytes) -> None:
    filling = b"data: 1,\n" if b"[" in body else b"x" * 9

    def measured(pieces: int) -> float:
        return min(seconds(body % (filling * pieces), 64) for _ in range(3))

    # Quadratic time would be 64 times as long.
    assert measured(160_000) / measured(20_000) < 30


def chunk(text: str, finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return json.dumps({"id": "1", "model": "m", "choices": [choice]}, ensure_ascii=False)


WHOLE = f"data: {chunk('Hel')}\n\ndata: {chunk('lo', 'stop')}\n\ndata: [DONE]\n\n"
ALSO_VALID = {
    "a byte order mark": "\ufeff" + WHOLE,
    "carriage returns": WHOLE.replace("\n", "\r"),
    "events without data": f"retry: 1000\n\nevent: ping\n\nid: 1\n\n{WHOLE}",
    "many lines of data": WHOLE.replace('{"id"', '{\ndata: "id"'),
    "no [DONE]": WHOLE.removesuffix("data: [DONE]\n\n"),
    "no finish_reason": WHOLE.replace('"stop"', "null"),
    "after [DONE]": WHOLE + f"data: {chunk('!')}\n\ndata: {{\n\n",
}


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@EACH_DRIVER
@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain", "application/json", None])
@pytest.mark.parametrize("body", ALSO_VALID.values(), ids=ALSO_VALID)
def test_valid_streams_are_read_whatever_their_content_type(
    driver: Driver, body: str, content_type: str | None, server: RawServer
) -> None:
    server.answer(body.encode(), content_type)
    assert driver(Case("x"), server.where, True).text == "Hello"


@EACH_DRIVER
@pytest.mark.parametrize("content_type", ["Application/JSON", "text/plain", "text/event-stream", None])
def test_whole_replies_are_read_whatever_their_content_type(
    driver: Driver, content_type: str | None, server: RawServer
) -> None:
    message = {"role": "assistant", "content": "Hello"}
    body = json.dumps({"id": "1", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})
    server.answer(body.encode(), content_type)
    assert driver(Case("x"), server.where, False).text == "Hello"


@EACH_DRIVER
@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (
            f'data: {chunk("Hel")}\n\nerror: {{"error": {{"message": "out of memory"}}}}\n\n',
            ReportedError,
            "out of memory",
        ),
        (f'data: {chunk("Hel")}\n\nevent: error\ndata: {{"message": "overloaded"}}\n\n', ReportedError, "overloaded"),
        ('{"error": {"message": "no such lane"}}', ReportedError, "no such lane"),
        ('{"choices": []}', InvalidReplyError, "A stream was requested"),
        ("", IncompleteStreamError, "before the answer started"),
        ("data: [DONE]\n\n", IncompleteStreamError, "before the answer started"),
        (": keep-alive\n\n", IncompleteStreamError, "before the answer started"),
        (f"data: {chunk('Hel')}\n\ndata: [DONE]", IncompleteStreamError, "without a finish_reason"),
    ],
)
def test_what_is_not_a_whole_answer(driver: Driver, body: str, error: Any, says: str, server: RawServer) -> None:
    server.answer(body.encode(), "text/event-stream")
    with pytest.raises(error, match=says):
        driver(Case("x"), server.where, True)
