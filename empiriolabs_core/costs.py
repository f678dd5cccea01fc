"""Calculate what calls cost in US dollars: one call, or all calls in a block, with an optional budget.

```python
with track_cost(budget_usd="0.50") as costs:
    llm.invoke("Hello")
print(costs)
```

Amounts are exact decimals, independent of the caller's decimal context. They are computed from the rates on the
model's card and the token counts that the gateway reports. Your bill comes from the gateway. The cost of a model
without a card or rates is unknown.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, TypeVar

from empiriolabs_core.catalog import ModelCard, card
from empiriolabs_core.errors import BudgetExceededError, SettingsError, warn_once
from empiriolabs_core.replies import Usage, read_usage

CHARACTERS_PER_TOKEN = Decimal("1.5")
"""Characters per token in the estimate of a reservation. English text has about 3 to 4, Chinese text 1 to 2, so the
estimate is usually too high."""
DEFAULT_OUTPUT_TOKENS = 4096
"""Output tokens in the estimate if neither the request nor the model's card sets `max_tokens`: the gateway default."""

_MONEY = Context(prec=100, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999, traps=[])
"""Decimal context of this module. The caller's context may round, or raise an error for inexact results."""
_MILLION, _MICRO = Decimal(1_000_000), Decimal("0.000001")
_Result = TypeVar("_Result")


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for amount in amounts:
        total = _MONEY.add(total, amount)
    return total


def _price(tokens: int, per_million: Decimal) -> Decimal:
    return _MONEY.divide(_MONEY.multiply(Decimal(tokens), per_million), _MILLION)


@dataclass(frozen=True)
class Cost:
    """The parts of a cost, in US dollars."""

    input: Decimal = Decimal(0)
    """Prompt tokens that were not read from the cache."""
    cached_input: Decimal = Decimal(0)
    """Prompt tokens that were read from the cache."""
    output: Decimal = Decimal(0)
    """Generated tokens, including reasoning."""
    web_search: Decimal = Decimal(0)
    """The fee for a web search."""

    @property
    def total(self) -> Decimal:
        """The sum."""
        return _sum((self.input, self.cached_input, self.output, self.web_search))


def cost_of(model: str, usage: Usage, *, web_search: bool = False) -> Cost | None:
    """Return the cost of a call; `None` if the model's rates are unknown or the usage is partial."""
    known = card(model)
    rates = known.rates if known else None
    if rates is None or usage.partial:
        return None
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    cached_rate = rates.input if rates.cached_input is None else rates.cached_input
    return Cost(
        input=_price(usage.input_tokens - cached, rates.input),
        cached_input=_price(cached, cached_rate),
        output=_price(usage.output_tokens, rates.output),
        web_search=rates.web_search if web_search else Decimal(0),
    )


def cost_of_call(body: Mapping[str, Any], usage: Mapping[str, Any] | None) -> Cost | None:
    """Return the cost of a request, from its body and the reply's `usage`; `None` if the cost is unknown."""
    counts = read_usage(usage)
    if counts is None:
        return None
    if "messages" not in body:
        # Embeddings and rerank generate nothing, so they report only the prompt or a total.
        counts = counts._replace(partial=False)
    return cost_of(body["model"], counts, web_search=bool(body.get("web_search_linkup")))


def estimate(body: Mapping[str, Any]) -> Decimal | None:
    """Estimate the cost of a request in US dollars; `None` for a model without rates.

    The input is the number of characters of the body divided by `CHARACTERS_PER_TOKEN`. The output is `max_tokens`, or
    the default on the model's card, or `DEFAULT_OUTPUT_TOKENS`, times `n`. The fee for a web search is added. Not
    included: text that a search adds to the prompt, images passed as URLs, and reasoning beyond `max_tokens`.
    """
    known = card(body["model"])
    rates = known.rates if known else None
    if known is None or rates is None:
        return None
    tokens = int(_MONEY.divide(Decimal(_characters(body)), CHARACTERS_PER_TOKEN)) + 1
    output = _most_output(body, known) * (body.get("n") or 1)
    fee = rates.web_search if body.get("web_search_linkup") else Decimal(0)
    return _sum((_price(tokens, rates.input), _price(output, rates.output), fee))


def _most_output(body: Mapping[str, Any], known: ModelCard) -> int:
    default = next((listed.default for listed in known.parameters if listed.name == "max_tokens"), None)
    most: int = body.get("max_tokens") or default or DEFAULT_OUTPUT_TOKENS
    return most


def _characters(value: Any) -> int:
    """Return the number of characters of all texts and names in a JSON value."""
    count, rest = 0, [value]
    while rest:
        inner = rest.pop()
        if isinstance(inner, str):
            count += len(inner)
        elif isinstance(inner, Mapping):
            rest += [*inner.keys(), *inner.values()]
        elif isinstance(inner, list | tuple):
            rest += inner
    return count


@dataclass
class Totals:
    """Totals over several calls. Totals can be added.

    Attributes:
        calls: number of calls.
        calls_of_unknown_cost: calls of models without rates, calls whose usage was not reported, and calls whose reply
            was lost. Their cost is not in `usd`.
        input_tokens: tokens of the prompts.
        cached_tokens: input tokens that were read from the cache.
        output_tokens: generated tokens, including reasoning.
        reasoning_tokens: output tokens that were reasoning.
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
            self.usd = _MONEY.add(self.usd, cost.total)
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.cached_tokens += usage.cached_tokens or 0
            self.output_tokens += usage.output_tokens
            self.reasoning_tokens += usage.reasoning_tokens or 0

    def __add__(self, other: Totals) -> Totals:
        """Return the sum of two totals."""
        if not isinstance(other, Totals):
            return NotImplemented
        counts = {name: count + getattr(other, name) for name, count in vars(self).items() if name != "usd"}
        return Totals(**counts, usd=_MONEY.add(self.usd, other.usd))

    def __radd__(self, start: int) -> Totals:
        """Support `sum`, which starts with 0."""
        return self + Totals() if start == 0 else NotImplemented


@dataclass
class CostTracker:
    """The cost of the calls in one `track_cost` block. Safe to read while calls are in progress.

    A tracker can be pickled, so that a worker process can return it. Trackers can be added, with `+`, `sum` or `merge`.

    Attributes:
        budget_usd: the amount in US dollars after which calls are rejected; `None` for no budget.
        by_model: totals by model id.
        reserve: whether a call reserves an estimate before it is sent.
        reserved_usd: US dollars that are reserved for calls in progress and for calls of unknown cost.
    """

    budget_usd: Decimal | None = None
    by_model: dict[str, Totals] = field(default_factory=dict)
    reserve: bool = False
    reserved_usd: Decimal = Decimal(0)
    _around: tuple[CostTracker, ...] = field(default=(), repr=False, compare=False)
    # Reentrant: while the lock is held, the garbage collector may close an abandoned stream, which is then counted.
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @property
    def total(self) -> Totals:
        """Totals over all models."""
        with self._lock:
            return sum(list(self.by_model.values()), Totals())

    @property
    def total_usd(self) -> Decimal:
        """US dollars spent."""
        return self.total.usd

    def add(self, model: str, usage: Usage | None, cost: Cost | None, *, search: bool) -> None:
        """Add one call."""
        with self._lock:
            self.by_model.setdefault(model, Totals()).add(usage, cost, search=search)

    def merge(self, other: CostTracker) -> None:
        """Add the calls of another tracker to this one, for example a tracker that a worker process returned."""
        with other._lock:
            added, reserved = dict(other.by_model), other.reserved_usd
        with self._lock:
            for model, totals in added.items():
                self.by_model[model] = self.by_model.get(model, Totals()) + totals
            self.reserved_usd = _MONEY.add(self.reserved_usd, reserved)

    def __add__(self, other: CostTracker) -> CostTracker:
        """Return a new tracker, without a budget, that contains the calls of both trackers."""
        if not isinstance(other, CostTracker):
            return NotImplemented
        both = CostTracker()
        both.merge(self)
        both.merge(other)
        return both

    def __radd__(self, start: int) -> CostTracker:
        """Support `sum`, which starts with 0."""
        return self + CostTracker() if start == 0 else NotImplemented

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock and the outer blocks, which belong to this process."""
        with self._lock:
            by_model = {model: totals + Totals() for model, totals in self.by_model.items()}
            return {**vars(self), "by_model": by_model, "_around": (), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a new lock."""
        vars(self).update({**state, "_lock": threading.RLock()})

    def run(self, function: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> _Result:
        """Call a function so that its model calls count in this block, in any thread.

        ```python
        with track_cost() as costs, ThreadPoolExecutor() as pool:
            answers = list(pool.map(functools.partial(costs.run, llm.invoke), questions))
        ```

        Args:
            function: the function to call. It cannot be a coroutine function: tasks that start in the block already
                belong to it.
            *args: arguments of the function.
            **kwargs: arguments of the function.

        Returns:
            The return value of the function.

        Raises:
            SettingsError: if `function` is a coroutine function or a generator function, which would run later.
        """
        if any(kind(function) for kind in _RUN_LATER):
            raise SettingsError(
                f"costs.run requires a function that is not a coroutine or generator function, got {function!r}. Start "
                "tasks in the block, or pass asyncio.run and a coroutine."
            )
        with _within((*self._around, self)):
            return function(*args, **kwargs)

    def check(self) -> None:
        """Raise an error if the budget is spent.

        Raises:
            BudgetExceededError: if the budget is spent.
        """
        self.admit(None)

    def admit(self, expected: Decimal | None) -> Decimal:
        """Check the budget before a call. If this tracker reserves, reserve the expected cost.

        Args:
            expected: US dollars; `None` if the model has no rates.

        Returns:
            US dollars that were reserved.

        Raises:
            BudgetExceededError: if the budget is spent, or the rest of it is less than `expected`.
        """
        if self.budget_usd is None:
            return Decimal(0)
        wanted = (expected or Decimal(0)) if self.reserve else Decimal(0)
        with self._lock:
            spent = self.total_usd
            taken = _MONEY.add(spent, self.reserved_usd)
            if taken >= self.budget_usd or _MONEY.add(taken, wanted) > self.budget_usd:
                raise BudgetExceededError(self._refusal(spent, wanted))
            self.reserved_usd = _MONEY.add(self.reserved_usd, wanted)
        return wanted

    def _refusal(self, spent: Decimal, wanted: Decimal) -> str:
        end = "The call was not sent. Raise budget_usd in track_cost to continue."
        if not self.reserve:
            return f"The budget of ${self.budget_usd:f} is spent: ${spent:f} so far. {end}"
        return (
            f"The budget of ${self.budget_usd:f} does not cover this call, which may cost ${wanted:f}: ${spent:f} is "
            f"spent and ${self.reserved_usd:f} is reserved for calls in progress or of unknown cost. {end}"
        )

    def release(self, reserved: Decimal) -> None:
        """Release the amount that `admit` reserved."""
        with self._lock:
            self.reserved_usd = _MONEY.subtract(self.reserved_usd, reserved) or Decimal(0)

    def keep(self, reserved: Decimal) -> None:
        """Reserve for another call of unknown cost, even beyond the budget, because the call was already sent."""
        with self._lock:
            self.reserved_usd = _MONEY.add(self.reserved_usd, reserved)

    def __str__(self) -> str:
        """Return the costs as a table."""
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
    return (model, *(f"{count:,}" for count in counts), f"{_MONEY.quantize(totals.usd, _MICRO)}{note}")


_RUN_LATER = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)

_trackers: ContextVar[tuple[CostTracker, ...]] = ContextVar("empiriolabs_trackers", default=())


def _amount(budget_usd: Decimal | str | float) -> Decimal:
    try:
        budget = Decimal(str(budget_usd))
    except InvalidOperation:
        budget = Decimal("nan")
    if not (budget.is_finite() and budget >= 0):
        raise SettingsError(f"budget_usd must be a dollar amount >= 0, such as '0.50', got {budget_usd!r}.")
    return budget


@contextlib.contextmanager
def track_cost(budget_usd: Decimal | str | float | None = None, *, reserve: bool = False) -> Iterator[CostTracker]:
    """Track the cost of all calls in a block, in both frameworks, sync and async.

    Blocks can be nested: a call counts in every enclosing block. Tasks and the frameworks' own threads inherit the
    block through a context variable. Threads that you start yourself do not: use `CostTracker.run`.

    A stream is counted when it ends or is abandoned. It counts in the blocks in which it was created and in the blocks
    in which it is first read. A call has an unknown cost if its usage is not reported or its reply was lost, for
    example because of a timeout or a cancellation. A call does not count if connecting failed or an HTTP error status
    arrived. Attempts that the OpenAI client retried follow the same rules, except with your own `http_client`. Answers
    from a framework's cache do not count as calls and cost nothing.

    Args:
        budget_usd: US dollars. When this amount is spent, the next call raises `BudgetExceededError` before it is sent.
            Calls of unknown cost are not part of the sum. That includes models without rates, such as rerank, until
            `list_models` loads them.
        reserve: whether every call reserves an estimate before it is sent (see `estimate`), and settles it afterwards.
            The budget then applies to concurrent calls too, as accurately as the estimates. A call of unknown cost
            keeps its reservation. A model without rates reserves nothing, and a warning is issued. Default: false.
            Concurrent calls are then all sent, so the sum may exceed the budget.

    Raises:
        SettingsError: if `budget_usd` is not a dollar amount >= 0, or `reserve` is set without a budget.
    """
    if reserve and budget_usd is None:
        raise SettingsError("reserve=True requires budget_usd. Set a budget, or leave reserve out.")
    budget, around = None if budget_usd is None else _amount(budget_usd), _trackers.get()
    tracker = CostTracker(budget, reserve=reserve, _around=around)
    with _within((tracker,)):
        yield tracker


@contextlib.contextmanager
def _within(trackers: Iterable[CostTracker]) -> Iterator[None]:
    added = [tracker for tracker in trackers if not _among(tracker, _trackers.get())]
    _trackers.set((*_trackers.get(), *added))
    try:
        yield
    finally:
        # No token is used: web servers may end a generator in another context, where a token cannot be reset.
        _trackers.set(tuple(tracker for tracker in _trackers.get() if not _among(tracker, added)))


def _among(tracker: CostTracker, others: Iterable[CostTracker]) -> bool:
    return any(tracker is other for other in others)


_Chunk = TypeVar("_Chunk")


def stream_here(chunks: Generator[_Chunk, None, None]) -> Generator[_Chunk, None, None]:
    """Return a stream that counts in the current blocks, although its request is sent only at the first read."""
    trackers = _trackers.get()
    return _started_in(trackers, chunks) if trackers else chunks


def astream_here(chunks: AsyncGenerator[_Chunk, None]) -> AsyncGenerator[_Chunk, None]:
    """Do what `stream_here` does, for an asynchronous stream."""
    trackers = _trackers.get()
    return _astarted_in(trackers, chunks) if trackers else chunks


def _started_in(
    trackers: tuple[CostTracker, ...], chunks: Generator[_Chunk, None, None]
) -> Generator[_Chunk, None, None]:
    with contextlib.closing(chunks):
        with _within(trackers):
            first = next(chunks, _NOTHING)
        if first is not _NOTHING:
            yield first
            yield from chunks


async def _astarted_in(
    trackers: tuple[CostTracker, ...], chunks: AsyncGenerator[_Chunk, None]
) -> AsyncGenerator[_Chunk, None]:
    async with contextlib.aclosing(chunks):
        with _within(trackers):
            first = await anext(chunks, _NOTHING)
        if first is not _NOTHING:
            yield first
            async for chunk in chunks:
                yield chunk


_NOTHING: Any = object()


class Bill:
    """One call in its enclosing blocks, from the moment it is sent.

    Raises:
        BudgetExceededError: if the budget of a block is spent, so that the call must not be sent.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        # Use the blocks of the start: an abandoned stream may be closed in any context.
        self._body = body
        self._reserved: list[tuple[CostTracker, Decimal]] = []
        trackers = _trackers.get()
        expected = estimate(body) if any(tracker.reserve for tracker in trackers) else None
        try:
            for tracker in trackers:
                self._reserved.append((tracker, tracker.admit(expected)))
        except BudgetExceededError:
            self.cancel()
            raise
        if expected is None and any(tracker.reserve for tracker in trackers):
            warn_once(
                f"Calls of {body['model']} reserve nothing of a budget, because its prices are unknown. Call "
                "list_models() to load the prices of the gateway's catalogue."
            )

    def settle(self, usage: Mapping[str, Any] | None) -> None:
        """Count the call. Without a usage, its cost is unknown and it keeps its reservation."""
        if not self._reserved:
            return
        counts, cost = read_usage(usage), cost_of_call(self._body, usage)
        for tracker, reserved in self._reserved:
            tracker.add(self._body["model"], counts, cost, search=bool(self._body.get("web_search_linkup")))
            if cost is not None:
                tracker.release(reserved)

    def lose(self) -> None:
        """Count an attempt whose reply was lost and that the client retried, as a call of unknown cost."""
        for tracker, reserved in self._reserved:
            tracker.add(self._body["model"], None, None, search=bool(self._body.get("web_search_linkup")))
            tracker.keep(reserved)

    def cancel(self) -> None:
        """Release the reservation, because the call was not served."""
        for tracker, reserved in self._reserved:
            tracker.release(reserved)
