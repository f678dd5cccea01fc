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
TEXT = {
    "openai_typed": "python",
    "langchain_floor": "python",
    "langchain_ours": "python",
    "langchain_ours_async": "python",
    "llamaindex_floor": "python",
    "llamaindex_ours": "python",
    "llamaindex_ours_async": "python",
    "langchain_vendor": "vendor",
    "langchain_deepseek": "vendor",
    "llamaindex_like": "like",
}
PLAIN = {client: python for client, python in TEXT.items() if not client.endswith("async")}
SLOW = ("agent_like", "structured_like")
"""Clients that take tens of seconds for ten thousand deltas: one round is enough."""
CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "stream of 1,000 deltas": ("text-1000", TEXT, "µs a delta"),
    "stream of 10,000 deltas": ("text-10000", TEXT, "µs a delta"),
    "plain call": ("plain", PLAIN, "µs a call"),
    "agent, 1,000 argument deltas": ("args-1000", {"agent_ours": "python", "agent_like": "like"}, "µs a delta"),
    "agent, 10,000 argument deltas": ("args-10000", {"agent_ours": "python", "agent_like": "like"}, "µs a delta"),
    "structured stream, 10,000 deltas": (
        "args-10000",
        {"structured_ours": "python", "structured_like": "like"},
        "µs a delta",
    ),
    "1,000 streams of 100 deltas at once": (
        "text-100",
        {"concurrent_ours": "python", "concurrent_vendor": "vendor"},
        "µs a delta",
    ),
    "request of 2,000 messages, 4 MB": (
        "plain",
        {"history_json_dumps": "python", "history_langchain": "python", "history_llamaindex": "python"},
        "µs a call",
    ),
}
"""Name, what the server replays, which client in which environment, and the unit."""


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


def _units(case: str, served: str, unit: str) -> int:
    streams = 1000 if case.startswith("1,000 streams") else 1
    return streams * int(served.partition("-")[2]) if unit.endswith("delta") else 1


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the results as Markdown: CPU, the ratio to the first client of each case, and peak memory."""
    lines = ["| case | client | CPU | ratio to the first | peak memory |", "|---|---|---|---|---|"]
    for case, by_client in results.items():
        served, _, unit = CASES[case]
        units = _units(case, served, unit)
        cost = {client: statistics.median(found["seconds"]) / units * 1e6 for client, found in by_client.items()}
        first = next(iter(cost.values()))
        for client, micros in cost.items():
            peak = by_client[client]["peak_mb"]
            lines.append(f"| {case} | {client} | {micros:.1f} {unit} | {micros / first:.2f} | {peak:.0f} MB |")
    for client, found in results.get("stream of 1,000 deltas", {}).items():
        ready, construction = found["ready"], found["construction"] * 1e3
        lines.append(f"| import and construction | {client} | {ready:.2f} s, then {construction:.2f} ms each | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table and the raw results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", help="python with langchain-empiriolabs and langchain-deepseek")
    parser.add_argument("--like", help="python with llama-index-llms-openai-like")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="measure only the cases whose name holds this")
    parser.add_argument("--json", help="file to write the raw results to")
    chosen = parser.parse_args()
    pythons = {"python": sys.executable, "vendor": chosen.vendor, "like": chosen.like}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    with replay_server() as base_url:
        for case, (served, clients, _) in CASES.items():
            if chosen.only and chosen.only not in case:
                continue
            for client, name in clients.items():
                if pythons[name]:
                    rounds = 1 if client in SLOW and served.endswith("10000") else chosen.rounds
                    results.setdefault(case, {})[client] = run(pythons[name], client, served, base_url, rounds)
    print(table(results))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
