"""The fault matrix, and the content received before a fault, on the other two endpoints, for each kind of call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from empiriolabs_core.sandbox import Sandbox
from tests.core.test_faults import ABSURD, OK, ROWS, Row, addresses, break_with
from tests.drivers import DRIVERS, Case

OTHERS = ["responses", "messages"]
SMALL = [row for row in ROWS if not row.name.startswith("a line of")]
"""Lines are read before any endpoint sees them, so the rows of huge ones are tested once."""
FURTHER_WORDS = "ended before the answer started|returned 200, but no (finished response|message)"
"""These streams begin with events that are not pieces of an answer, and these replies have no choices."""
EMPTY = "an empty answer"
WHOLE = {
    # A fault of streams, which do not report the reason of a whole reply.
    "no finish_reason": OK,
    # A reply without choices is broken. One without items or blocks is an answer of no words.
    "choices: []": EMPTY,
}
"""What comes of whole replies where it is not the same as on chat completions."""


@pytest.fixture(scope="module")
def places(_running: Sandbox) -> Iterator[dict[str, Any]]:
    with addresses(_running) as found:
        yield found


@pytest.mark.parametrize("endpoint", OTHERS)
@pytest.mark.parametrize(
    ("driver", "stream"),
    [("langchain", True), ("llamaindex-async", True), ("llamaindex", False)],
    ids=["stream", "async-stream", "whole"],
)
@pytest.mark.parametrize("row", SMALL, ids=str)
def test_fault(row: Row, driver: str, stream: bool, endpoint: str, sandbox: Sandbox, places: dict[str, Any]) -> None:
    where = {**break_with(sandbox, row, places), "endpoint": endpoint}
    expected = row.stream if stream else WHOLE.get(row.name, row.whole)
    came = _come_of(driver, where, stream)
    if expected is OK or (expected is ABSURD and not isinstance(came, Exception)):
        assert not isinstance(came, Exception), came
        assert came.text == "You said: Hello That is all there is to say."
        return
    if expected is EMPTY:
        assert came.text == ""
        return
    assert isinstance(came, openai.RateLimitError if expected is ABSURD else expected), came
    assert re.search(f"{row.says}|{FURTHER_WORDS}", str(came)), str(came)
    assert "sk-empiriolabs" not in str(came)


def _come_of(driver: str, where: dict[str, Any], stream: bool) -> Any:
    try:
        return DRIVERS[driver](Case("x"), where, stream)
    except Exception as error:
        return error
