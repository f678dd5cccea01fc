"""What the tests of the kits share: no telemetry, and nothing that leaves this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Kits read these when they are imported, before any fixture runs.
os.environ.update(
    {
        "ANONYMIZED_TELEMETRY": "False",
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "DEEPEVAL_DISABLE_DOTENV": "1",
        "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
        "DEEPEVAL_UPDATE_WARNING_OPT_IN": "0",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OTEL_SDK_DISABLED": "true",
        "RAGAS_DO_NOT_TRACK": "true",
    }
)

_tried_to_leave: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections to other machines, and look-ups of their names, from these tests and their collection."""
    if event not in ("socket.connect", "socket.getaddrinfo"):
        return
    running = os.environ.get("PYTEST_CURRENT_TEST", "tests/consumers")
    address = arguments[1] if event == "socket.connect" else arguments[0]
    host = address[0] if isinstance(address, tuple) else address
    if not running.startswith("tests/consumers") or host in (None, "localhost", "::1", "0.0.0.0"):
        return
    if isinstance(host, str) and not host.startswith(("127.", "/")):
        _tried_to_leave.append(f"{event} {host} in {running}")
        raise PermissionError(f"No test may leave this machine, but one tried to reach {host}.")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _nothing_leaves() -> Iterator[None]:
    """Fail where a kit tried to reach another machine, even if it took the refusal in silence."""
    yield
    tried = _tried_to_leave.copy()
    _tried_to_leave.clear()
    assert tried == []


@pytest.fixture
def loop_to_close() -> Iterator[None]:
    """Give the present event loop to kits that would make one otherwise, and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
