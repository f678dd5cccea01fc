"""State shared by processes and threads: forks, first use by many threads, and HTTP clients owned by the user."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from empiriolabs_core.errors import EmpirioLabsError, UsageError
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from llamaindex_empiriolabs import EmpirioLabs
from tests.core.test_concurrency import aask, ask
from tests.sockets import connections

ADAPTERS = pytest.mark.parametrize("adapter", [ChatEmpirioLabs, EmpirioLabs])
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="This system cannot fork.")

FORK = """
import asyncio, os, sys
import openai
from {module} import {adapter} as Adapter
from tests.core.test_concurrency import aask, ask
where = dict(base_url={base_url!r}, api_key={api_key!r}, max_retries=0)
"""


def run(adapter: Any, where: dict[str, Any], code: str) -> str:
    """Run code in a process of its own, with the adapter as `Adapter`; return what it printed."""
    first = FORK.format(module=adapter.__module__, adapter=adapter.__name__, **where)
    command = [sys.executable, "-W", "ignore", "-c", first + code]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


@FORKS
@ADAPTERS
def test_an_http_client_is_not_used_by_a_fork(adapter: Any, where: dict[str, Any]) -> None:
    code = """
llm = Adapter(**where, http_client=openai.DefaultHttpxClient(), http_async_client=openai.DefaultAsyncHttpxClient())
ask(llm, "Before")
child = os.fork()
if child == 0:
    other = Adapter(**where, http_client=llm.http_client)
    for call in (lambda: ask(llm), lambda: ask(other), lambda: asyncio.run(aask(llm, False)),
                 lambda: asyncio.run(aask(llm, True))):
        try:
            print(call(), flush=True)
        except Exception as error:
            print(type(error).__name__, "after the fork" in str(error), flush=True)
    new = Adapter(**where, http_client=openai.DefaultHttpxClient())
    print(ask(new, "New"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(ask(llm, "In the parent"))
"""
    lines = run(adapter, where, code).splitlines()
    assert lines[:4] == ["UsageError True"] * 4
    assert lines[4].startswith("You said: New")
    assert lines[5].startswith("You said: In the parent")


@FORKS
@ADAPTERS
def test_a_fork_ends_while_the_pool_is_in_use(adapter: Any, where: dict[str, Any]) -> None:
    """The lock of the connection pool is held at the moment of the fork, as another thread of the parent may do."""
    code = """
import threading
llm = Adapter(**where)
ask(llm, "Before")
lock = llm.gateway.client._client._transport._pool._optional_thread_lock
held, done = threading.Event(), threading.Event()
def hold():
    with lock:
        held.set()
        done.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    print(ask(llm, "In the child"), flush=True)
    sys.exit()
os.waitpid(child, 0)
done.set()
"""
    assert run(adapter, where, code).startswith("You said: In the child")


@FORKS
def test_a_lock_that_is_held_at_the_fork_is_not_waited_for(where: dict[str, Any]) -> None:
    code = """
from empiriolabs_core import gateway
import threading
held, done = threading.Event(), threading.Event()
def hold():
    with gateway.one_at_a_time():
        held.set()
        done.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    print(ask(Adapter(**where), "In the child"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
done.set()
"""
    assert run(ChatEmpirioLabs, where, code).startswith("You said: In the child")


@pytest.mark.parametrize("adapter", [ChatEmpirioLabs, EmpirioLabs, EmpirioLabsEmbeddings])
def test_the_first_use_by_200_threads_makes_one_client(adapter: Any, where: dict[str, Any]) -> None:
    llm, barrier = adapter(**where), threading.Barrier(200)

    def first_use(_: int) -> Any:
        barrier.wait()
        return llm.gateway.client

    with ThreadPoolExecutor(200) as pool:
        clients = list(pool.map(first_use, range(200)))
    assert len({id(client) for client in clients}) == 1
    llm.gateway.close()


@ADAPTERS
def test_the_first_use_by_many_threads_leaves_no_connections(
    adapter: Any, where: dict[str, Any], sandbox: Sandbox
) -> None:
    gc.collect()
    before, llm, barrier = connections(sandbox), adapter(**where), threading.Barrier(30)

    def first_use(_: int) -> None:
        barrier.wait()
        ask(llm)

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(first_use, range(30)))
    llm.gateway.close()
    assert connections(sandbox) <= before


@ADAPTERS
async def test_a_users_client_is_not_closed(adapter: Any, where: dict[str, Any]) -> None:
    http_client, http_async_client = openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient()
    llm = adapter(**where, http_client=http_client, http_async_client=http_async_client)
    ask(llm)
    await aask(llm, False)
    llm.gateway.close()
    await llm.gateway.aclose()
    assert not http_client.is_closed
    assert not http_async_client.is_closed
    assert ask(llm, "Again").startswith("You said: Again")
    assert (await aask(llm, True, "Again")).startswith("You said: Again")
    http_client.close()
    await http_async_client.aclose()


@ADAPTERS
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
async def test_a_closed_client_of_the_user(adapter: Any, used: bool, where: dict[str, Any]) -> None:
    http_client, http_async_client = openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient()
    llm = adapter(**where, http_client=http_client, http_async_client=http_async_client)
    if used:
        ask(llm)
        await aask(llm, False)
    http_client.close()
    await http_async_client.aclose()
    with pytest.raises(UsageError, match="http_client is closed"):
        ask(llm)
    for stream in (False, True):
        with pytest.raises(UsageError, match="http_async_client is closed"):
            await aask(llm, stream)


@ADAPTERS
async def test_a_client_that_was_closed_through_the_gateway_is_replaced(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where)
    ask(llm)
    llm.gateway.client.close()
    assert ask(llm, "Again").startswith("You said: Again")
    await aask(llm, False)
    await llm.gateway.async_client.close()
    assert (await aask(llm, False, "Again")).startswith("You said: Again")
    await llm.gateway.aclose()


@ADAPTERS
def test_an_async_client_in_two_event_loops(adapter: Any, where: dict[str, Any]) -> None:
    llm = adapter(**where, http_async_client=openai.DefaultAsyncHttpxClient())
    asyncio.run(aask(llm, False))
    with pytest.raises(EmpirioLabsError):
        asyncio.run(aask(llm, False))
