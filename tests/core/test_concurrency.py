"""Concurrent and interrupted calls: threads, event loops, cancellation, forks and the end of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core.sandbox import Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.sockets import connections, full_queue

QUESTION = "Hello"
ADAPTERS = pytest.mark.parametrize("adapter", [ChatEmpirioLabs, EmpirioLabs])


def ask(llm: Any, question: str = QUESTION) -> str:
    if isinstance(llm, ChatEmpirioLabs):
        return str(llm.invoke(question).content)
    return str(llm.chat([ChatMessage(question)]).message.content)


async def aask(llm: Any, stream: bool, question: str = QUESTION) -> str:
    if isinstance(llm, ChatEmpirioLabs):
        if stream:
            return "".join([chunk.text async for chunk in llm.astream(question)])
        return str((await llm.ainvoke(question)).content)
    messages = [ChatMessage(question)]
    if stream:
        return "".join([response.delta or "" async for response in await llm.astream_chat(messages)])
    return str((await llm.achat(messages)).message.content)


@ADAPTERS
def test_one_instance_in_many_event_loops(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where)
    for stream in (False, True) * 2:
        assert asyncio.run(aask(llm, stream)).startswith("You said: Hello")


@ADAPTERS
def test_event_loops_that_are_over_are_let_go(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where)
    loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    async def one() -> None:
        loops.add(asyncio.get_running_loop())
        await aask(llm, False)

    with warnings.catch_warnings():
        # A loop that ends with an idle connection leaves it to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(20):
            asyncio.run(one())
        gc.collect()
    assert len(loops) <= 2


@ADAPTERS
def test_one_instance_in_many_event_loops_at_the_same_time(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: asyncio.run(aask(llm, bool(n % 2), f"Question {n}")), range(24))
        assert [answer.startswith(f"You said: Question {n} ") for n, answer in enumerate(answers)] == [True] * 24


@ADAPTERS
def test_one_instance_in_many_threads(adapter: Any, where: dict[str, Any], sandbox: Sandbox) -> None:
    llm = adapter(**where)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask(llm, f"Question {n}"), range(40)))
    assert [answer.startswith(f"You said: Question {n} ") for n, answer in enumerate(answers)] == [True] * 40
    assert len(sandbox.ledger) == 40


PHASES = {
    "connecting": None,
    "before the headers": Fault("timeout", seconds=5),
    "between two tries": Fault("status", status=503, headers={"retry-after": "5"}),
    "in the body": Fault("slow", size=10**4, seconds=0.02),
    "between two deltas": Fault("idle", after=3, seconds=5),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@ADAPTERS
@pytest.mark.parametrize("phase", PHASES)
async def test_a_call_can_be_cancelled_in_every_phase(
    phase: str, adapter: Any, stream: bool, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    gc.collect()
    before, fault = connections(sandbox), PHASES[phase]
    with full_queue() as full:
        address = sandbox.base_url if fault else full
        sandbox.fail(*[fault] if fault else [])
        llm = adapter(**{**where, "base_url": address, "max_retries": 1})
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aask(llm, stream), 0.3)
    await asyncio.sleep(0.05)
    assert connections(sandbox) <= before + 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    again = llm if fault else adapter(**where)
    sandbox.reset()
    assert (await aask(again, stream, "Again")).startswith("You said: Again")
    assert len(sandbox.ledger) == 1
    await again.gateway.aclose()


@ADAPTERS
def test_an_open_stream_does_not_keep_the_interpreter(adapter: Any, sandbox: Sandbox) -> None:
    sandbox.fail(Fault("idle", after=2, seconds=300))
    call = "stream('Hi')" if adapter is ChatEmpirioLabs else "stream_complete('Hi')"
    code = (
        f"from {adapter.__module__} import {adapter.__name__} as Adapter;"
        f"stream = Adapter(base_url={sandbox.base_url!r}, api_key={sandbox.api_key!r}, enable_thinking=False).{call};"
        "print(next(stream))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=200, capture_output=True)


@ADAPTERS
def test_an_open_asynchronous_stream_does_not_keep_the_interpreter(adapter: Any, sandbox: Sandbox) -> None:
    sandbox.fail(Fault("idle", after=2, seconds=300))
    call = "stream = llm.astream('Hi')" if adapter is ChatEmpirioLabs else "stream = await llm.astream_complete('Hi')"
    code = f"""
import asyncio
from {adapter.__module__} import {adapter.__name__} as Adapter
async def main():
    llm = Adapter(base_url={sandbox.base_url!r}, api_key={sandbox.api_key!r}, enable_thinking=False)
    {call}
    print(await anext(stream))
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=200, capture_output=True)


@ADAPTERS
@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system cannot fork.")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_after_use(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where)
    ask(llm, "Before")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, ask(llm, "In the child").encode())
        finally:
            os._exit(0)
    os.close(write)
    mine = [ask(llm, f"In the parent {number}") for number in range(5)]
    os.waitpid(child, 0)
    assert os.read(read, 1000).startswith(b"You said: In the child")
    assert [text.startswith(f"You said: In the parent {number}") for number, text in enumerate(mine)] == [True] * 5
