"""Every Python snippet of the documents runs, against the sandbox, and prints what its comments say."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher

from empiriolabs_core.catalog import CARDS, READ_ON
from empiriolabs_core.sandbox import Sandbox
from empiriolabs_core.sandbox.faults import KINDS
from tests.consumers import kit

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "tests/README.md",
    "distributions/llama-index-llms-empiriolabs/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")),
)
SNIPPETS = [
    pytest.param(snippet, id=f"{name}-{number}")
    for name in DOCUMENTS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL))
]
NOTEBOOKS = sorted((ROOT / "cookbook").glob("*.ipynb"))


# LlamaIndex's agents look at each attribute of their own, deprecated ones too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippet(
    snippet: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(snippet, sandbox, monkeypatch, capsys)


def run(snippet: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a snippet against the sandbox, and compare its output with what it states."""
    monkeypatch.setenv("EMPIRIOLABS_API_KEY", sandbox.api_key)
    monkeypatch.setenv("EMPIRIOLABS_API_BASE", sandbox.base_url)
    monkeypatch.syspath_prepend(ROOT / "distributions/llama-index-llms-empiriolabs")
    assert unasserted(snippet) == []
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    with _traced(snippet, monkeypatch):
        exec(compile(snippet, "<document>", "exec"), {})
    assert missing(snippet, capsys.readouterr().out) == []


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Take back what snippets set for the whole process: levels and handlers of logging, LlamaIndex's handlers."""
    dispatcher = get_dispatcher()
    handlers = list(dispatcher.event_handlers)
    yield
    dispatcher.event_handlers = handlers
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).handlers.clear()


@contextmanager
def _traced(snippet: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Skip a snippet whose tracer is not installed, and send LangSmith's traces to a collector on this machine."""
    for module in re.findall(r"^from (langsmith|openinference\S+|opentelemetry\.sdk\S+) ", snippet, flags=re.MULTILINE):
        kit(module)
    if "langsmith" not in snippet:
        yield
        return
    from tests.consumers.collector import collector

    with collector() as running:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", running.url)
        monkeypatch.setenv("LANGSMITH_API_KEY", "traces")
        yield
        assert running.told("llm")
        assert os.environ["EMPIRIOLABS_API_KEY"].encode() not in b"".join(running.raw)


def outputs(snippet: str) -> dict[int, list[str]]:
    """Return the line of each `print` of a snippet, and the output that the comments directly after it state."""
    lines = snippet.splitlines()
    stated: dict[int, list[str]] = {}
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            after, end = stated.setdefault(node.lineno, []), node.end_lineno or node.lineno
            while end < len(lines) and (comment := re.match(r" *# ?(?:The sandbox: )?(.*)", lines[end])):
                after.append(comment[1])
                end += 1
    return dict(sorted(stated.items()))


def unasserted(snippet: str) -> list[int]:
    """Return the lines of the `print` calls of a snippet whose output no comment states."""
    return [line for line, stated in outputs(snippet).items() if not "".join(stated).replace(".", "").strip()]


def missing(snippet: str, shown: str) -> list[str]:
    """Return the stated parts of the output that a snippet did not print in this order. `...` stands for any text."""
    parts = [part.strip() for stated in outputs(snippet).values() for line in stated for part in line.split("...")]
    place, absent = 0, []
    for part in parts:
        found = shown.find(part, place)
        absent += [part] if found < 0 else []
        place = place if found < 0 else found + len(part)
    return absent


def test_a_print_without_stated_output_is_found() -> None:
    snippet = "print(1)\n# 1\nif True:\n    print(\n        2\n    )\nprint(3)\n# ...\nprint(4)  # 4\n"
    assert unasserted(snippet) == [4, 7, 9]


@pytest.mark.parametrize(
    ("shown", "absent"),
    [("a b c\nd\n", []), ("a b c\n", ["d"]), ("d\na b c\n", ["d"]), ("a  b c\nd\n", ["a b"]), ("", ["a b", "c", "d"])],
)
def test_output_must_be_as_stated_and_in_order(shown: str, absent: list[str]) -> None:
    assert missing("print('a b c')\n# a b ... c\nprint('d')\n# The sandbox: d\n", shown) == absent


def test_the_readme_names_every_field() -> None:
    from empiriolabs_core.settings import Settings

    readme = (ROOT / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in readme and name != "model_kwargs"] == []


def test_the_readme_lists_the_models_with_their_prices() -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"on {READ_ON}" in readme
    for card in CARDS.values():
        if card.id.startswith("deepseek-") and card.rates is not None:
            rates = card.rates
            prices = f"${rates.input} | ${rates.output} | ${rates.web_search}"
            assert f"| `{card.id}` | {card.region} | {prices} |" in readme


def _run(script: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EMPIRIOLABS_")}
    command = [sys.executable, str(ROOT / "cookbook" / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=380, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_as_they_ran(path: Path) -> None:
    """`make notebooks` runs them. This is about what is committed."""
    text = path.read_text()
    cells: list[dict[str, Any]] = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "stand_in()" in "".join(cells[0]["source"])
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert len(outputs) > 1
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert re.findall(r"(?<!\w)/(?:home|root|Users|work|tmp)/\S+", text) == []
    assert f"({path.name})" in (ROOT / "cookbook" / "README.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_and_guides_link_to_each_other(path: Path) -> None:
    guides = re.findall(r"\(\.\./(docs/(?:guides|start)/[\w-]+\.md)\)", path.read_text())
    assert guides
    assert [guide for guide in guides if f"cookbook/{path.name})" not in (ROOT / guide).read_text()] == []


def test_the_stored_list_of_faults_is_the_present_one() -> None:
    stored = (ROOT / "cookbook" / "offline_testing.ipynb").read_text()
    assert [kind for kind, meaning in KINDS.items() if f"{kind:12} {meaning}" not in stored] == []


@pytest.mark.real_model
@pytest.mark.timeout(400)
def test_the_demo() -> None:
    shown = _run("quickstart.py")
    assert "A real but very small language model" in shown
    for heading in (
        "a chain that streams",
        "a query engine over a document",
        "LangChain: an agent",
        "LlamaIndex: an agent",
    ):
        assert heading in shown
    assert "'input_tokens'" in shown
    for agent in shown.partition("LangChain: an agent")[2].split("LlamaIndex: an agent"):
        assert "get_weather" in agent
        assert "Sunny and 21 degrees in Paris" in agent
