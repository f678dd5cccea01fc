"""Every Python snippet of the documents runs, against the sandbox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


def _run(script: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMPIRIOLABS_")}
    command = [sys.executable, "-W", "ignore", str(ROOT / "cookbook" / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_cookbook_on_retrieval() -> None:
    shown = _run("rag.py")
    assert shown.count("The generator is named Gertrude.") == 2
    assert "text-embedding-v4" in shown


@pytest.mark.real_model
def test_the_demo() -> None:
    shown = _run("quickstart.py")
    assert "A real but very small language model" in shown
    for heading in (
        "a chain that streams",
        "a query engine over a document",
        "LangChain: an agent",
        "LlamaIndex: an agent",
    ):
        assert heading in shown
    assert "'input_tokens'" in shown
    assert "get_weather" in shown
