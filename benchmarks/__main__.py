"""Measures this package against its peers, all on one replay server, and prints a table: python -m benchmarks.

Every client runs in a process of its own. What counts is the ratio of medians: the machine may be busy.
Peers are measured where their interpreter is given: --vendor and --like name the python of an environment with
`langchain-empiriolabs` and `langchain-deepseek`, and one with `llama-index-llms-openai-like`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLIENTS = {
    "openai_typed": "python",
    "langchain_floor": "python",
    "langchain_ours": "python",
    "langchain_ours_async": "python",
    "llamaindex_ours": "python",
    "llamaindex_ours_async": "python",
    "langchain_vendor": "vendor",
    "langchain_deepseek": "vendor",
    "llamaindex_like": "like",
}


@contextmanager
def replay_server() -> Iterator[str]:
    """Yield the base URL of a replay server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def run(python: str, client: str, case: str, base_url: str, rounds: int) -> dict[str, Any]:
    """Measure one client on one case."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "EMPIRIOLABS_"))
    }
    # A peer may have the same import name as ours, so the working folder must not be searched.
    command = (
        [python, "-P", str(HERE / "clients.py")] if client.endswith("vendor") else [python, str(HERE / "clients.py")]
    )
    done = subprocess.run(
        [*command, client, case, base_url, str(rounds)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(f"{client} failed on {case}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the results as Markdown: microseconds of CPU, and the ratio to the OpenAI client's typed stream."""
    lines = ["| case | client | CPU | ratio to openai, typed |", "|---|---|---|---|"]
    for case, by_client in results.items():
        count = 1 if case == "plain" else int(case.partition("-")[2])
        cost = {client: statistics.median(found["seconds"]) / count * 1e6 for client, found in by_client.items()}
        unit = "µs a call" if case == "plain" else "µs a delta"
        for client, micros in sorted(cost.items(), key=lambda item: item[1]):
            lines.append(f"| {case} | {client} | {micros:.1f} {unit} | {micros / cost['openai_typed']:.2f} |")
    first = next(iter(results.values()))
    for client, found in first.items():
        ready, construction = found["ready"], found["construction"] * 1e3
        lines.append(f"| import and construction | {client} | {ready:.2f} s, then {construction:.2f} ms each | |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table and the raw results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", help="python with langchain-empiriolabs and langchain-deepseek")
    parser.add_argument("--like", help="python with llama-index-llms-openai-like")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to write the raw results to")
    chosen = parser.parse_args()
    pythons = {"python": sys.executable, "vendor": chosen.vendor, "like": chosen.like}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    with replay_server() as base_url:
        for case in ("text-1000", "text-10000", "plain"):
            for client, name in CLIENTS.items():
                python = pythons[name]
                if python and not (case == "plain" and client.endswith("async")):
                    results.setdefault(case, {})[client] = run(python, client, case, base_url, chosen.rounds)
    print(table(results))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
