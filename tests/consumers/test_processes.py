"""Process pools (spawn and fork), joblib and a Dask bag: models are pickled, and the trackers come back and add up."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest

from empiriolabs_core.costs import CostTracker, track_cost
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.consumers import kit

# Python 3.12 warns about every fork of a process with threads. Here the fork is the point.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

QUESTIONS = [f"How deep is the snow at post {number}?" for number in range(12)]


def ask(llm: ChatEmpirioLabs | EmpirioLabs, question: str) -> tuple[str, CostTracker]:
    """Run in a worker process."""
    with track_cost() as costs:
        said = llm.invoke(question).text if isinstance(llm, ChatEmpirioLabs) else llm.complete(question).text
    return str(said), costs


@pytest.fixture(params=[ChatEmpirioLabs, EmpirioLabs])
def llm(request: pytest.FixtureRequest, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a model that has made a call, so that a fork or a pickle finds it with a connection."""
    # Pickles hold no key, so the workers read it from their environment.
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", where.pop("api_key"))
    made = request.param(**where)
    ask(made, "Hello")
    return made


def check(results: list[tuple[str, CostTracker]], sandbox: Sandbox) -> None:
    assert [said.partition("? ")[0] for said, _ in results] == [f"You said: {question[:-1]}" for question in QUESTIONS]
    total, billed = sum(costs for _, costs in results).total, sandbox.ledger[1:]
    assert (total.calls, total.calls_of_unknown_cost) == (len(billed), 0) == (len(QUESTIONS), 0)
    assert total.input_tokens == sum(entry.prompt_tokens for entry in billed)
    assert total.output_tokens == sum(entry.completion_tokens for entry in billed)
    assert total.reasoning_tokens == sum(entry.reasoning_tokens for entry in billed)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_process_pool(llm: Any, sandbox: Sandbox, method: str) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        check(list(pool.map(partial(ask, llm), QUESTIONS)), sandbox)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(llm: Any, sandbox: Sandbox, backend: str) -> None:
    joblib = kit("joblib")
    run: Callable[..., Any] = joblib.Parallel(n_jobs=2, backend=backend)
    check(run(joblib.delayed(ask)(llm, question) for question in QUESTIONS), sandbox)
    if backend == "loky":  # Its workers stay for the next job otherwise, and keep this test's environment.
        kit("joblib.externals.loky").get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("scheduler", ["processes", "threads"])
def test_dask_bag(llm: Any, sandbox: Sandbox, scheduler: str) -> None:
    bag = kit("dask.bag").from_sequence(QUESTIONS, npartitions=3)
    check(bag.map(partial(ask, llm)).compute(scheduler=scheduler, num_workers=2), sandbox)
