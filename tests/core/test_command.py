"""The command `empiriolabs`, over a socket to the sandbox."""

from __future__ import annotations

import subprocess
import sys

import pytest

from empiriolabs_core import __version__
from empiriolabs_core.__main__ import main
from empiriolabs_core.sandbox import Answer, Fault, Sandbox


@pytest.fixture
def _at_the_sandbox(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    monkeypatch.setattr("sys.argv", [])


@pytest.mark.usefixtures("_at_the_sandbox")
def test_chat_streams_one_answer(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.script(Answer("Blue.", reasoning="Skies are blue."))
    main(["chat", "Why", "is", "it?", "--effort", "low", "--model", "deepseek-v4-pro"])
    entry = sandbox.ledger[-1]
    shown = capsys.readouterr().out
    assert shown.startswith("[reasoning]\nSkies are blue.\n[answer]\nBlue.\n[tokens] ")
    assert f"{entry.prompt_tokens} prompt, {entry.completion_tokens} answer (" in shown
    assert "[cost] $0.0" in shown
    body = sandbox.requests[-1].body
    assert (body["model"], body["reasoning_effort"]) == ("deepseek-v4-pro", "low")
    assert body["messages"] == [{"role": "user", "content": "Why is it?"}]
    assert "web_search_linkup" not in body


@pytest.mark.usefixtures("_at_the_sandbox")
def test_chat_ends_with_a_sentence(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.fail(Fault("status", status=401))
    with pytest.raises(SystemExit, match=r"^\w*AuthenticationError: "):
        main(["chat"])
    monkeypatch.delenv("EMPIRIOLABS_API_KEY")
    with pytest.raises(SystemExit, match=r"MissingKeyError: .*EMPIRIOLABS_API_KEY"):
        main(["chat"])


def test_models_and_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [])
    main(["models", "deepseek-v4-pro"])
    assert "Frankfurt" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sandbox", "--help"])
    assert "--port" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["dance"])
    assert "invalid choice: 'dance'" in capsys.readouterr().err


def test_from_a_shell() -> None:
    command = [sys.executable, "-m", "empiriolabs_core", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == __version__
