"""Model cards against the model pages, and the live catalogue against the sandbox."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from empiriolabs_core import catalog
from empiriolabs_core.catalog import CARDS, ModelCard, Rates, card, live, read_entry
from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import BudgetExceededError, ConnectionDroppedError, InvalidReplyError, SettingsError
from empiriolabs_core.sandbox import Sandbox
from empiriolabs_core.sandbox.entries import entry
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

PAGES = {page.stem: page.read_text() for page in (Path(__file__).parent / "model_pages").glob("*.txt")}


@pytest.fixture(autouse=True)
def _same_cards_after() -> Iterator[None]:
    before = dict(CARDS)
    yield
    CARDS.clear()
    CARDS.update(before)


def _rate(page: str, spec: str) -> tuple[Decimal | None, Decimal]:
    """Return the price of a spec, and the list price if it differs."""
    found = re.search(rf"{spec}\n((?:\$[\d.]+)+)", page)
    assert found, spec
    *before, now = [Decimal(price) for price in found[1].split("$")[1:]]
    return (before[0] if before else None), now


def _page_rates(page: str, search: str) -> Rates:
    list_input, now_input = _rate(page, "per 1M prompt tokens")
    list_output, now_output = _rate(page, "per 1M generated tokens")
    cached = _rate(page, "per 1M cached input tokens")[1] if "cached input" in page else None
    return Rates(now_input, now_output, cached, _rate(page, search)[1], list_input, list_output)


@pytest.mark.parametrize("model", PAGES)
def test_every_number_of_the_model_pages(model: str) -> None:
    page, known = PAGES[model], CARDS[model]
    main, *variants = re.split(r"\n(?=DeepSeek V4 \w+ :variant\d)", page.split("common questions")[0])
    assert known.rates == _page_rates(main, "per call when invoked")
    assert f"Model ID\n{known.id}\n" in page
    assert f"Provider\n{known.provider}\n" in page
    assert f"Region\n{known.region}\n" in page
    assert f"Max output\n{known.max_output_tokens:,} tokens\n" in page
    assert "Context window\n1M tokens\n" in page
    assert known.context_window == 1_000_000
    assert "\n".join(known.endpoints) in page
    assert len(variants) == 2
    for number, text in enumerate(variants, 1):
        variant = CARDS[f"{model}:variant{number}"]
        assert f"model id {variant.id}." in text
        assert f"{variant.name}{variant.region}1M context" in text
        assert variant.rates == _page_rates(text, "per request when enabled")


@pytest.mark.parametrize("model", PAGES)
def test_every_parameter_of_the_model_pages(model: str) -> None:
    listed = PAGES[model].split("ParameterTypeDefaultRange / valuesDescription\n")[1].split("\n\n")[0].splitlines()
    assert len(listed) == len(CARDS[model].parameters)
    for parameter in CARDS[model].parameters:
        default = parameter.default
        said = "-" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        bounds = f"{parameter.minimum} to {parameter.maximum}" if parameter.maximum is not None else ""
        expected = (
            rf"{parameter.name}(string|boolean|enum|number){re.escape(said)}{bounds}{', '.join(parameter.options)}"
        )
        assert any(re.match(expected, row) for row in listed), expected


def test_the_catalogue_comes_back_as_the_cards(sandbox: Sandbox) -> None:
    before = dict(CARDS)
    for cards in (catalog.fetch(sandbox.base_url), asyncio.run(catalog.afetch(sandbox.base_url))):
        for found in cards:
            ours = before[found.id]
            assert (found.context_window, found.region, found.needs_reasoning_back) == (
                ours.context_window,
                ours.region,
                ours.needs_reasoning_back,
            )
            assert found.rates is not None
            assert ours.rates is not None
            assert (found.rates.input, found.rates.output) == (ours.rates.input, ours.rates.output)
            assert (found.rates.cached_input, found.rates.web_search) == (
                ours.rates.cached_input,
                ours.rates.web_search,
            )
    assert all("authorization" not in request.headers for request in sandbox.requests)
    for owner in (ChatEmpirioLabs, EmpirioLabs):
        assert [found.id for found in owner.list_models(sandbox.base_url)] == list(before)
        assert len(asyncio.run(owner.alist_models(sandbox.base_url))) == len(before)


def test_entries_of_many_shapes() -> None:
    assert read_entry({"id": "x"}) == ModelCard(id="x", name="x", input_modalities=None)
    tiers = [{"prompt": "0.000001", "completion": 0.000002, "input_cache_read": None}, {"prompt": "1"}]
    found = read_entry(
        {
            "id": "x:y",
            "name": "X",
            "context_window": "1000",
            "pricing": tiers,
            "capabilities": {"thinking": True, "vision": None},
            "supported_parameters": ["seed", {"name": "top_p", "min": "0", "max": 1}],
            "structured_output": "json_object",
            "novel": [1],
        }
    )
    assert found.rates == Rates(Decimal(1), Decimal(2))
    assert (found.context_window, found.thinks, found.json_object_only) == (1000, True, True)
    assert [parameter.name for parameter in found.parameters] == ["seed", "top_p"]


def test_what_the_catalogue_leaves_out_stays_known() -> None:
    """The keys are not documented. A missing key removes neither rates nor limits."""
    before = dict(CARDS)
    listed = [{"id": "deepseek-v4-flash", "context_length": None, "pricing": {"in": "1"}}, {"id": "vision-x"}]
    with Sandbox(catalogue=listed, models=["vision-x"]) as sandbox:
        where = {"base_url": sandbox.base_url, "api_key": sandbox.api_key}
        ChatEmpirioLabs.list_models(sandbox.base_url)
        assert CARDS["deepseek-v4-flash"] == before["deepseek-v4-flash"]
        with track_cost(budget_usd="0.0000001"):
            ChatEmpirioLabs(**where).invoke("Hello")
            with pytest.raises(BudgetExceededError):
                ChatEmpirioLabs(**where).invoke("Hello")
        image = {"type": "image", "url": "http://127.0.0.1/a.png"}
        assert ChatEmpirioLabs(model="vision-x", **where).invoke([HumanMessage([image])]).content


def test_a_price_that_is_not_listed_stays_known() -> None:
    entry = {"id": "deepseek-v4-flash:variant2", "pricing": {"prompt": "0.000001", "completion": "0.000002"}}
    known = CARDS[entry["id"]].rates
    found = read_entry(entry).rates
    assert known is not None
    assert found is not None
    assert found == replace(known, input=Decimal(1), output=Decimal(2))
    assert found.web_search > 0
    assert found.cached_input is not None
    blank = {"id": "other", "pricing": {"prompt": "0.000001", "completion": "0.000002", "web_search": ""}}
    assert read_entry(blank).rates == Rates(Decimal(1), Decimal(2))


def test_a_number_without_end_is_no_limit() -> None:
    with pytest.warns(UserWarning, match="'f' was skipped"):
        assert live._adopt({"data": [{"id": "f", "context_length": 1e999}]}) == []


@pytest.mark.parametrize("address", ["http://user:hunter2@127.0.0.1:9/v1", "sk-empiriolabs-oops"])
def test_an_address_with_a_secret_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(SettingsError, match="base_url") as refused:
        catalog.fetch(address)
    assert "hunter2" not in str(refused.value)
    assert "oops" not in str(refused.value)


def test_a_bad_entry_is_left_out_with_a_warning() -> None:
    bad: list[Any] = [
        {"name": "no id"},
        "text",
        {"id": "b", "context_length": "many"},
        {"id": "c", "pricing": {"prompt": "free", "completion": "0"}},
        {"id": "d", "pricing": {"prompt": "-1", "completion": "-1"}},
        {"id": "e", "pricing": {"prompt": "NaN", "completion": "Infinity"}},
        {"id": "f", "context_length": "1e999"},
        {"id": "g", "served_from": ["eu"]},
        {"id": "h", "input_modalities": "text,image"},
        {"id": "i", "max_output_tokens": -1},
        {"id": "j", "supported_parameters": [{"name": 5}]},
        {"id": "k", "supported_parameters": [{"name": "seed", "options": [1, 2]}]},
    ]
    with (
        Sandbox(catalogue=[*bad, {"id": "good", "max_output_tokens": 10}]) as sandbox,
        pytest.warns(UserWarning, match="was skipped") as told,
    ):
        cards = catalog.fetch(sandbox.base_url)
    assert [found.id for found in cards] == ["good"]
    assert len(told) == len(bad)
    assert "'b' was skipped" in str(told[2].message)
    with pytest.raises(SettingsError, match="max_tokens must be at most 10 for good, got 11"):
        ChatEmpirioLabs(model="good", max_tokens=11)


def test_a_catalogue_that_is_none(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidReplyError, match="must be a list of models"):
        live._adopt({"data": None})
    with pytest.raises(ConnectionDroppedError, match=r"gateway\.invalid"):
        catalog.fetch("http://gateway.invalid/v1")


def test_a_parameter_out_of_a_fetched_cards_range() -> None:
    narrow = {
        "id": "narrow",
        "supported_parameters": [
            {"name": "temperature", "min": 0, "max": 1},
            {"name": "reasoning_effort", "options": ["low", "high"]},
        ],
    }
    CARDS["narrow"] = read_entry(narrow)
    with pytest.raises(SettingsError, match="must be at most 1 for"):
        ChatEmpirioLabs(model="narrow", temperature=1.5)
    with pytest.raises(SettingsError, match="must be one of low, high for"):
        EmpirioLabs(model="narrow", reasoning_effort="medium")
    with pytest.warns(UserWarning, match="does not list the parameter 'top_p'"):
        ChatEmpirioLabs(model="narrow", top_p=0.5).request([{"role": "user", "content": "x"}], {}, stream=False)


def test_an_unknown_model_has_no_card() -> None:
    for model in ("qwen3-max", "deepseek-v3", "deepseek-v40", "deepseek", "deepseek-flashy"):
        assert card(model) is None


@pytest.mark.parametrize(
    ("model", "modalities"),
    [
        ("deepseek-v4-1-flash", ("text", "image")),
        ("deepseek-v4-1-flash:variant2", ("text", "image")),
        ("deepseek-v4-pro-0813", ("text",)),
        ("deepseek-v4-flash-0731:variant1", ("text",)),
        ("deepseek-v4-pro:variant9", ("text",)),
        ("deepseek-v4-2-maxi", None),
    ],
)
def test_a_model_without_a_card_has_the_rules_of_its_family(model: str, modalities: Any) -> None:
    known = card(model)
    assert known is not None
    assert (known.id, known.input_modalities) == (model, modalities)
    assert (known.thinks, known.needs_reasoning_back, known.refuses_forced_tools, known.json_object_only) == (True,) * 4
    # Unpublished values stay unknown.
    assert (known.context_window, known.max_output_tokens, known.region, known.rates) == (None,) * 4
    assert not known.parameters
    found = read_entry({"id": model, "context_length": 77, "input_modalities": ["text", "file"]})
    assert found == replace(known, context_window=77, input_modalities=("text", "file"))


@pytest.mark.slow
def test_the_table(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "empiriolabs_core.catalog", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert (
        "deepseek-v4-pro:variant2    China                1,000,000  $1.65   $0.138  $3.301  $0.01   $1.9801" in run()
    )
    assert "Singapore" not in run("deepseek-v4-pro")
    assert {entry["id"]: entry["example_usd"] for entry in json.loads(run("--json"))}["deepseek-v4-flash"] == "0.168"
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    assert "deepseek-v4-flash" in run("--live")


def test_the_sandbox_serves_each_entry(sandbox: Sandbox) -> None:
    import openai

    client = openai.OpenAI(base_url=sandbox.base_url, api_key="none")
    for model in CARDS:
        assert client.models.retrieve(model).id == model
    assert entry(CARDS["deepseek-v4-pro"])["pricing"]["prompt"] == "0.00000165"
