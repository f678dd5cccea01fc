"""The probe against the strict and the lenient sandbox: it distinguishes them, and no failure stops it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from empiriolabs_core.costs import cost_of
from empiriolabs_core.probe.__main__ import main, most_usd, plan, scrub
from empiriolabs_core.probe.outcomes import Call
from empiriolabs_core.probe.questions import probes
from empiriolabs_core.replies import Usage
from empiriolabs_core.sandbox import Answer, Fault, Sandbox

Run = Callable[..., str]


@pytest.fixture
def lenient() -> Iterator[Sandbox]:
    with Sandbox(strict=False) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def probe(sandbox: Sandbox, *arguments: str) -> str:
        monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
        monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
        path = tmp_path / "report.md"
        main(["--yes", "--pause", "0", "--report", str(path), *arguments])
        report, shown = path.read_text(), capsys.readouterr().out
        assert sandbox.api_key not in report + shown
        return report

    return probe


def test_the_strict_sandbox(sandbox: Sandbox, run: Run) -> None:
    report = run(sandbox)
    assert (
        "**Enforced: a turn without reasoning_content is rejected; an empty reasoning_content is accepted.**" in report
    )
    assert "plain turn without: accepted; plain turn, empty: accepted; plain turn with: accepted" in report
    assert "closing answer without: accepted; closing answer with: accepted" in report
    assert "content null: accepted; call turn, content empty: accepted; name with a space: accepted" in report
    assert "**Forced choices are rejected while the model thinks.**" in report
    assert "json_object, prompt without 'JSON': rejected (400)" in report
    assert "**effort none, thinking on: did not reason; effort low, budget: reasoned" in report
    assert "**Reasoning counts towards max_tokens; n=2 returns 2 choices; logprobs are returned." in report
    assert "4 stops: accepted; 5 stops: rejected (400)" in report
    assert "**11 inputs: rejected (400), 0 vectors; base64: accepted, 1 vectors as str.**" in report
    assert "whole: sources heading, 2 links" in report
    assert "no formatting: no sources heading, 0 links" in report
    assert "over-long prompt: 400 with keys message, type, param, code" in report
    assert sandbox.base_url in report
    # Each request is sent once and unchanged, with the account's key unless the request names another key.
    calls = [call for probe in probes() for call in probe.calls]
    assert [request.body for request in sandbox.requests] == [call.body for call in calls]
    told = {call.label: r.headers.get("authorization") for call, r in zip(calls, sandbox.requests, strict=True)}
    assert told.pop("no key") is None
    assert told.pop("wrong key") != f"Bearer {sandbox.api_key}"
    assert set(told.values()) == {f"Bearer {sandbox.api_key}"}

    billed = [
        cost_of(line.model, Usage(line.prompt_tokens, line.completion_tokens, 0), web_search=line.web_search)
        for line in sandbox.ledger
    ]
    amounts = [most_usd(call) for call in calls]
    most = sum((amount for amount in amounts if amount is not None), Decimal(0))
    assert Decimal(0) < sum((cost.total for cost in billed if cost), Decimal(0)) < most < Decimal("0.33")
    assert f"Total at the catalogue's rates: at most ${most:.4f}" in plan(probes())


def test_the_lenient_sandbox(lenient: Sandbox, run: Run) -> None:
    report = run(lenient)
    assert "**Not enforced: the turn is accepted with and without reasoning_content.**" in report
    assert "**Forced choices are accepted: the tool is called, with reasoning.**" in report
    assert "json_object, prompt without 'JSON': accepted" in report


def test_an_estimate_by_hand() -> None:
    body = {"model": "deepseek-v4-flash", "max_tokens": 100, "thinking_budget": 900, "n": 2}
    prompt = len('{"model": "deepseek-v4-flash", "max_tokens": 100, "thinking_budget": 900, "n": 2}') + 1000
    assert most_usd(Call("", body)) == (prompt * Decimal("0.14") + 2000 * Decimal("0.28")) / 1_000_000
    assert most_usd(Call("", {**body, "model": "of-no-card"})) is None
    assert "an unknown amount" in plan(probes("of-no-card"))


def test_a_failure_does_not_stop_the_other_probes(sandbox: Sandbox, run: Run) -> None:
    broken = [
        Fault("status", status=500),
        Fault("status", status=400),
        Fault("reset"),
        Fault("html"),
        Fault("timeout", seconds=5),
        Fault("cut", after=3),
        Fault("choices", value=[{"message": "no object"}]),
        Fault("error_body"),
        Fault("bad_utf8"),
        Fault("empty"),
    ]
    # The probes of the other endpoints meet the same faults again.
    for probe, fault in zip(probes(), itertools.cycle(broken), strict=False):
        sandbox.fail(fault, *[None for call in probe.calls[1:] if call.body is not None])
    report = run(sandbox, "--timeout", "2")
    for number, probe in enumerate(probes(), 1):
        assert f"## {number}. {probe.name}\n\n{probe.question}\n\n**" in report
    assert "**Unclear. without: not answered (500); empty: accepted; with: accepted.**" in report
    assert "**plain turn without: rejected (400); plain turn, empty: accepted" in report
    assert "### auto, thinking: no answer, " in report
    assert "### effort none, thinking on: " in report
    assert "Timeout" in report
    assert "11 inputs: accepted" not in report
    assert "base64: accepted" in report


def test_without_a_key_the_plan_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert "20. errors" in shown
    assert "Total at the catalogue's rates: at most $0." in shown
    assert shown.endswith("Nothing was sent. Set EMPIRIOLABS_API_KEY to send the requests.\n")


def test_nothing_is_sent_before_the_cost_is_agreed_to(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    with pytest.raises(SystemExit, match="Pass --yes"):
        main([])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "no")
    with pytest.raises(SystemExit, match="Nothing was sent"):
        main([])
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("key", "address", "fault", "said"),
    [
        ("sk-wrong", "", None, "rejected the key (401"),
        ("", "", Fault("status", status=402, code="insufficient_credits"), "has no credits (402"),
        ("", "http://127.0.0.1:9/v1", None, "does not respond (ConnectError"),
    ],
)
def test_the_probe_stops_if_no_request_can_succeed(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    key: str,
    address: str,
    fault: Fault | None,
    said: str,
) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", key or sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", address or sandbox.base_url)
    sandbox.fail(fault)
    with pytest.raises(SystemExit) as stopped:
        main(["--yes", "--pause", "0", "--report", str(tmp_path / "report.md")])
    assert said in str(stopped.value)
    assert len(sandbox.requests) == (0 if address else 1)
    assert not (tmp_path / "report.md").exists()


def test_account_data_are_not_reported(sandbox: Sandbox, run: Run) -> None:
    told = {"account_id": "acct-77", "balance": 12.5, "owner": "ann@example.com", "key": "sk-empiriolabs-abcdef"}
    message = {"role": "assistant", "content": "Yes."}
    sandbox.script(Answer(body={"choices": [{"index": 0, "message": message}], **told}))
    report = run(sandbox)
    assert '"account_id":"<account>"' in report
    for secret in ("acct-77", "12.5", "ann@example.com", "abcdef"):
        assert secret not in report
    assert scrub("http://ann:secret@host/v1", "") == "http://host/v1"


def test_nothing_imports_it() -> None:
    code = "import sys, langchain_empiriolabs, llamaindex_empiriolabs, empiriolabs_core.sandbox; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert "empiriolabs_core.settings" in done.stdout
    assert "empiriolabs_core.probe" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--report", "no-such-folder/x.md"], ["--report", "."], ["--pause", "-1"], ["--timeout", "nan"]]
)
def test_wrong_arguments_cost_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    with pytest.raises(SystemExit):
        main(["--yes", *arguments])
    assert sandbox.requests == []
