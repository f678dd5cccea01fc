"""The transport, over sockets: isolation from OPENAI_* settings, event loops, threads, closing, addresses."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import openai
import pytest

from empiriolabs_core.errors import ConnectionDroppedError, InvalidReplyError
from empiriolabs_core.gateway import CHAT, Gateway, Request
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import EmpirioLabsEmbeddings
from tests.drivers import DRIVERS, Case

MESSAGES = [{"role": "user", "content": "Hello"}]
CANARY = "canary-3b1f"


def ask(settings: Settings, stream: bool = False, **call: Any) -> Request:
    return settings.request(MESSAGES, call, stream=stream)


@pytest.fixture
def settings(where: dict[str, Any]) -> Settings:
    return Settings(**where)


async def collect(gateway: Gateway, request: Request) -> list[Any]:
    return [chunk async for chunk in gateway.astream(request)]


async def test_the_four_ways(settings: Settings) -> None:
    gateway = settings.gateway
    whole = gateway.complete(ask(settings))
    assert whole["choices"][0]["message"]["content"].startswith("You said: Hello")
    again = await gateway.acomplete(ask(settings))
    assert again["choices"] == whole["choices"]
    chunks = list(gateway.stream(ask(settings, stream=True)))
    assert all(type(chunk) is dict for chunk in chunks)
    assert len(await collect(gateway, ask(settings, stream=True))) == len(chunks)
    assert chunks[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://gateway.invalid/v1"])
def test_a_dead_address_is_named(address: str, stream: bool) -> None:
    settings = Settings(api_key=CANARY, base_url=address, max_retries=0)
    with pytest.raises(ConnectionDroppedError, match=address) as dropped:
        list(settings.gateway.stream(ask(settings, stream=True))) if stream else settings.gateway.complete(
            ask(settings)
        )
    assert isinstance(dropped.value, openai.APIConnectionError)
    assert CANARY not in "".join(traceback.format_exception(dropped.value))


def test_tls_that_is_none(sandbox: Sandbox) -> None:
    settings = Settings(api_key=CANARY, base_url=sandbox.base_url.replace("http:", "https:"), max_retries=0)
    with pytest.raises(ConnectionDroppedError, match="SSL"):
        settings.gateway.complete(ask(settings))


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_a_slash_at_the_end_of_the_address(sandbox: Sandbox, ending: str) -> None:
    settings = Settings(api_key=sandbox.api_key, base_url=sandbox.base_url + ending)
    settings.gateway.complete(ask(settings))
    assert sandbox.requests[-1].path == f"/v1{CHAT}"


def test_retries_are_one_layer(sandbox: Sandbox, where: dict[str, Any]) -> None:
    for driver in DRIVERS.values():
        sandbox.reset()
        sandbox.fail(*[Fault("status", status=503, headers={"retry-after-ms": "1"})] * 3)
        with pytest.raises(openai.InternalServerError):
            driver(Case("x", settings={"max_retries": 2}), where, False)
        assert len(sandbox.requests) == 3


def test_options_of_one_call(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.fail(Fault("timeout", seconds=3))
    before = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        settings.gateway.complete(ask(settings, timeout=0.2))
    assert time.monotonic() - before < 2
    sandbox.fail(Fault("status", status=503, headers={"retry-after-ms": "1"}))
    settings.gateway.complete(ask(settings, max_retries=1, extra_headers={"x-trace": "7"}))
    assert sandbox.requests[-1].headers["x-trace"] == "7"


def test_a_body_without_a_choice_says_what_came(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.script(Answer(body={"detail": "nothing here"}))
    with pytest.raises(InvalidReplyError, match="nothing here"):
        settings.gateway.complete(ask(settings))


def test_clients_are_lazy_and_connections_are_closed(where: dict[str, Any]) -> None:
    settings = Settings(**where)
    gateway = settings.gateway
    assert gateway._client is None
    gateway.complete(ask(settings))
    http_client = gateway.client._client
    del settings, gateway
    gc.collect()
    assert http_client.is_closed


async def test_close(settings: Settings) -> None:
    settings.gateway.complete(ask(settings))
    await settings.gateway.acomplete(ask(settings))
    settings.gateway.close()
    await settings.gateway.aclose()
    assert settings.gateway.complete(ask(settings))


def test_core_knows_no_framework_and_no_http_library() -> None:
    code = (
        "import sys, empiriolabs_core.settings as s; s.Settings(seed=1);"
        "print([m for m in sys.modules if m.split('.')[0] in ('langchain_core', 'llama_index', 'starlette')])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
    assert threading.active_count() < 50


def test_half_an_emoji_can_be_sent(sandbox: Sandbox, where: dict[str, Any]) -> None:
    """A model or a text splitter that cuts one in two leaves half of a surrogate pair, which UTF-8 cannot hold."""
    for driver in DRIVERS.values():
        for stream in (False, True):
            conversation = [
                {"role": "user", "content": text} for text in ("cut \ud83d", "joined \ud83d\ude00", "whole 😀")
            ]
            driver(Case("x", conversation=conversation), where, stream)
            sent = [message["content"] for message in sandbox.requests[-1].body["messages"]]
            assert sent == ["cut \ufffd", "joined 😀", "whole 😀"]
    assert EmpirioLabsEmbeddings(**where).embed_query("cut \ud83d")


@pytest.mark.parametrize("path", ["", "/v1/chat/completions", "/v2"])
def test_an_address_with_another_path_is_told(sandbox: Sandbox, path: str) -> None:
    address = sandbox.base_url.removesuffix("/v1") + path
    elsewhere = Settings(api_key=sandbox.api_key, base_url=address)
    with pytest.raises(openai.NotFoundError, match=rf"{address} has no such path .404..*such as https"):
        elsewhere.gateway.complete(ask(elsewhere))


def test_a_model_that_there_is_not(settings: Settings) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'none' does not exist"):
        settings.gateway.complete(ask(settings, model="none"))


def test_the_time_out_of_a_call_is_the_one_that_is_told(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.fail(Fault("timeout", seconds=2))
    with pytest.raises(openai.APITimeoutError, match=r"timeout=0\.2"):
        settings.gateway.complete(ask(settings, timeout=0.2))
