"""The snippets of the guides that need a tracer: `make consumers` has an environment with each of them."""

from __future__ import annotations

import pytest

from empiriolabs_core.sandbox import Sandbox
from tests.test_documents import SNIPPETS, run

TRACED = [param for param in SNIPPETS if any(name in str(param.values[0]) for name in ("langsmith", "openinference"))]


@pytest.mark.parametrize("snippet", TRACED)
def test_a_snippet_with_a_tracer(
    snippet: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(snippet, sandbox, monkeypatch, capsys)
