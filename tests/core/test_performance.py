"""The guide "Performance": what it shows works, with every fault too."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from empiriolabs_core.errors import EmpirioLabsError, NoAnswerInTimeError
from empiriolabs_core.sandbox import Sandbox
from empiriolabs_core.settings import Settings
from tests.core.test_faults import ABSURD, OK, ROWS, Row, addresses, meet

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "performance.md"


def is_installed() -> bool:
    async def create() -> None:
        await openai.DefaultAioHttpClient().aclose()

    try:
        asyncio.run(create())
    except (ImportError, RuntimeError):
        return False
    return True


needs_aiohttp = pytest.mark.skipif(not is_installed(), reason="openai[aiohttp] is not installed.")


AIOHTTP, COLLECTOR = re.findall(r"```py\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


def test_the_snippet_of_the_garbage_collector() -> None:
    # In a process of its own, since it changes the collector for good.
    done = subprocess.run([sys.executable, "-c", COLLECTOR], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == re.findall(r"^# (.*)$", COLLECTOR, flags=re.MULTILINE)[-1]


@needs_aiohttp
def test_the_snippet_of_aiohttp(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    exec(compile(AIOHTTP, "<guide>", "exec"), {})
    assert capsys.readouterr().out.strip() == "3 answers"


def ask(settings: dict[str, Any], request: Any, stream: bool) -> Any:
    """Return an answer over aiohttp, or the error."""

    async def over_aiohttp() -> Any:
        async with openai.DefaultAioHttpClient() as http_client:
            gateway = Settings(**settings, http_async_client=http_client).gateway
            if stream:
                return [chunk async for chunk in gateway.astream(request)]
            return await gateway.acomplete(request)

    try:
        return asyncio.run(over_aiohttp())
    except openai.OpenAIError as error:
        return error


@pytest.fixture(scope="module")
def places(_running: Sandbox) -> Iterator[dict[str, Any]]:
    with addresses(_running) as found:
        yield found


@needs_aiohttp
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_fault_over_aiohttp(row: Row, stream: bool, sandbox: Sandbox, places: dict[str, Any]) -> None:
    where = {"base_url": row.address.format(**places) or sandbox.base_url, "api_key": sandbox.api_key}
    request = meet(Settings(**where), sandbox, row, places, stream)
    came, expected = ask(where, request, stream), row.stream if stream else row.whole
    if expected is OK or (expected is ABSURD and not isinstance(came, Exception)):
        assert not isinstance(came, Exception), came
        return
    assert isinstance(came, EmpirioLabsError), came
    # The client reports each failure to connect over aiohttp as a timeout.
    allowed = (openai.RateLimitError,) if expected is ABSURD else (expected, NoAnswerInTimeError)
    assert isinstance(came, allowed), came
