"""What calls cost, in US dollars: of one call, of all calls in a block, and a budget for them.

```python
with track_cost(budget_usd="0.50") as costs:
    llm.invoke("Hello")
print(costs)
```

Amounts are exact decimals. They are computed from the rates on the model's card and the token counts that the
gateway reports; the bill is the gateway's. A model without a card or rates has no known cost.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from empiriolabs_core.catalog import card
from empiriolabs_core.errors import BudgetExceededError, SettingsError
from empiriolabs_core.replies import Usage, read_usage

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Cost:
    """The parts of a cost, in US dollars."""

    input: Decimal = Decimal(0)
    """Prompt tokens that were not read from the cache."""
    cached_input: Decimal = Decimal(0)
    """Prompt tokens that were."""
    output: Decimal = Decimal(0)
    """Generated tokens, reasoning included."""
    web_search: Decimal = Decimal(0)
    """The fee for a web search."""

    @property
    def total(self) -> Decimal:
        """The sum."""
        return self.input + self.cached_input + self.output + self.web_search


def cost_of(model: str, usage: Usage, *, web_search: bool = False) -> Cost | None:
    """Return what a call costs; `None` if the model has no card, or its card no rates."""
    known = card(model)
    rates = known.rates if known else None
    if rates is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    cached_rate = rates.input if rates.cached_input is None else rates.cached_input
    return Cost(
        input=(usage.input_tokens - cached) * rates.input / _MILLION,
        cached_input=cached * cached_rate / _MILLION,
        output=usage.output_tokens * rates.output / _MILLION,
        web_search=rates.web_search if web_search else Decimal(0),
    )


def cost_of_call(body: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Cost | None:
    """Return what a request cost, by its body and the `usage` of the reply; `None` if that is not known."""
    counts = read_usage(usage)
    if counts is None:
        return None
    return cost_of(body["model"], counts, web_search=bool(body.get("web_search_linkup")))


@dataclass
class Totals:
    """Sums over calls.

    Attributes:
        calls: how many there were.
        calls_of_unknown_cost: those of models without rates, or without reported usage. They are not in `usd`.
        input_tokens: tokens of the prompts.
        cached_tokens: those of them that were read from the cache.
        output_tokens: generated tokens, reasoning included.
        reasoning_tokens: those of them that were reasoning.
        searches: calls with web search.
        usd: US dollars.
    """

    calls: int = 0
    calls_of_unknown_cost: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    searches: int = 0
    usd: Decimal = Decimal(0)

    def add(self, usage: Usage | None, cost: Cost | None, *, search: bool) -> None:
        """Add one call."""
        self.calls += 1
        self.searches += search
        if cost is None:
            self.calls_of_unknown_cost += 1
        else:
            usd = cost.total
            self.usd += usd
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.cached_tokens += usage.cached_tokens or 0
            self.output_tokens += usage.output_tokens
            self.reasoning_tokens += usage.reasoning_tokens or 0


@dataclass
class CostTracker:
    """What the calls of one `track_cost` block cost. Safe to read while calls are under way.

    Attributes:
        budget_usd: the amount after which calls are refused; `None` for none.
        by_model: totals by model id.
    """

    budget_usd: Decimal | None = None
    by_model: dict[str, Totals] = field(default_factory=dict)
    # Reentrant: while it is held, the garbage collector may close a stream that was left, which then counts.
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def total(self) -> Totals:
        """Totals over all models."""
        whole = Totals()
        with self._lock:
            for totals in list(self.by_model.values()):
                for name, amount in vars(totals).items():
                    setattr(whole, name, getattr(whole, name) + amount)
        return whole

    @property
    def total_usd(self) -> Decimal:
        """US dollars spent."""
        return self.total.usd

    def add(self, model: str, usage: Usage | None, cost: Cost | None, *, search: bool) -> None:
        """Add one call."""
        with self._lock:
            self.by_model.setdefault(model, Totals()).add(usage, cost, search=search)

    def check(self) -> None:
        """Raise `BudgetExceededError` if the budget is spent."""
        if self.budget_usd is not None and self.total_usd >= self.budget_usd:
            raise BudgetExceededError(
                f"The budget of ${self.budget_usd:f} is spent: ${self.total_usd:f} so far. The call was not sent. "
                "Raise budget_usd of track_cost to go on."
            )

    def __str__(self) -> str:
        """Return a table."""
        rows: list[tuple[str, ...]] = [("model", "calls", "input", "cached", "output", "searches", "USD")]
        rows += [_row(model, totals) for model, totals in [*sorted(self.by_model.items()), ("total", self.total)]]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        )


def _row(model: str, totals: Totals) -> tuple[str, ...]:
    counts = (totals.calls, totals.input_tokens, totals.cached_tokens, totals.output_tokens, totals.searches)
    unknown = totals.calls_of_unknown_cost
    note = f" + {unknown} call{'s' if unknown > 1 else ''} of unknown cost" if unknown else ""
    return (model, *(f"{count:,}" for count in counts), f"{totals.usd:.6f}{note}")


_trackers: ContextVar[tuple[CostTracker, ...]] = ContextVar("empiriolabs_trackers", default=())


def _amount(budget_usd: Decimal | str | float) -> Decimal:
    try:
        budget = Decimal(str(budget_usd))
    except InvalidOperation:
        budget = Decimal("nan")
    if not (budget.is_finite() and budget >= 0):
        raise SettingsError(
            f"budget_usd={budget_usd!r} is no amount of US dollars. Give a number of 0 or more, such as '0.50'."
        )
    return budget


@contextlib.contextmanager
def track_cost(budget_usd: Decimal | str | float | None = None) -> Iterator[CostTracker]:
    """Sum up what calls within the block cost, in both frameworks, sync and async.

    Blocks may be nested: a call counts in each. The block is found through a context variable, which tasks and
    both frameworks' own threads inherit; threads that you start yourself need `contextvars.copy_context()`.
    A stream counts when it has ended or was left; without the usage at its end, as a call of unknown cost.
    Answers from a framework's cache are no calls and cost nothing.

    Args:
        budget_usd: once this much is spent, the next call raises `BudgetExceededError` before it is sent. Calls that
            run at the same time are let through together, so the last of them may overshoot. Calls of unknown cost
            are not in it: those of models without rates, such as rerank, until `list_models` has read them.

    Raises:
        SettingsError: `budget_usd` is no amount of money.
    """
    tracker = CostTracker(None if budget_usd is None else _amount(budget_usd))
    _trackers.set((*_trackers.get(), tracker))
    try:
        yield tracker
    finally:
        # A token could not be reset in another context, in which web servers may end a generator with such a block.
        _trackers.set(tuple(other for other in _trackers.get() if other is not tracker))


def count_call() -> Callable[[Mapping[str, Any], Mapping[str, Any] | None], None]:
    """Return what counts a call in the blocks around it: to be called with its body and usage when it is over.

    Raises:
        BudgetExceededError: the budget of a block is spent, so the call must not be sent.
    """
    # The blocks are those of the start: a stream that is left may be closed anywhere.
    trackers = _trackers.get()
    for tracker in trackers:
        tracker.check()

    def count(body: Mapping[str, Any], usage: Mapping[str, Any] | None) -> None:
        if trackers:
            counts, cost = read_usage(usage), cost_of_call(body, usage)
            for tracker in trackers:
                tracker.add(body["model"], counts, cost, search=bool(body.get("web_search_linkup")))

    return count
