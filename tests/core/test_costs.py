"""The cost of calls: exact amounts, in both frameworks, in blocks, and up to a budget."""

from __future__ import annotations

import asyncio
import decimal
import functools
import pickle
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
from empiriolabs_core.costs import Cost, CostTracker, Totals, cost_of, cost_of_call, estimate, track_cost
from empiriolabs_core.errors import BudgetExceededError, SettingsError, warn_once
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
    """Return the total of the sandbox's own ledger."""
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
    with pytest.raises(SettingsError, match="must be a dollar amount"), track_cost(budget_usd=budget):
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
    ("usage", "read"),
    [
        ({"prompt_tokens": 10.0, "completion_tokens": "5", "total_tokens": "15"}, Usage(10, 5, 15)),
        ({"input_tokens": 10, "output_tokens": 5}, Usage(10, 5, 15)),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 3.0},
            },
            Usage(10, 5, 15, 4, 3),
        ),
        ({"prompt_tokens": -1, "input_tokens": 10, "completion_tokens": 5}, Usage(10, 5, 15)),
        ({"prompt_tokens": 10, "total_tokens": 15}, Usage(10, 5, 15)),
        ({"completion_tokens": 5, "total_tokens": 15}, Usage(10, 5, 15)),
        # More cached tokens than the prompt has cannot be right.
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 11}, Usage(10, 5, 15)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": True}},
            Usage(10, 5, 15),
        ),
    ],
)
def test_counts_in_many_forms(usage: dict[str, Any], read: Usage) -> None:
    assert read_usage(usage) == read
    cost = cost_of_call({"model": "deepseek-v4-flash", "messages": []}, usage)
    assert cost is not None
    assert cost.total > 0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10},
        {"completion_tokens": 5},
        {"prompt_tokens": 10, "total_tokens": 10},
        {"total_tokens": 15},
        {"prompt_tokens": 10, "completion_tokens": -5},
        {"prompt_tokens": 10, "completion_tokens": True},
        {"prompt_tokens": 10, "completion_tokens": 1.5},
        {"prompt_tokens": 10, "completion_tokens": "many"},
        {"prompt_tokens": 10, "completion_tokens": float("nan")},
        {"prompt_tokens": 10, "completion_tokens": 1e300},
    ],
)
def test_a_partial_usage_is_of_unknown_cost(usage: dict[str, Any]) -> None:
    counts = read_usage(usage)
    assert counts is not None
    assert counts.partial
    assert cost_of_call({"model": "deepseek-v4-flash", "messages": []}, usage) is None


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": 1.5, "total_tokens": None},
        {"prompt_tokens": "", "completion_tokens": [], "total_tokens": False},
        {"total_tokens": -3},
        {},
        [],
        7,
    ],
)
def test_a_usage_that_cannot_be_read_is_of_unknown_cost(usage: Any) -> None:
    assert read_usage(usage) is None


READ_LIMIT = openai.Timeout(60, read=0.2)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        (Fault("timeout", seconds=60), 1),
        (Fault("reset"), 1),
        (Fault("reset_in_headers"), 1),
        (Fault("cut", after=1), 1),
        (Fault("idle", after=3, seconds=60), 1),
        (Fault("html"), 1),
        (Fault("error_body"), 1),
        (Fault("status", status=500), 0),
        (Fault("status", status=429), 0),
        (Fault("status", status=400), 0),
        (Fault("redirect", url="http://127.0.0.1:9/v1"), 0),
    ],
    ids=lambda value: f"{value.kind}{value.status}" if isinstance(value, Fault) else "",
)
def test_a_call_whose_reply_was_lost_is_of_unknown_cost(
    sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool, fault: Fault, counted: int
) -> None:
    sandbox.fail(fault)
    with track_cost() as costs, pytest.raises(openai.OpenAIError):
        DRIVERS[driver](Case("x", settings={"timeout": READ_LIMIT}), where, stream)
    assert len(sandbox.requests) == 1
    assert (costs.total.calls, costs.total.calls_of_unknown_cost) == (counted, counted)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_was_not_sent_is_not_counted(
    sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool
) -> None:
    nowhere = {**where, "base_url": "http://nowhere.invalid/v1", "max_retries": 1}
    with track_cost(budget_usd=1, reserve=True) as costs:
        with pytest.raises(openai.APIConnectionError):
            DRIVERS[driver](Case("x"), nowhere, stream)
        with pytest.raises(SettingsError, match="cannot be sent as JSON"):
            DRIVERS[driver](Case("x", settings={"extra_body": {"a": {1, 2}}}), where, stream)
    assert (costs.total.calls, costs.reserved_usd) == (0, 0)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
def test_retries_of_the_client_count_as_the_gateway_may_bill_them(
    sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool
) -> None:
    sandbox.fail(Fault("reset"), Fault("status", status=503, headers={"retry-after-ms": "1"}), None)
    with track_cost() as costs:
        DRIVERS[driver](Case("x"), {**where, "max_retries": 2}, stream)
    assert len(sandbox.requests) == 3
    assert (costs.total.calls, costs.total.calls_of_unknown_cost) == (2, 1)
    assert costs.total_usd == bill(sandbox)


def test_what_the_gateway_billed_is_not_less_than_what_was_counted(sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(*[Fault("idle", after=4, seconds=60)] * 3)
    with track_cost() as costs, pytest.raises(openai.APITimeoutError):
        ChatEmpirioLabs(**{**where, "max_retries": 2, "timeout": READ_LIMIT}).invoke("Hello")
    assert len(sandbox.ledger) == costs.total.calls == costs.total.calls_of_unknown_cost == 3


async def _wait_for_requests(sandbox: Sandbox, count: int) -> None:
    while len(sandbox.requests) < count:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_call_is_of_unknown_cost(sandbox: Sandbox, where: dict[str, Any], stream: bool) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
    sandbox.fail(*[Fault("timeout", seconds=60)] * 2)

    async def ask_index() -> None:
        if stream:
            async for _ in await index.astream_chat([ChatMessage("Hello")]):
                pass
        await index.achat([ChatMessage("Hello")])

    with track_cost() as costs:
        ask_chat = chat.astream("Hello").__anext__() if stream else chat.ainvoke("Hello")
        tasks = [asyncio.ensure_future(ask_chat), asyncio.ensure_future(ask_index())]
    await _wait_for_requests(sandbox, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (costs.total.calls, costs.total.calls_of_unknown_cost) == (2, 2)


def _streams(where: dict[str, Any]) -> list[Any]:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
    return [
        chat.stream("Hello"),
        index.stream_chat([ChatMessage("Hello")]),
        index.stream_complete("Hello"),
        chat.astream("Hello"),
    ]


def _read(stream: Any) -> int:
    async def count() -> int:
        return len([chunk async for chunk in stream])

    return asyncio.run(count()) if hasattr(stream, "__anext__") else len(list(stream))


def test_a_stream_belongs_to_the_block_in_which_it_was_made(sandbox: Sandbox, where: dict[str, Any]) -> None:
    with track_cost() as costs:
        streams = _streams(where)
    assert [_read(stream) > 1 for stream in streams] == [True] * 4
    assert costs.total.calls == 4
    assert costs.total_usd == bill(sandbox)
    with track_cost(budget_usd=0):
        streams = _streams(where)
    for stream in streams:
        with pytest.raises(BudgetExceededError):
            _read(stream)
    assert len(sandbox.requests) == 4


async def test_async_streams_of_llamaindex_belong_to_the_block_too(sandbox: Sandbox, where: dict[str, Any]) -> None:
    index = EmpirioLabs(**where)
    with track_cost() as costs:
        streams = [await index.astream_chat([ChatMessage("Hello")]), await index.astream_complete("Hello")]
    for stream in streams:
        assert len([response async for response in stream]) > 1
    assert costs.total.calls == 2


async def _all_at_once(where: dict[str, Any], count: int) -> list[Any]:
    chat, index = ChatEmpirioLabs(max_tokens=100, **where), EmpirioLabs(max_tokens=100, **where)

    async def streamed(number: int) -> None:
        async for _ in chat.astream(f"Question {number}"):
            pass

    calls = [(chat.ainvoke, index.acomplete, streamed)[number % 3](f"Question {number}") for number in range(count)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_budget_with_reservations_holds_for_concurrent_calls(sandbox: Sandbox, where: dict[str, Any]) -> None:
    one = estimate(
        {"model": "deepseek-v4-flash", "messages": [{"role": "user", "content": "x" * 30}], "max_tokens": 100}
    )
    assert one is not None
    with track_cost(budget_usd=20 * one, reserve=True) as costs:
        results = await _all_at_once(where, 150)
    refused = [error for error in results if isinstance(error, BudgetExceededError)]
    assert len(refused) + len(sandbox.ledger) == 150
    assert 10 < len(sandbox.ledger) < 150
    assert "is reserved for calls in progress" in str(refused[0])
    assert costs.total_usd == bill(sandbox) <= 20 * one
    assert costs.reserved_usd == 0


async def test_without_reservations_concurrent_calls_are_let_through(sandbox: Sandbox, where: dict[str, Any]) -> None:
    with track_cost(budget_usd="0.00002") as costs:
        results = await _all_at_once(where, 12)
    assert len(sandbox.ledger) == len(results) == 12
    assert costs.total_usd > Decimal("0.00002")
    assert costs.reserved_usd == 0


def test_an_estimate() -> None:
    # The names and the other values have 43 characters: 300 in all, 1.5 for each token, rounded up.
    body = {"model": "deepseek-v4-pro", "messages": [{"role": "user", "content": "x" * 257}]}
    million = Decimal(1_000_000)
    assert estimate(body) == 201 * Decimal("1.65") / million + 4096 * Decimal("3.30") / million
    limited = estimate({**body, "max_tokens": 10, "n": 3, "web_search_linkup": True})
    assert limited == 219 * Decimal("1.65") / million + 30 * Decimal("3.30") / million + Decimal("0.013")
    embeddings = estimate({"model": "text-embedding-v4", "input": ["x" * 278] * 2})
    assert embeddings == 389 * Decimal("0.07") / million
    assert estimate({"model": "unknown", "messages": []}) is None


def test_a_call_of_unknown_cost_keeps_its_reservation(sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm = ChatEmpirioLabs(max_tokens=1000, **where)
    with track_cost(budget_usd="0.0008", reserve=True) as outer, track_cost(budget_usd=1, reserve=True) as inner:
        sandbox.fail(Fault("reset"), Fault("status"), None, Fault("no_finish"))
        with pytest.raises(openai.APIConnectionError):
            llm.invoke("Hello")
        assert Decimal("0.00028") < outer.reserved_usd == inner.reserved_usd < Decimal("0.00035")
        kept = outer.reserved_usd
        with pytest.raises(openai.InternalServerError):
            llm.invoke("Hello")
        llm.invoke("Hello")
        assert outer.reserved_usd == kept
        with pytest.raises(openai.OpenAIError):
            list(llm.stream("Hello"))
        assert outer.reserved_usd == inner.reserved_usd > kept
        # The outer block has no room for a third reservation; the inner one must not keep one for it.
        kept = inner.reserved_usd
        with pytest.raises(BudgetExceededError):
            llm.invoke("Hello")
        with pytest.raises(BudgetExceededError):
            EmpirioLabs(max_tokens=1000, **where).complete("Hello")
        assert outer.reserved_usd == inner.reserved_usd == kept
    assert len(sandbox.requests) == 4


def test_a_model_without_rates_reserves_nothing_and_says_so_once() -> None:
    warn_once.cache_clear()
    with Sandbox(models=["unpriced"]) as sandbox, track_cost(budget_usd=1, reserve=True) as costs:
        llm = ChatEmpirioLabs(model="unpriced", base_url=sandbox.base_url, api_key=sandbox.api_key)
        with pytest.warns(UserWarning, match="Calls of unpriced reserve nothing of a budget"):
            llm.invoke("Hello")
        llm.invoke("Hello")
    assert (costs.total.calls_of_unknown_cost, costs.reserved_usd) == (2, 0)


def test_reservations_need_a_budget() -> None:
    with pytest.raises(SettingsError, match="requires budget_usd"), track_cost(reserve=True):
        pass


async def test_a_cached_answer_costs_nothing(sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm = ChatEmpirioLabs(cache=InMemoryCache(), **where)
    paid = llm.invoke("Hello")
    for answer in (llm.invoke("Hello"), await llm.ainvoke("Hello")):
        assert answer.response_metadata["cost_usd"] == 0
        assert answer.content == paid.content
    assert paid.response_metadata["cost_usd"] > 0
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_callers_decimal_context_changes_nothing(
    sandbox: Sandbox, where: dict[str, Any], driver: str, stream: bool
) -> None:
    traps = [decimal.Inexact, decimal.Rounded, decimal.FloatOperation, decimal.InvalidOperation]
    # The drivers of async calls use the context of this thread.
    with decimal.localcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP, Emin=-3, Emax=3, traps=traps)):
        with track_cost(budget_usd="0.123456789", reserve=True) as costs:
            DRIVERS[driver](Case("x", settings={"model": "deepseek-v4-flash:variant2"}), where, stream)
            DRIVERS[driver](Case("x", settings={"model": "deepseek-v4-pro"}), where, stream)
        total, table = (costs + costs).total_usd, str(costs)
    assert costs.total_usd == bill(sandbox)
    assert total == 2 * costs.total_usd
    assert table == str(costs)


def test_trackers_can_be_pickled_and_added(sandbox: Sandbox, where: dict[str, Any]) -> None:
    with track_cost() as outer, track_cost(budget_usd=1, reserve=True) as costs:
        ChatEmpirioLabs(**where).invoke("Hello")
    received = pickle.loads(pickle.dumps(costs))
    assert received == costs
    received.add("other", MILLION, None, search=True)
    assert (received.total.calls, costs.total.calls) == (2, 1)
    whole = sum([received, costs, outer], CostTracker())
    assert whole == sum([received, costs, outer]) == received + costs + outer
    assert whole.total.calls == 4
    assert whole.total_usd == 3 * bill(sandbox)
    assert whole.by_model["other"] == Totals(1, 1, 1_000_000, 500_000, 1_000_000, 900_000, 1)
    outer.merge(received)
    assert (outer.total.calls, received.total.calls, outer.by_model["other"].searches) == (3, 2, 1)
    assert sum([outer.total, Totals(calls=2)]).calls == 5


def test_threads_that_do_not_inherit_the_block(sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = ChatEmpirioLabs(**where), EmpirioLabs(**where)
    with track_cost() as outer, track_cost() as costs, ThreadPoolExecutor(4) as pool:
        list(pool.map(functools.partial(costs.run, chat.invoke), ["Hello"] * 5))
        pool.submit(costs.run, index.complete, "Hello").result()
        pool.submit(costs.run, lambda: asyncio.run(chat.ainvoke("Hello"))).result()
        pool.submit(chat.invoke, "Not counted").result()
        # In the block itself, nothing counts twice.
        costs.run(chat.invoke, "Hello")
    assert costs.total.calls == outer.total.calls == len(sandbox.requests) - 1 == 8


def test_run_must_not_be_given_what_runs_later() -> None:
    async def later() -> None: ...

    with track_cost() as costs, pytest.raises(SettingsError, match="requires a function that is not a coroutine"):
        costs.run(later)


def test_a_client_of_the_users_own_is_left_as_it_is(sandbox: Sandbox, where: dict[str, Any]) -> None:
    with openai.DefaultHttpxClient() as client:
        llm = ChatEmpirioLabs(**where, http_client=client)
        sandbox.fail(Fault("reset"), None)
        with track_cost() as costs:
            with pytest.raises(openai.APIConnectionError):
                llm.invoke("Hello")
            llm.invoke("Hello")
        assert client.event_hooks == {"request": [], "response": []}
    assert (costs.total.calls, costs.total.calls_of_unknown_cost) == (2, 1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_partial_usage_in_both_adapters(driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    unknown = dict.fromkeys(("completion_tokens", "total_tokens", "completion_tokens_details"))
    sandbox.script(Answer("Hi", usage={**unknown, "prompt_tokens": "10"}), Answer("Hi", usage={"prompt_tokens": 10.0}))
    with track_cost() as costs:
        result = DRIVERS[driver](Case("x"), where, stream)
        assert (result.usage or {})["input"] == 10
        assert (costs.total.calls_of_unknown_cost, costs.total_usd) == (1, 0)
        DRIVERS[driver](Case("x"), where, stream)
        assert (costs.total.calls_of_unknown_cost, costs.total.input_tokens) == (1, 20)
