"""Compare this package with its peers on one replay server, and print a table: python -m benchmarks.

Every client runs in a separate process. The clients take turns, several times. Because the machine may be busy, compare
the ratios of the medians. Peers are measured only if their interpreter is given. --vendor is the python of an
environment with `langchain-empiriolabs`, `langchain-deepseek` and `langchain-anthropic`. --like is the python of an
environment with `llama-index-llms-openai-like`.
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
    "openai_dicts": "python",
    "langchain_floor": "python",
    "langchain_ours": "python",
    "langchain_ours_async": "python",
    "llamaindex_floor": "python",
    "llamaindex_ours": "python",
    "llamaindex_ours_handler": "python",
    "llamaindex_ours_async": "python",
    "langchain_imports": "python",
    "langchain_vendor": "vendor",
    "langchain_openai": "vendor",
    "langchain_deepseek": "vendor",
    "llamaindex_like": "like",
}
PLAIN = {
    client: python for client, python in TEXT.items() if not client.endswith(("async", "dicts", "handler", "imports"))
}
PAIRS = {"openai_typed": "python", "langchain_ours": "python", "langchain_vendor": "vendor"}
SINGLE = {**PAIRS, "openai_dicts": "python", "llamaindex_ours": "python", "llamaindex_like": "like"}
AGENT = {"agent_ours": "python", "agent_floor": "python", "agent_like": "like"}
ENDPOINTS = {
    "langchain_ours": "python",
    "langchain_ours_responses": "python",
    "langchain_ours_messages": "python",
    "langchain_openai_responses": "vendor",
    "langchain_anthropic": "vendor",
}
HISTORY = {"history_json_dumps": "python", "history_langchain": "python", "history_llamaindex": "python"}
ROUNDS = 3
"""Number of rounds in a client's turn."""
SLOW = {"agent_like": "args-10000", "structured_like": "args-10000", "concurrent_vendor": "text-100"}
"""Clients and cases with rounds of tens of seconds. They run one round per turn."""
CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "stream of 1,000 deltas": ("text-1000", TEXT, "µs a delta"),
    "stream of 10,000 deltas": ("text-10000", TEXT, "µs a delta"),
    "one event for each read, 1,000 deltas": ("single-1000", SINGLE, "µs a delta"),
    "each endpoint, 10,000 deltas": ("text-10000", ENDPOINTS, "µs a delta"),
    "tool arguments, 1,000 deltas": ("args-1000", PAIRS, "µs a delta"),
    "1,000 deltas after 10,000 messages": ("text-1000", {"llamaindex_ours_long": "python"}, "µs a delta"),
    "plain call": ("plain", PLAIN, "µs a call"),
    "agent, 1,000 argument deltas": ("args-1000", AGENT, "µs a delta"),
    "agent, 10,000 argument deltas": ("args-10000", AGENT, "µs a delta"),
    "agent, 20,000 argument deltas": ("args-20000", {"agent_ours": "python"}, "µs a delta"),
    "agent, 40,000 argument deltas": ("args-40000", {"agent_ours": "python"}, "µs a delta"),
    "structured stream, 10,000 deltas": (
        "args-10000",
        {"structured_ours": "python", "structured_like": "like"},
        "µs a delta",
    ),
    "1,000 streams of 100 deltas at once": (
        "text-100",
        {
            "concurrent_ours": "python",
            "concurrent_ours_aiohttp": "python",
            "concurrent_dicts": "python",
            "concurrent_vendor": "vendor",
        },
        "µs a delta",
    ),
    "request of 2,000 messages, 4 MB": ("history-2000", HISTORY, "µs a call"),
    "request of 8,000 messages, 16 MB": ("history-8000", HISTORY, "µs a call"),
}
"""For each case: its name, what the server replays, the clients with their environments, and the unit."""


DICTS, STREAMED = "openai_dicts", ("stream of 1,000 deltas", "stream of 10,000 deltas")
AT_ONCE = "1,000 streams of 100 deltas at once"
SINGLY = "one event for each read, 1,000 deltas"
TARGETS: list[tuple[str, str, str, float, tuple[str, ...]]] = [
    (STREAMED[0], "langchain_ours", "langchain_vendor", 0.12, ("langchain_floor",)),
    (STREAMED[0], "langchain_ours", "openai_typed", 0.16, ("langchain_floor",)),
    (STREAMED[0], "langchain_ours", "langchain_floor", 1.5, ()),
    (STREAMED[1], "langchain_ours", "langchain_vendor", 0.18, ("langchain_floor",)),
    (STREAMED[1], "langchain_ours", "openai_typed", 0.25, ("langchain_floor",)),
    (STREAMED[1], "langchain_ours", "langchain_floor", 1.4, ()),
    ("tool arguments, 1,000 deltas", "langchain_ours", "langchain_vendor", 0.15, ()),
    (STREAMED[0], "llamaindex_ours", "llamaindex_like", 0.08, ()),
    (STREAMED[0], "llamaindex_ours", "openai_typed", 0.10, ()),
    (STREAMED[0], "llamaindex_ours_handler", "llamaindex_like", 0.14, ("llamaindex_floor",)),
    (STREAMED[0], "llamaindex_ours_handler", "openai_typed", 0.19, ("llamaindex_floor",)),
    (SINGLY, "langchain_ours", "langchain_vendor", 0.45, (DICTS,)),
    (SINGLY, "llamaindex_ours", "llamaindex_like", 0.35, (DICTS,)),
    *[(case, "langchain_ours_async", "langchain_ours", 1.3, ()) for case in STREAMED],
    *[(case, "llamaindex_ours_async", "llamaindex_ours", 1.3, ()) for case in STREAMED],
    ("agent, 10,000 argument deltas", "agent_ours", "agent_like", 0.06, ("agent_floor",)),
    ("structured stream, 10,000 deltas", "structured_ours", "structured_like", 0.05, ()),
    ("plain call", "langchain_ours", "langchain_vendor", 0.8, ()),
    ("plain call", "langchain_ours", "openai_typed", 1.1, ()),
    (AT_ONCE, "concurrent_ours", "concurrent_vendor", 0.22, ("concurrent_dicts",)),
    (AT_ONCE, "concurrent_ours_aiohttp", "concurrent_vendor", 0.167, ()),
    ("request of 2,000 messages, 4 MB", "history_langchain", "history_json_dumps", 2.0, ()),
    ("request of 2,000 messages, 4 MB", "history_llamaindex", "history_json_dumps", 2.0, ()),
    ("request of 8,000 messages, 16 MB", "history_langchain", "history_json_dumps", 2.0, ()),
    ("request of 8,000 messages, 16 MB", "history_llamaindex", "history_json_dumps", 2.0, ()),
]
"""For each goal: the case, our client, the other client, the highest acceptable ratio, and the clients of the floor.
The floor is the cost of the framework or the HTTP library without this package."""


@contextmanager
def replay_server() -> Iterator[str]:
    """Yield the base URL of a replay server in a separate process."""
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
    # A peer may use this package's import name, so the working folder must not be searched.
    command = (
        [python, "-P", str(HERE / "clients.py")] if client.endswith("vendor") else [python, str(HERE / "clients.py")]
    )
    done = subprocess.run(
        [*command, client, case, base_url, str(rounds)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{client} failed on {case}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _units(case: str, served: str, unit: str) -> int:
    streams = 1000 if case.startswith("1,000 streams") else 1
    return streams * int(served.partition("-")[2]) if unit.endswith("delta") else 1


def costs(case: str, by_client: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the microseconds per delta or call of each client: the median of its rounds."""
    served, _, unit = CASES[case]
    units = _units(case, served, unit)
    return {client: statistics.median(found["seconds"]) / units * 1e6 for client, found in by_client.items()}


def targets(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the goals as Markdown: the median of the ratios of all turns, their range, and the floor."""
    lines = ["| case | ratio | goal | median | range | floor |", "|---|---|---|---|---|---|"]
    for case, ours, other, most, floor in TARGETS:
        found = results.get(case, {})
        if not {ours, other, *floor} <= found.keys():
            continue
        cost = costs(case, found)
        least = f"{sum(cost[client] for client in floor) / cost[other]:.2f}" if floor else ""
        ratios = turn_ratios(found[ours], found[other])
        reached = statistics.median(ratios)
        shown = f"{reached:.2f}" if reached <= most else f"**{reached:.2f}**"
        between = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| {case} | {ours} : {other} | {most} | {shown} | {between} | {least} |")
    return "\n".join([*lines, *_start_targets(results.get(STREAMED[0], {})), *_long(results), *_at_once(results)])


def turn_ratios(ours: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """Return the ratio of each turn. A client with a single turn is compared with all turns of the other client."""
    turns = max(len(ours["turns"]), len(other["turns"]))
    first, second = (found["turns"] * (turns if len(found["turns"]) == 1 else 1) for found in (ours, other))
    return [one / two for one, two in zip(first, second, strict=False)]


def _start_targets(found: dict[str, dict[str, Any]]) -> list[str]:
    ours, vendor = found.get("langchain_ours"), found.get("langchain_vendor")
    if ours is None or vendor is None:
        return []
    built = ours["construction"] / vendor["construction"]
    start = ours["ready"] / vendor["ready"]
    least = found["langchain_imports"]["ready"] / vendor["ready"]
    pair = "langchain_ours : langchain_vendor"
    share = (ours["ready"] - found["langchain_imports"]["ready"]) * 1e3
    return [
        f"| construction | {pair} | 0.01 | {built:.3f} | | |",
        f"| import and construction | {pair} | | {start:.2f} | | {least:.2f} |",
        f"| our share of the import | ms | 60 | {share:.0f} | | |",
    ]


def _long(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the seconds of a stream after a long conversation, and the memory of long calls of an agent."""
    lines, case = [], "1,000 deltas after 10,000 messages"
    if case in results:
        turns = results[case]["llamaindex_ours_long"]["turns"]
        between = f"{min(turns):.2f} to {max(turns):.2f}"
        lines.append(f"| {case} | seconds | 0.15 | {statistics.median(turns):.2f} | {between} | |")
    for deltas in ("10,000", "20,000", "40,000"):
        found = results.get(f"agent, {deltas} argument deltas", {}).get("agent_ours")
        if found:
            used = found["peak_mb"] - found["resting_mb"]
            lines.append(f"| agent, {deltas} argument deltas | peak memory, MB | linear | {used:.0f} | | |")
    return lines


def _at_once(results: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return the throughput of a thousand concurrent streams, and the memory per stream."""
    case = "1,000 streams of 100 deltas at once"
    lines = []
    for client, micros in costs(case, results.get(case, {})).items():
        found = results[case][client]
        kilobytes = (found["peak_mb"] - found["resting_mb"]) * 1024 / 1000
        lines.append(f"\n{client}: {1e6 / micros:,.0f} deltas a CPU second, {kilobytes:.0f} KB a stream.")
    return lines


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the results as Markdown: CPU time, ratio to the first client of the case, and peak memory."""
    lines = ["| case | client | CPU | ratio to the first | peak memory |", "|---|---|---|---|---|"]
    for case, by_client in results.items():
        unit, cost = CASES[case][2], costs(case, by_client)
        first = next(iter(cost.values()))
        for client, micros in cost.items():
            peak = by_client[client]["peak_mb"]
            lines.append(f"| {case} | {client} | {micros:.1f} {unit} | {micros / first:.2f} | {peak:.0f} MB |")
    for client, found in results.get("stream of 1,000 deltas", {}).items():
        ready, construction = found["ready"], found["construction"] * 1e3
        lines.append(f"| import and construction | {client} | {ready:.2f} s, then {construction:.2f} ms each | | |")
    return "\n".join(lines)


def measure_all(pythons: dict[str, str | None], passes: int, only: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the results of every client in every case whose name contains `only`."""
    results: dict[str, dict[str, dict[str, Any]]] = {}
    with replay_server() as base_url:
        for case, (served, clients, _) in CASES.items():
            chosen = {client: python for client, name in clients.items() if (python := pythons[name]) and only in case}
            for turn in range(passes):
                for client, python in chosen.items():
                    slow = SLOW.get(client) == served
                    if turn == 0 or not slow:
                        print(f"{case}: {client}, turn {turn + 1}", file=sys.stderr)
                        found = run(python, client, served, base_url, 1 if slow else ROUNDS)
                        merge(results.setdefault(case, {}).setdefault(client, {}), found)
    return results


def merge(known: dict[str, Any], found: dict[str, Any]) -> None:
    """Add the rounds of another process. For values measured once per process, keep the lowest."""
    known.setdefault("turns", []).append(statistics.median(found["seconds"]))
    for name, value in found.items():
        known[name] = known.get(name, []) + value if name == "seconds" else min(known.get(name, value), value)


def main() -> None:
    """Run the measurements, print the tables, and write the raw results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vendor", help="python with langchain-empiriolabs, langchain-deepseek, langchain-anthropic")
    parser.add_argument("--like", help="python with llama-index-llms-openai-like")
    parser.add_argument("--passes", type=int, default=3, help="number of turns of each client (default: 3)")
    parser.add_argument("--only", default="", help="measure only the cases whose name contains this text")
    parser.add_argument("--json", help="file to write the raw results to")
    parser.add_argument("--show", nargs="*", help="print the tables of such files, and measure nothing")
    chosen = parser.parse_args()
    if chosen.show:
        known = {case: found for path in chosen.show for case, found in json.loads(Path(path).read_text()).items()}
        print(targets(known), table(known), sep="\n\n")
        return
    pythons = {"python": sys.executable, "vendor": chosen.vendor, "like": chosen.like}
    results = measure_all(pythons, chosen.passes, chosen.only)
    print(targets(results), table(results), sep="\n\n")
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
