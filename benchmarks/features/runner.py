"""Run all checks on one peer, with the peer's interpreter: python -m features.runner PEER

It is started by `benchmarks.features`, in the folder above this one, so that no package of the checkout is found.
The sandbox is in the other process. Each line on standard output is a request to it, and each on standard input a
reply; the last line holds the results.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
import warnings
from typing import Any

# Importing them fills the table.
from . import checks_answers, checks_faults, checks_settings  # noqa: F401
from .peers import PEERS
from .subject import Subject, run

SECONDS = 20
"""Longest wait within a check, in seconds."""


class RemoteWire:
    """The sandbox of the other process."""

    def __init__(self) -> None:
        # What a peer prints must not get among the requests.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.base_url, self.api_key = self._ask("where")

    def _ask(self, method: str, *arguments: Any) -> Any:
        self.tell({"method": method, "arguments": arguments})
        return json.loads(sys.stdin.readline())

    def tell(self, line: Any) -> None:
        print(json.dumps(line), file=self._out, flush=True)

    def reset(self) -> None:
        self._ask("reset")

    def script(self, *answers: dict[str, Any]) -> None:
        self._ask("script", *answers)

    def fail(self, *faults: dict[str, Any]) -> None:
        self._ask("fail", *faults)

    def requests(self) -> list[dict[str, Any]]:
        return list(self._ask("requests"))


def subject_of(name: str, wire: Any) -> Subject:
    """Return a peer that uses the given sandbox. Imports only its framework."""
    peer = PEERS[name]
    if peer.framework == "langchain":
        from .ways_langchain import LangChain

        return LangChain(peer, wire)
    from .ways_llamaindex import LlamaIndex

    return LlamaIndex(peer, wire)


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"no end within {SECONDS} seconds")


def main() -> None:
    """Run the checks of one peer, and send verdicts and versions."""
    warnings.simplefilter("ignore")
    wire = RemoteWire()
    subject = subject_of(sys.argv[1], wire)
    signal.signal(signal.SIGALRM, _too_long)
    # Again and again: a check may take the first for the failure of one of its cases.
    verdicts = run(subject, lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS))
    signal.setitimer(signal.ITIMER_REAL, 0)
    versions = {name: importlib.metadata.version(name) for name in subject.peer.distributions}
    wire.tell({"verdicts": verdicts, "versions": versions})


if __name__ == "__main__":
    main()
