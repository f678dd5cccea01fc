"""A pytest fixture that serves the sandbox to the application under test.

pytest loads this module in every project that has the package, with or without the extra `sandbox`, so nothing but
pytest is imported here. The guide on testing shows an example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from empiriolabs_core.sandbox import Sandbox

_MARKER = "empiriolabs_sandbox"
_SHARED = {"strict", "local_model"}
"""Options without state, so that many tests can share one sandbox."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings of the configuration file."""
    told = "Whether the sandbox rejects what DeepSeek's own API rejects (default: true)."
    parser.addini("empiriolabs_strict", told, type="bool", default=True)
    told = "Whether a small language model answers, instead of scripted answers (default: false)."
    parser.addini("empiriolabs_local_model", told, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    told = "arguments of the Sandbox that the fixture empiriolabs_sandbox serves to this test."
    config.addinivalue_line("markers", f"{_MARKER}(**options): {told}")


@pytest.fixture(scope="session")
def _empiriolabs_sandboxes() -> Iterator[Callable[[dict[str, Any]], Sandbox]]:
    """Yield a function that returns a running sandbox with the given options."""
    running: dict[tuple[tuple[str, Any], ...], Sandbox] = {}
    with contextlib.ExitStack() as stack:

        def serve(options: dict[str, Any]) -> Sandbox:
            from empiriolabs_core.sandbox import Sandbox

            key = tuple(sorted(options.items()))
            if key not in running:
                running[key] = stack.enter_context(Sandbox(**options))
            return running[key]

        yield serve


@pytest.fixture
def empiriolabs_sandbox(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    _empiriolabs_sandboxes: Callable[[dict[str, Any]], Sandbox],
) -> Iterator[Sandbox]:
    """Yield a sandbox to which `EMPIRIOLABS_API_KEY` and `EMPIRIOLABS_API_BASE` point during the test.

    The sandbox has no state from other tests. `script()` queues answers and `fail()` queues faults. The settings
    `empiriolabs_strict` and `empiriolabs_local_model` apply to all tests. The marker `empiriolabs_sandbox` sets other
    arguments of `Sandbox` for one test, class or module.

    Raises:
        ImportError: if the extra `sandbox` is not installed, or the local model is wanted and not installed.
        TypeError: if the marker has an argument that `Sandbox` does not have.
    """
    from empiriolabs_core.errors import BASE_VARIABLE, KEY_VARIABLE
    from empiriolabs_core.sandbox import Sandbox

    marker = request.node.get_closest_marker(_MARKER)
    settings = {name: request.config.getini(f"empiriolabs_{name}") for name in sorted(_SHARED)}
    options = {**settings, **(marker.kwargs if marker else {})}
    with contextlib.ExitStack() as stack:
        shared = set(options) == _SHARED
        sandbox = _empiriolabs_sandboxes(options) if shared else stack.enter_context(Sandbox(**options))
        if shared:
            sandbox.reset()
        monkeypatch.setenv(KEY_VARIABLE, sandbox.api_key)
        monkeypatch.setenv(BASE_VARIABLE, sandbox.base_url)
        yield sandbox
