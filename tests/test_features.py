"""The checks of the feature table: this package passes, and each check can fail. `make features` runs the peers."""

from __future__ import annotations

import datetime
import gc
import sys
from typing import Any

import pytest

from benchmarks.features.__main__ import SandboxWire, document, rows, run_peer
from benchmarks.features.subject import MODEL, WINDOW, Feature, NotApplicable, Shortfall, Subject, judge, run, several
from benchmarks.features.ways_langchain import LangChain
from benchmarks.features.ways_llamaindex import LlamaIndex
from empiriolabs_core.catalog import CARDS
from empiriolabs_core.sandbox import Sandbox
from tests.careless import CARELESS

MISSING = {"Supported by `init_chat_model`"}
"""Features that this package lacks. LangChain's registry of providers is closed to other packages."""


@pytest.mark.parametrize("name", ["langchain_ours", "llamaindex_ours"])
def test_ours(name: str, sandbox: Sandbox) -> None:
    found = run_peer(name, sys.executable, sandbox)
    short = {text: told for text, told in found["verdicts"].items() if told[0] != "yes"}
    assert set(short) == (MISSING if name == "langchain_ours" else set()), short
    assert len(found["verdicts"]) > 35
    assert found["versions"]["empiriolabs-adapters"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", [LangChain, LlamaIndex])
def test_every_check_can_fail(way: type[Subject], sandbox: Sandbox) -> None:
    verdicts = run(way(CARELESS[way.framework], SandboxWire(sandbox)))
    # Unclosed resources are collected here, so that they do not fail another test.
    gc.collect()
    assert [text for text, (verdict, _) in verdicts.items() if verdict not in ("no", "partly")] == []
    assert all(evidence for _, evidence in verdicts.values())


def test_verdicts(sandbox: Sandbox) -> None:
    subject = Subject(CARELESS["langchain"], SandboxWire(sandbox))

    def fall_short() -> None:
        raise Shortfall("Seen.")

    def verdict(check: Any) -> tuple[str, str]:
        return judge(Feature("group", "text", check), subject)

    def nothing_to_ask(_: Any) -> None:
        raise NotApplicable("No.")

    def cases(*results: Any) -> Any:
        return lambda t: several(t, {str(number): result for number, result in enumerate(results)})

    assert verdict(lambda t: None) == ("yes", "")
    assert verdict(lambda t: 1 / 0) == ("no", "ZeroDivisionError: division by zero")
    assert verdict(nothing_to_ask) == ("-", "No.")
    assert verdict(cases(lambda: None, lambda: None)) == ("yes", "")
    assert verdict(cases(lambda: None, fall_short)) == ("partly", "1: Seen.")
    assert verdict(cases(fall_short, fall_short)) == ("no", "0, 1: Seen.")


def test_the_document() -> None:
    asked = rows()[0].text
    results = {
        "langchain_ours": {"verdicts": {asked: ["yes", ""]}, "versions": {"langchain-core": "1.2.3"}},
        "langchain_vendor": {"verdicts": {asked: ["no", "It said: x."]}, "versions": {}},
    }
    written = document(results, datetime.date(2026, 1, 2))
    assert f"| {asked} | yes | no |" in written
    assert f"- {asked}: no. `` It said: x. ``" in written
    assert "2026-01-02" in written
    assert "langchain-core 1.2.3" in written


def test_the_window_is_the_cards() -> None:
    assert CARDS[MODEL].context_window == WINDOW
