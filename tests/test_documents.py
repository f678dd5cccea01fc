"""Every Python snippet of the documents runs, against the sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from empiriolabs_core.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "tests/README.md")
SNIPPETS = [
    pytest.param(snippet, id=f"{name}-{number}")
    for name in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL))
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet(
    snippet: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    exec(compile(snippet, "<document>", "exec"), {})
    if "print(" in snippet:
        assert capsys.readouterr().out.strip()


def test_the_readme_names_every_field() -> None:
    from empiriolabs_core.settings import Settings

    readme = (ROOT / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in readme and name != "model_kwargs"] == []
