"""What calls cost: to the cent, in both frameworks, in blocks, and up to a budget."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from contextvars import copy_context
from decimal import Decimal
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.tools import tool
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core.catalog import CARDS, ModelCard, Rates
from empiriolabs_core.costs import Cost, CostTracker, cost_of, track_cost
from empiriolabs_core.errors import BudgetExceededError, SettingsError
from empiriolabs_core.replies import Usage, read_usage
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs
from tests.drivers import DRIVERS, Case

MILLION = Usage(1_000_000, 1_000_000, 2_000_000, cached_tokens=500_000, reasoning_tokens=900_000)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("deepseek-v4-pro", Cost(Decimal("0.825"), Decimal("0.825"), Decimal("3.30"), Decimal("0.013"))),
        ("deepseek-v4-pro:variant1", Cost(Decimal("1.2"), Decimal("1.2"), Decimal("4.8"), Decimal("0.02"))),
        ("deepseek-v4-pro:variant2", Cost(Decimal("0.825"), Decimal("0.069"), Decimal("3.301"), Decimal("0.01"))),
        ("deepseek-v4-flash", Cost(Decimal("0.07"), Decimal("0.07"), Decimal("0.28"), Decimal("0.013"))),
        ("deepseek-v4-flash:variant1", Cost(Decimal("0.1"), Decimal("0.1"), Decimal("0.4"), Decimal("0.02"))),
        ("deepseek-v4-flash:variant2", Cost(Decimal("0.069"), Decimal("0.014"), Decimal("0.275"), Decimal("0.01"))),
    ],
)
def test_rates(model: str, expected: Cost) -> None:
    assert cost_of(model, MILLION, web_search=True) == expected
    assert cost_of("unknown", MILLION) is None


def bill(sandbox: Sandbox) -> Decimal:
    """Return what the sandbox's own ledger comes to."""
    total = Decimal(0)
    for line in sandbox.ledger:
        usage = Usage(line.prompt_tokens, line.completion_tokens, 0, line.cached_tokens)
        cost = cost_of(line.model, usage, web_search=line.web_search)
        assert cost is not None
        total += cost.total
    return total


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
def test_each_answer_tells_its_cost_once(sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool) -> None:
    with track_cost() as costs:
        DRIVERS[driver](
            Case("x", settings={"web_search_linkup": True, "model": "deepseek-v4-pro:variant2"}), where, stream
        )
    assert costs.total_usd == bill(sandbox) > Decimal("0.01")
    assert (costs.total.calls, costs.total.searches) == (1, 1)


def test_cost_in_the_frameworks_metadata(sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
    first, *rest = chat.stream("Hello")
    for told in (
        chat.invoke("Hello").response_metadata,
        first.__add__(rest).response_metadata,  # type: ignore[arg-type]
        index.chat([ChatMessage("Hello")]).additional_kwargs,
        list(index.stream_chat([ChatMessage("Hello")]))[-1].additional_kwargs,
        index.complete("Hello").additional_kwargs,
    ):
        usage = Usage(sandbox.ledger[0].prompt_tokens, sandbox.ledger[0].completion_tokens, 0)
        cost = cost_of("deepseek-v4-flash", usage)
        assert cost is not None
        assert told["cost_usd"] == float(cost.total)


def test_a_rerank_reports_a_total_only(
    sandbox: Sandbox, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Rates(input=Decimal("0.05"), output=Decimal(0))
    monkeypatch.setitem(CARDS, "qwen3-rerank", ModelCard("qwen3-rerank", "Rerank", rates=rates))
    with track_cost() as costs:
        EmpirioLabsRerank(**where).rerank("Which cat?", ["A cat.", "A dog."])
    assert costs.total.input_tokens == sandbox.ledger[0].prompt_tokens > 0
    assert costs.total_usd == bill(sandbox) > 0


def test_no_card_no_cost() -> None:
    with Sandbox(models=["other"]) as sandbox, track_cost() as costs:
        llm = ChatEmpirioLabs(model="other", base_url=sandbox.base_url, api_key=sandbox.api_key)
        assert "cost_usd" not in llm.invoke("Hello").response_metadata
    assert costs.total_usd == 0
    assert "1 call of unknown cost" in str(costs)


def test_nested_blocks_threads_and_caches(sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm = ChatEmpirioLabs(cache=InMemoryCache(), **where)
    with track_cost() as outer:
        llm.invoke("Hello")
        with track_cost() as inner:
            llm.invoke("Hello")
            assert inner.total.calls == 0
            llm.batch([f"Question {number}" for number in range(5)])
            with ThreadPoolExecutor(2) as pool:
                pool.submit(copy_context().run, llm.invoke, "From a thread").result()
    llm.invoke("After")
    assert (inner.total.calls, outer.total.calls) == (6, 7)
    assert outer.total_usd < bill(sandbox)


async def test_two_hundred_calls_at_once(sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(model="deepseek-v4-pro", **where)

    async def streamed(number: int) -> None:
        async for _ in await index.astream_chat([ChatMessage(f"Streamed question {number}")]):
            pass

    with track_cost() as costs:
        await asyncio.gather(
            *[chat.ainvoke(f"Question {number}") for number in range(80)],
            *[streamed(number) for number in range(60)],
            *[index.acomplete(f"Completion {number}") for number in range(60)],
        )
    assert costs.total.calls == len(sandbox.ledger) == 200
    assert costs.total_usd == bill(sandbox)
    assert costs.total.output_tokens == sum(line.completion_tokens for line in sandbox.ledger)
    assert costs.total.reasoning_tokens == sum(line.reasoning_tokens for line in sandbox.ledger)
    assert costs.by_model["deepseek-v4-pro"].calls == 120


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


def _for_ever(sandbox: Sandbox) -> None:
    calls = [{"name": "get_weather", "arguments": {"city": "Paris"}}]
    sandbox.script(*[Answer(None, reasoning="Again.", tool_calls=calls)] * 30)


def test_a_budget_stops_a_langchain_agent(sandbox: Sandbox, where: dict[str, Any]) -> None:
    _for_ever(sandbox)
    agent = create_agent(ChatEmpirioLabs(**where), [get_weather])
    with track_cost(budget_usd="0.00005") as costs, pytest.raises(BudgetExceededError, match=r"budget of \$0.00005"):
        agent.invoke({"messages": "Weather?"})
    assert costs.total_usd >= Decimal("0.00005")
    assert bill(sandbox) == costs.total_usd
    assert 1 < len(sandbox.requests) < 10
    one_less = sum(
        (cost_of(e.model, Usage(e.prompt_tokens, e.completion_tokens, 0, e.cached_tokens)) or Cost()).total
        for e in sandbox.ledger[:-1]
    )
    assert one_less < Decimal("0.00005")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_budget_stops_a_llamaindex_agent(sandbox: Sandbox, where: dict[str, Any]) -> None:
    _for_ever(sandbox)
    agent = FunctionAgent(llm=EmpirioLabs(**where), tools=[get_weather.func])
    with track_cost(budget_usd=0.00005) as costs, pytest.raises(BudgetExceededError):
        await agent.run("Weather?")
    assert bill(sandbox) == costs.total_usd >= Decimal("0.00005")
    assert 1 < len(sandbox.requests) < 10


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_spent_budget_sends_nothing(sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool) -> None:
    with track_cost(budget_usd=0), pytest.raises(BudgetExceededError, match="was not sent"):
        DRIVERS[driver](Case("x"), where, stream)
    assert sandbox.requests == []


def test_the_printed_table() -> None:
    tracker = CostTracker()
    tracker.add("deepseek-v4-pro", MILLION, cost_of("deepseek-v4-pro", MILLION), search=False)
    head, line, total = str(tracker).splitlines()
    assert head.split() == ["model", "calls", "input", "cached", "output", "searches", "USD"]
    assert line.split() == ["deepseek-v4-pro", "1", "1,000,000", "500,000", "1,000,000", "0", "4.950000"]
    assert total.split()[0] == "total"


def test_a_stream_that_is_left_counts(sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)

    async def leave() -> None:
        async with aclosing(chat.astream("Hello")) as stream:  # type: ignore[type-var]
            await anext(stream)

    with track_cost() as costs:
        with closing(chat.stream("Hello")) as stream:  # type: ignore[type-var]
            next(stream)
        with closing(index.stream_complete("Hello")) as responses:
            next(responses)
        asyncio.run(leave())
        sandbox.fail(Fault("no_finish"))
        with pytest.raises(openai.OpenAIError):
            list(chat.stream("Hello"))
        sandbox.fail(Fault("status", status=503))
        with pytest.raises(openai.InternalServerError):
            list(chat.stream("Hello"))
    assert (costs.total.calls, costs.total.calls_of_unknown_cost) == (4, 4)


@pytest.mark.parametrize("budget", ["a lot", "nan", -1, "inf"])
def test_a_budget_that_is_no_amount(budget: Any) -> None:
    with pytest.raises(SettingsError, match="is no amount of US dollars"), track_cost(budget_usd=budget):
        pass


def test_a_stream_that_the_garbage_collector_closes_may_count_at_any_time() -> None:
    tracker = CostTracker()
    with tracker._lock:
        tracker.add("m", MILLION, None, search=False)
        assert tracker.total.calls == 1


def test_a_block_may_end_in_another_context(sandbox: Sandbox, where: dict[str, Any]) -> None:
    """As in a web server, which runs each step of a generator in a copy of the context."""
    llm, seen = ChatEmpirioLabs(**where), []

    def body() -> Any:
        with track_cost() as costs:
            yield from llm.stream("Hello")
        seen.append(costs)

    generator = body()
    while copy_context().run(next, generator, None) is not None:
        pass
    assert seen[0].total.calls == 1
    with track_cost() as outer:
        llm.invoke("Hello")
    assert outer.total.calls == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 5, "output_tokens": 5},
        {"prompt_tokens": "1000", "completion_tokens": 1.5, "total_tokens": None},
    ],
)
def test_a_usage_that_cannot_be_read_is_of_unknown_cost(usage: dict[str, Any]) -> None:
    assert read_usage(usage) is None
