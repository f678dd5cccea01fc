"""Run many calls through both adapters, a tenth of them with faults, and compare them with the sandbox's ledger.

    python -m benchmarks.soak [REQUESTS] [AT_ONCE]

Asserts that each answer matches its question, that the ledger contains each call exactly once, that memory does not
grow after the first fifth, and that no thread, task or open file is left. The sandbox runs in a separate process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

SERVER = """
import json, sys
from empiriolabs_core.sandbox import Fault, Sandbox
count = int(sys.argv[1])
kinds = ["status", "reset", "status", "cut"]
def faults():
    for number in range(count * 2):
        kind = kinds[number // 10 % len(kinds)]
        yield Fault(kind, status=503, headers={"retry-after-ms": "1"}) if number % 10 == 9 else None
with Sandbox(faults=faults(), keep=None) as sandbox:
    print(json.dumps([sandbox.base_url, sandbox.api_key]), flush=True)
    sys.stdin.read()
    print(len(sandbox.ledger), flush=True)
"""


def resident_mb() -> float:
    """Return the memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def open_files() -> int:
    """Return the number of open files and sockets."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def _ask(number: int, chat: ChatEmpirioLabs, index: EmpirioLabs) -> str:
    """Ask in one of four ways, and repeat the call if the connection broke during the answer."""
    question = f"Question {number}"
    for _ in range(20):
        try:
            match number % 4:
                case 0:
                    return str((await chat.ainvoke(question)).content)
                case 1:
                    return "".join([chunk.text async for chunk in chat.astream(question)])
                case 2:
                    return str((await index.achat([ChatMessage(question)])).message.content)
                case _:
                    stream = await index.astream_chat([ChatMessage(question)])
                    return "".join([response.delta or "" async for response in stream])
        except ConnectionError:
            raise
        except Exception as error:
            if type(error).__name__ not in ("EmpirioLabsConnectionError", "ConnectionDroppedError"):
                raise
    raise RuntimeError(f"{question} received no answer.")


async def _run(requests: int, at_once: int, where: dict[str, Any]) -> dict[str, Any]:
    settings = {**where, "max_retries": 8, "enable_thinking": False}
    chat, index = ChatEmpirioLabs(**settings), EmpirioLabs(**settings)
    todo, early = iter(range(requests)), 0.0

    async def work() -> None:
        nonlocal early
        for number in todo:
            answer = await _ask(number, chat, index)
            assert answer == f"You said: Question {number} That is all there is to say.", answer
            if number == requests // 5:
                gc.collect()
                early = resident_mb()

    await asyncio.gather(*[work() for _ in range(at_once)])
    await chat.gateway.aclose()
    await index.gateway.aclose()
    gc.collect()
    await asyncio.sleep(0.1)  # The garbage collector closes unfinished asynchronous generators in separate tasks.
    tasks = len(asyncio.all_tasks()) - 1
    return {"early_mb": early, "late_mb": resident_mb(), "tasks": tasks}


def soak(requests: int, at_once: int) -> dict[str, Any]:
    """Run, assert, and return the figures."""
    command = [sys.executable, "-c", SERVER, str(requests)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        base_url, api_key = json.loads(server.stdout.readline())
        files, threads, started = open_files(), threading.active_count(), time.monotonic()
        figures = asyncio.run(_run(requests, at_once, {"base_url": base_url, "api_key": api_key}))
        figures["seconds"] = round(time.monotonic() - started, 1)
        server.stdin.close()
        figures["served"] = int(server.stdout.readline())
    gc.collect()
    figures["files_left"], figures["threads_left"] = open_files() - files, threading.active_count() - threads
    # The ledger must not contain truncated replies, so it has exactly one entry per question.
    assert figures["served"] == requests, figures
    assert figures["tasks"] == 0, figures
    assert figures["files_left"] <= 2, figures
    assert figures["threads_left"] <= 1, figures
    return figures


if __name__ == "__main__":
    found = soak(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, int(sys.argv[2]) if len(sys.argv) > 2 else 200)
    growth = found["late_mb"] / found["early_mb"] - 1
    print(json.dumps({**found, "growth": round(growth, 3)}, indent=1))
    assert growth <= 0.05, "Memory grew by more than 5%."
