"""LangChain's standard integration suite, whole, replayed from cassettes.

The cassettes were recorded against the sandbox, not against the live gateway: see standard/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empiriolabs_core.errors import DEFAULT_API_BASE
from empiriolabs_core.sandbox import Sandbox
from tests.langchain.test_standard import Integration
from tests.recording import is_live, is_recording

pytestmark = [pytest.mark.vcr, pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")]


class _Replayed:
    """Stands in for a sandbox on replay."""

    base_url = DEFAULT_API_BASE
    api_key = "sk-empiriolabs-replayed"


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Any]:
    if not is_recording(request.config) or is_live():
        yield _Replayed()
        return
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(Path(__file__).parent / "standard")


class TestReplayed(Integration):
    """The suite on replayed answers."""

    __test__ = True
