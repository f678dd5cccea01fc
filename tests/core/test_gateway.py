"""The transport, over sockets: isolation from OPENAI_* settings, event loops, threads, closing, addresses."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from empiriolabs_core.clients import CONNECT_TIMEOUT
from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import (
    ConnectionDroppedError,
    ContextOverflowError,
    InvalidReplyError,
    NoAnswerInTimeError,
    ReportedError,
    SettingsError,
)
from empiriolabs_core.gateway import Gateway, Request
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import EmpirioLabsEmbeddings
from tests.drivers import DRIVERS, Case

MESSAGES = [{"role": "user", "content": "Hello"}]
CANARY = "canary-3b1f"


def answer_of(settings: Settings, stream: bool) -> Any:
    request = ask(settings, stream=stream)
    return list(settings.gateway.stream(request)) if stream else settings.gateway.complete(request)


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
    assert sandbox.requests[-1].path == "/v1/chat/completions"


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
    """Half of a surrogate pair, as models and text splitters produce it, cannot be encoded in UTF-8."""
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
    with pytest.raises(openai.NotFoundError, match=rf"{address} does not serve this path .404..*such as https"):
        elsewhere.gateway.complete(ask(elsewhere))


def test_a_model_that_there_is_not(settings: Settings) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'none' does not exist"):
        settings.gateway.complete(ask(settings, model="none"))


def test_the_time_out_of_a_call_is_the_one_that_is_told(sandbox: Sandbox, settings: Settings) -> None:
    sandbox.fail(Fault("timeout", seconds=2))
    with pytest.raises(openai.APITimeoutError, match=r"timeout=0\.2"):
        settings.gateway.complete(ask(settings, timeout=0.2))


@contextmanager
def answering(status: int, body: Any, kind: str = "application/json") -> Iterator[Settings]:
    """Serve one answer for ever, of whatever shape; yield settings that lead there."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Settings(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="sk-x", max_retries=0)
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "The model foo does not exist", "type": "not_found_error"}},
        {"type": "error", "error": {"type": "not_found_error", "message": "The model foo does not exist"}},
        {"error": "The model foo does not exist"},
    ],
)
def test_a_404_in_the_gateways_own_words(body: Any) -> None:
    with answering(404, body) as elsewhere, pytest.raises(openai.NotFoundError, match="model foo does not exist"):
        elsewhere.gateway.complete(ask(elsewhere))


@pytest.mark.parametrize("status", [400, 402, 422, 502])
@pytest.mark.parametrize("body", [{"error": "Told so."}, {"detail": "Told so."}, ["Told so."], "Told so.", b"Told so."])
@pytest.mark.parametrize("stream", [False, True])
def test_error_bodies_of_odd_shapes_are_told(status: int, body: Any, stream: bool) -> None:
    with answering(status, body) as elsewhere, pytest.raises(openai.APIStatusError, match="Told so") as raised:
        answer_of(elsewhere, stream)
    assert raised.value.status_code == status


def test_an_overflow_in_an_odd_shape_and_an_endless_message() -> None:
    with answering(400, {"detail": "maximum context length is 5"}) as there, pytest.raises(ContextOverflowError):
        there.gateway.complete(ask(there))
    with answering(400, {"error": {"message": "x" * 10**6}}) as there, pytest.raises(openai.BadRequestError) as raised:
        there.gateway.complete(ask(there))
    assert len(str(raised.value)) < 3000


DEEP = b"[" * 100_000
LONG = b'{"choices": [], "x": ' + b"1" * 5000 + b"}"


@pytest.mark.parametrize("raw", [DEEP, LONG], ids=["deep", "long integer"])
@pytest.mark.parametrize("way", ["whole", "event", "whole in place of a stream"])
def test_json_that_python_cannot_read(raw: bytes, way: str) -> None:
    event = way == "event"
    kind = "Text/Event-Stream; charset=utf-8" if event else "application/json"
    with answering(200, b"data: " + raw + b"\n\n" if event else raw, kind) as there, pytest.raises(InvalidReplyError):
        answer_of(there, stream=way != "whole")


USAGE = {"prompt_tokens": 10**6, "completion_tokens": 10**6, "total_tokens": 2 * 10**6}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"choices": []}, InvalidReplyError),
        ({"choices": [{"finish_reason": "stop"}]}, InvalidReplyError),
        ({"error": {"message": "No."}}, ReportedError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_reply_that_is_refused_count(reply: Any, kind: Any, stream: bool) -> None:
    with answering(200, {**reply, "usage": USAGE}) as there, track_cost() as costs, pytest.raises(kind):
        answer_of(there, stream)
    assert costs.total.output_tokens == 10**6
    assert costs.total_usd > 0


def test_a_connection_shows_no_secret_to_what_walks_through_it(where: dict[str, Any]) -> None:
    connection = Settings(**{**where, "api_key": "sk-secret", "default_headers": {"x": "sk-secret"}}).gateway.connection
    assert not isinstance(connection, Sequence)
    assert "sk-secret" not in repr(connection)


@pytest.mark.parametrize("timeout", [openai.Timeout(None), openai.Timeout(5, read=None), 10**12, 1e300])
def test_there_is_always_a_time_out(settings: Settings, timeout: Any) -> None:
    with pytest.raises(SettingsError, match="timeout"):
        ask(settings, timeout=timeout)
    with pytest.raises(SettingsError, match="timeout"):
        Settings(api_key="sk-x", timeout=timeout)


def test_the_time_to_connect_is_limited_for_a_call_too(settings: Settings) -> None:
    seen: list[Any] = []
    settings.gateway.client._client.event_hooks["request"] = [
        lambda request: seen.append(request.extensions["timeout"])
    ]
    settings.gateway.complete(ask(settings, timeout=14))
    settings.gateway.complete(ask(settings, timeout=3))
    assert [(phases["connect"], phases["read"]) for phases in seen] == [(CONNECT_TIMEOUT, 14), (3, 3)]


def test_half_an_emoji_in_a_key_can_be_sent(sandbox: Sandbox, settings: Settings) -> None:
    settings.gateway.complete(ask(settings, extra_body={"other": {"cut \ud83d": 1}}))
    assert sandbox.requests[-1].body["other"] == {"cut \ufffd": 1}


def test_what_is_not_the_errors_fault_is_a_time_out_still(sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(Fault("timeout", seconds=0.5))
    settings = Settings(**{**where, "max_retries": 0})
    with pytest.raises(NoAnswerInTimeError, match="ReadTimeout"):
        settings.gateway.complete(ask(settings, timeout=openai.Timeout(5, read=0.1)))
