"""The pytest plugin, in separate runs of pytest."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guides" / "testing.md"
FAST = ("-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:langsmith_plugin", "-W", "ignore")


def run(pytester: pytest.Pytester, *arguments: str) -> Any:
    """Run pytest in a separate process, with the plugin loaded as from an installed package."""
    installed = [point.name for point in importlib.metadata.entry_points(group="pytest11")]
    plugin = () if "empiriolabs" in installed else ("-p", "empiriolabs_core.pytest_plugin")
    return pytester.runpytest_subprocess(*plugin, *FAST, *arguments, timeout=120)


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.setenv("PYTHONPATH", str(GUIDE.parent.parent.parent))


def test_the_example_of_the_guide(pytester: pytest.Pytester) -> None:
    application, tests = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)[:2]
    pytester.makepyfile(app=application, test_app=tests)
    run(pytester, "--strict-markers").assert_outcomes(passed=3)


def test_both_adapters_and_each_test_anew(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        from empiriolabs_core.sandbox import Answer, Fault

        def test_one(empiriolabs_sandbox):
            from langchain_empiriolabs import ChatEmpirioLabs
            assert ChatEmpirioLabs().invoke("Hi").text.startswith("You said: Hi")
            empiriolabs_sandbox.script(Answer("never"))
            empiriolabs_sandbox.fail(Fault("html"))

        async def test_two(empiriolabs_sandbox):
            from llamaindex_empiriolabs import EmpirioLabs
            assert not empiriolabs_sandbox.requests
            assert "Hi" in str(await EmpirioLabs().acomplete("Hi"))

        def test_three():
            assert "EMPIRIOLABS_API_KEY" not in os.environ
            assert "EMPIRIOLABS_API_BASE" not in os.environ
        """
    )
    run(pytester, "-o", "asyncio_mode=auto").assert_outcomes(passed=3)


def test_strictness(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nempiriolabs_strict = false")
    pytester.makepyfile(
        """
        import openai, pytest

        def ask(sandbox):
            client = openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key)
            # Only the strict sandbox rejects stream_options without a stream.
            fields = {"model": "deepseek-v4-flash", "messages": [{"role": "user", "content": "Hi"}]}
            return client.chat.completions.create(**fields, stream_options={"include_usage": True})

        def test_setting(empiriolabs_sandbox):
            assert ask(empiriolabs_sandbox)

        @pytest.mark.empiriolabs_sandbox(strict=True)
        def test_marker(empiriolabs_sandbox):
            with pytest.raises(openai.BadRequestError, match="stream_options"):
                ask(empiriolabs_sandbox)

        @pytest.mark.empiriolabs_sandbox(stict=True)
        def test_misspelt(empiriolabs_sandbox):
            pass
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*unexpected keyword argument 'stict'*"])


def test_without_its_extra_the_plugin_does_nothing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points are loaded whether or not an extra is installed."""
    pytester.makepyfile(**{"absent/starlette": "raise ImportError('starlette is not installed')"})
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path / 'absent'}:{GUIDE.parent.parent.parent}")
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_imported():
            assert "empiriolabs_core.pytest_plugin" in sys.modules
            assert not {"starlette", "uvicorn", "openai", "pydantic", "empiriolabs_core.sandbox"} & {*sys.modules}

        def test_the_fixture_names_the_extra(empiriolabs_sandbox):
            pass
        """
    )
    # Other plugins of this environment import these packages themselves.
    result = run(pytester, "-p", "no:anyio", "-p", "no:recording", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(['*pip install "empiriolabs-adapters?sandbox?"*'])
