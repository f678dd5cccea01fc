"""Decode server-sent events: the input is the bytes of a response, the output is parsed JSON values.

The format is defined in the WHATWG HTML standard, section 9.2, "Server-sent events". The OpenAI client's own decoder
raises errors for valid streams (events without data, a byte order mark) and hides `[DONE]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Done:
    """The type of `DONE`, the sentinel for the event `[DONE]`."""

    def __repr__(self) -> str:
        """Return the event's text."""
        return "[DONE]"


DONE: Final = Done()
"""Sentinel for the event `[DONE]`, with which OpenAI-compatible servers end a stream."""


class EventDecoder:
    """Decodes the events of one stream.

    The data of every event is parsed as JSON. Events without data are skipped. Two formats of errors outside the
    standard are supported: a line `error: {...}` instead of data (GPUStack, llama.cpp), and an event named `error`,
    whose data becomes `{"error": ...}` unless it already has an `error`.

    Time is linear in the number of bytes, independent of the size of the reads.

    Attributes:
        begun: whether an event with data was received.
    """

    def __init__(self) -> None:
        self.begun = False
        self._line: list[bytes] = []
        """The parts of an incomplete line."""
        self._data: list[bytes] = []
        """The data lines of an incomplete event."""
        self._name = b""
        self._first_line = True
        self._skip_line_feed = False

    def feed(self, read: bytes) -> Iterator[Any]:
        """Yield the values of the events that end in the next bytes of the stream, or `DONE`.

        Raises:
            UnicodeDecodeError, ValueError, RecursionError: if an event's data is not valid JSON.
        """
        data = self._data
        for line in self._lines(read):
            if line[:5] == b"data:":
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if data:
                    value = data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
                    if self._name or not value.strip():
                        yield from self._unusual(value)
                    else:
                        self.begun = True
                        yield parse(value)
                self._name = b""
            elif line[0] != 58:
                yield from self._field(line)

    def _lines(self, read: bytes) -> list[bytes]:
        """Return the lines that end in the next bytes. A line ends with CR, LF or CRLF."""
        if self._skip_line_feed and read:
            read = read.removeprefix(b"\n")
            self._skip_line_feed = False
        lines = read.splitlines()
        if not lines:
            return lines
        last = read[-1]
        self._skip_line_feed = last == 13
        rest = None if last == 10 or last == 13 else lines.pop()
        if self._line and lines:
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
        if rest is not None:
            self._line.append(rest)
        if self._first_line and lines:
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
            self._first_line = False
        return lines

    def _field(self, line: bytes) -> Iterator[Any]:
        """Read any other line: not data with a colon, not empty and not a comment."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"error":
            self.begun = True
            yield _as_error(value)

    def _unusual(self, value: bytes) -> Iterator[Any]:
        """Yield the value of an event that has a name, or whose data is empty."""
        if value.strip():
            self.begun = True
            yield _as_error(value) if self._name == b"error" else parse(value)


def parse(data: bytes) -> Any:
    """Return the value of an event's data, or `DONE`.

    Raises:
        UnicodeDecodeError, ValueError, RecursionError: if the data is neither JSON nor `[DONE]`.
    """
    try:
        return from_json(data)
    except ValueError:
        if data.startswith(b"[DONE]"):
            return DONE
        # The standard parser also accepts unpaired surrogates and hundreds of nested lists.
        return json.loads(data.decode())


def _as_error(data: bytes) -> Any:
    """Return an error that a server reported, as an object with the key `error`."""
    try:
        value = parse(data)
    except ValueError:
        value = data.decode(errors="replace")
    return value if isinstance(value, dict) and value.get("error") else {"error": value or "no message"}
