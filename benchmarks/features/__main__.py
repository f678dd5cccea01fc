"""Run every peer against the sandbox and write the feature table: python -m benchmarks.features docs/features.md

Each peer runs in a process of its own, under the interpreter of an environment of its own: --vendor and --like name
the pythons of the environments that `make features` makes. The sandbox is in this process.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from empiriolabs_core.sandbox import Answer, Fault, Sandbox

# Importing them fills the table.
from . import checks_answers, checks_faults, checks_settings, ways_langchain, ways_llamaindex  # noqa: F401
from .peers import PEERS
from .subject import FEATURES, GROUPS, MODEL, Feature

HERE = Path(__file__).parent
SETTINGS = ("OPENAI_", "EMPIRIOLABS_", "DEEPSEEK_", "OPENROUTER_", "LANGCHAIN_", "LANGSMITH_", "PYTHONPATH")
"""Prefixes of environment variables that are hidden from the peers."""

HEADER = """# Feature comparison

Written by `make features` on {day}. Every cell is the result of a check that ran with the installed package,
on Python {python}, with the model `{model}`. All checks ran against this package's sandbox, which is as
strict as DeepSeek's own API. None ran against the live gateway, whose strictness is undocumented. Every package is set
up as its documentation says; everything else is left at its default ([peers.py](../benchmarks/features/peers.py)).

**yes**: the check passed. **partly**: some cases passed, or it needs a workaround. **no**: it failed. **-**: not
applicable. Details are below the table.

The rows are the goals of this package, so they favour it. The other packages have features that are not listed here:
OpenRouter's class chooses between providers, and OpenAILike works with any server. Most were written for other APIs.

To switch from one of them, see the [Migration guide](../cookbook/migration.ipynb).
"""


class SandboxWire:
    """The sandbox as a check sees it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.base_url, self.api_key = sandbox.base_url, sandbox.api_key

    def where(self) -> tuple[str, str]:
        return self.base_url, self.api_key

    def reset(self) -> None:
        self._sandbox.reset()

    def script(self, *answers: dict[str, Any]) -> None:
        self._sandbox.script(*[Answer(**answer) for answer in answers])

    def fail(self, *faults: dict[str, Any]) -> None:
        self._sandbox.fail(*[Fault(**fault) for fault in faults])

    def requests(self) -> list[dict[str, Any]]:
        return [{"path": r.path, "headers": r.headers, "body": r.body} for r in self._sandbox.requests]


def run_peer(name: str, python: str, sandbox: Sandbox) -> dict[str, Any]:
    """Run the checks of one peer in a separate process, and return its verdicts and versions."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [os.path.abspath(python), "-m", "features.runner", name],
            cwd=HERE.parent,
            env={variable: value for variable, value in os.environ.items() if not variable.startswith(SETTINGS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        found = _serve(process, SandboxWire(sandbox))
        process.communicate()
        errors.seek(0)
        if found is None:
            raise SystemExit(f"{name} broke off:\n{errors.read()[-2000:]}")
        return found


def _serve(process: subprocess.Popen[str], wire: SandboxWire) -> dict[str, Any] | None:
    """Execute a runner's requests on the sandbox until the runner sends its results."""
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if "verdicts" in told:
            return dict(told)
        print(json.dumps(getattr(wire, told["method"])(*told["arguments"])), file=process.stdin, flush=True)
    return None


def rows() -> list[Feature]:
    """Return all features, group by group."""
    return sorted(FEATURES, key=lambda row: GROUPS.index(row.group))


def heading(name: str) -> str:
    """Return the column heading of a peer."""
    framework = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}[PEERS[name].framework]
    return f"{PEERS[name].name} ({framework})"


def document(results: dict[str, dict[str, Any]], day: datetime.date) -> str:
    """Return the table and the shortfalls of each peer as Markdown."""
    lines = [HEADER.format(day=day, python=platform.python_version(), model=MODEL)]
    for name, found in results.items():
        versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        lines.append(f"- {heading(name)}: {versions}")
    lines += ["", f"| | {' | '.join(map(heading, results))} |", "|---" * (len(results) + 1) + "|"]
    group = None
    for row in rows():
        if row.group != group:
            group = row.group
            lines.append(f"| **{group}** |{' |' * len(results)}")
        verdicts = [found["verdicts"].get(row.text, ["", ""])[0] for found in results.values()]
        lines.append(f"| {row.text} | {' | '.join(verdicts)} |")
    for name, found in results.items():
        lines += ["", f"## {heading(name)}", "", *_shortfalls(found["verdicts"])]
    return "\n".join(lines) + "\n"


def _shortfalls(verdicts: dict[str, Any]) -> list[str]:
    told = [(row.text, *verdicts[row.text]) for row in rows() if row.text in verdicts]
    short = [
        f"- {text}: {verdict}. `` {evidence} ``" for text, verdict, evidence in told if verdict in ("no", "partly")
    ]
    return short or ["No check failed."]


def main() -> None:
    """Run the peers whose interpreters are given, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="file to write the table to")
    parser.add_argument("--vendor", help="python with langchain-empiriolabs, -deepseek, -openrouter and langchain")
    parser.add_argument("--like", help="python with llama-index-llms-openai-like and -deepseek")
    chosen = parser.parse_args()
    pythons = {"python": sys.executable, "vendor": chosen.vendor, "like": chosen.like}
    # Peers hang up in the middle of faults, which asyncio remarks on.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    results = {}
    with Sandbox() as sandbox:
        for name, peer in PEERS.items():
            if pythons[peer.environment]:
                results[name] = run_peer(name, pythons[peer.environment], sandbox)
                verdicts = [verdict for verdict, _ in results[name]["verdicts"].values()]
                print(f"{heading(name)}: " + ", ".join(f"{verdicts.count(v)} {v}" for v in ("yes", "partly", "no")))
    path = Path(chosen.file)
    path.parent.mkdir(exist_ok=True)
    path.write_text(document(results, datetime.date.today()))


if __name__ == "__main__":
    main()
