"""A canary key in every path, fault and serialisation: only the gateway receives it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import langsmith
import openai
import pytest
import vcr
from langchain_core.load import dumpd, dumps
from langchain_core.tracers import LangChainTracer
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import Document, NodeWithScore, TextNode
from pydantic import BaseModel

from empiriolabs_core.errors import (
    BASE_VARIABLE,
    KEY_VARIABLE,
    ConnectionDroppedError,
    EmpirioLabsError,
    RedirectError,
    SettingsError,
)
from empiriolabs_core.sandbox import Fault, Sandbox
from empiriolabs_core.sandbox.faults import KINDS
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank
from tests.consumers.collector import collector
from tests.core.fixed import answering
from tests.core.test_errors import assert_travels
from tests.drivers import DRIVERS, Case
from tests.recording import CONFIG, register

KEY = "canary-key-3b1f"
HEADER = "canary-header-77d0"
OPENAI = "canary-openai-91ac"
CLASSES = [
    ChatEmpirioLabs,
    EmpirioLabs,
    EmpirioLabsEmbeddings,
    EmpirioLabsEmbedding,
    EmpirioLabsRerank,
    LlamaIndexRerank,
    Settings,
]
VARIABLES = sorted(
    {
        name
        for path in Path(openai.__file__).parent.rglob("*.py")
        for name in re.findall(r'"(OPENAI_[A-Z_]+)"', path.read_text())
    }
    - {"OPENAI_LOG"}
)
"""The environment variables that the OpenAI client reads, according to its source."""


@pytest.fixture
def where(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of an adapter whose key and headers are canaries, on a machine set up for OpenAI."""
    assert {"OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_CUSTOM_HEADERS"} <= set(VARIABLES)
    for name in VARIABLES:
        monkeypatch.setenv(name, OPENAI)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {OPENAI}\nX-Other: {OPENAI}")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.2:9/{OPENAI}")
    monkeypatch.setattr("empiriolabs_core.sandbox.server.API_KEY", KEY)
    return {
        "base_url": sandbox.base_url,
        "api_key": KEY,
        "default_headers": {"x-mine": HEADER},
        "max_retries": 1,
        "timeout": 0.3,
    }


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    yield caplog
    records = caplog.get_records("call")
    assert records
    assert "canary" not in "\n".join(f"{vars(record)} {record.getMessage()}" for record in records)


NOT_OURS = (f"{Path(__file__).parent.parent}", "/langchain_core/", "/llama_index/", "/llama_index_instrumentation/")
"""Frames that hold what a caller passed in: those of the tests and of the frameworks."""


def told(error: BaseException) -> str:
    """Return what a tool that reports errors shows: the whole chain with its notes and the local variables."""
    shown: list[str] = []
    chain, seen = [error], set()
    while chain:
        exception = chain.pop()
        if id(exception) in seen:
            continue
        seen.add(id(exception))
        chain += [e for e in (exception.__cause__, exception.__context__) if e is not None]
        chain += getattr(exception, "exceptions", ())
        shown += [str(exception), repr(exception), repr(vars(exception))]
        found = traceback.TracebackException.from_exception(exception, capture_locals=True)
        frames = [frame for frame in found.stack if not any(part in frame.filename for part in NOT_OURS)]
        shown += [f"{frame.filename} {frame.locals}" for frame in frames]
        request = getattr(exception, "request", None)
        shown += [str(request.headers), str(request.url)] if request is not None else []
    return "\n".join(shown)


def assert_kept(sandbox: Sandbox, seen: list[str]) -> None:
    """Check that the gateway got the key, and nothing of OpenAI's; and that none of it was shown."""
    assert "canary" not in "\n".join(seen)
    for request in sandbox.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-mine"] == HEADER
        assert request.headers["user-agent"].startswith("empiriolabs-adapters/")
        assert OPENAI not in str(request)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault(kind: str, sandbox: Sandbox, where: dict[str, Any], logs: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    fault = Fault(kind, after=2, status=401, code="invalid_api_key", seconds=0.5, size=200, url=sandbox.base_url)
    for driver in DRIVERS.values():
        for stream in (False, True):
            sandbox.fail(fault, fault)
            try:
                seen.append(repr(driver(Case("x"), where, stream)))
            except openai.OpenAIError as error:
                seen.append(told(error))
    assert_kept(sandbox, seen)


async def test_every_route(sandbox: Sandbox, where: dict[str, Any], logs: pytest.LogCaptureFixture) -> None:
    where["timeout"] = 10
    index = VectorStoreIndex.from_documents([Document(text="Snow")], embed_model=EmpirioLabsEmbedding(**where))
    nodes = [NodeWithScore(node=TextNode(text="Snow"))]
    seen = [
        str(EmpirioLabsEmbeddings(**where).embed_query("Snow")),
        str(await EmpirioLabsEmbeddings(**where).aembed_query("Snow")),
        str(EmpirioLabsRerank(**where).rerank("Snow", ["Snow"])),
        str(LlamaIndexRerank(**where).postprocess_nodes(nodes, query_str="Snow")),
        str(index.as_query_engine(llm=EmpirioLabs(**where)).query("Snow?")),
        str(ChatEmpirioLabs(**where).with_structured_output({"title": "A", "properties": {}}).invoke("Snow")),
    ]
    assert len(sandbox.requests) >= 7
    assert_kept(sandbox, seen)
    sandbox.reset()
    assert ChatEmpirioLabs.list_models(sandbox.base_url)
    assert await EmpirioLabs.alist_models(sandbox.base_url)
    for request in sandbox.requests:
        assert "authorization" not in request.headers
        assert "canary" not in str(request)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_serialisation(kind: Any, sandbox: Sandbox, where: dict[str, Any]) -> None:
    llm: BaseModel = kind(**where)
    if isinstance(llm, ChatEmpirioLabs | EmpirioLabs):
        llm.gateway.client  # So that there is something to leave behind.
    seen = [repr(llm), str(llm), str(llm.model_dump()), llm.model_dump_json(), repr(pickle.dumps(llm))]
    seen += [
        repr(copy.deepcopy(llm)),
        repr(copy.copy(llm)),
        repr(llm.model_copy()),
    ]
    seen += [repr(getattr(llm, "gateway", "")), repr(getattr(llm, "gateway", llm).__dict__)]
    for name in ("to_dict", "to_json", "to_payload", "_get_llm_string", "_identifying_params", "lc_attributes"):
        found = getattr(llm, name, "")
        seen.append(str(found() if callable(found) else found))
    seen += [str(dumpd(llm)), dumps(llm)] if isinstance(llm, ChatEmpirioLabs) else []
    assert "canary" not in "\n".join(seen)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("wrong", [{"modle": "x"}, {"max_retries": -1}, {"timeout": 0}, {"base_url": "nowhere"}])
def test_every_wrong_argument(kind: Any, wrong: dict[str, Any], where: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        kind(**{**where, **wrong})
    assert "canary" not in told(refused.value)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} {KEY}", f"{KEY}é"])
def test_a_wrong_key(key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        ChatEmpirioLabs(api_key=key)
    assert "canary" not in told(refused.value)


def test_traces(sandbox: Sandbox, where: dict[str, Any], logs: pytest.LogCaptureFixture) -> None:
    """LangSmith's own client, with a collector on this machine in the place of its service."""
    llm = ChatEmpirioLabs(**where)
    with collector() as traces:
        # Without batches each run is posted as it starts and as it ends, so that nothing is left to wait for.
        client = langsmith.Client(traces.url, api_key="traces", auto_batch_tracing=False)
        config: Any = {"callbacks": [LangChainTracer(client=client)]}
        llm.invoke("Hello", config)
        list(llm.stream("Hello", config))
        sandbox.fail(*[Fault("status", status=401, code="invalid_api_key")] * 2)
        with pytest.raises(openai.AuthenticationError):
            llm.invoke("Hello", config)
    assert len(traces.runs) == 3
    assert b"canary" not in b"".join(traces.raw)
    assert_kept(sandbox, [])


def test_cassettes(sandbox: Sandbox, where: dict[str, Any], tmp_path: Path) -> None:
    recorder = vcr.VCR(serializer="yaml", record_mode="all", **CONFIG)
    register(recorder)
    with recorder.use_cassette(str(tmp_path / "c.yaml")):
        ChatEmpirioLabs(**where).invoke("Hello")
        list(EmpirioLabs(**where).stream_complete("Hello"))
        sandbox.fail(Fault("status", status=401, code="invalid_api_key", message=f"Incorrect API key: {KEY}"))
        with pytest.raises(openai.AuthenticationError):
            ChatEmpirioLabs(**where).invoke("Hello")
    recorded = (tmp_path / "c.yaml").read_text()
    assert recorded.count("uri: ") == 3
    assert "canary" not in recorded


def test_no_committed_cassette_has_a_key() -> None:
    for path in (Path(__file__).parent.parent).rglob("*.yaml"):
        assert not re.search(r"(?i)authorization|x-api-key|sk-empiriolabs|set-cookie", path.read_text()), path


PASSWORD = "canary-password-51e2"
ROUTES = ("constructor", "environment", "assignment", "model_copy", "model_construct", "pickle")


def by_route(route: str, kind: Any, name: str, value: Any, where: dict[str, Any], monkeypatch: Any) -> Any:
    """Return an object to which a setting came by a route."""
    rest = {key: given for key, given in where.items() if key != name}
    if route == "environment" or (route == "pickle" and name == "api_key"):
        monkeypatch.setenv({"api_key": KEY_VARIABLE, "base_url": BASE_VARIABLE}[name], value)
    if route == "environment":
        return kind(**rest)
    if route == "constructor":
        return kind(**rest, **{name: value})
    llm = kind(**where)
    if route == "assignment":
        setattr(llm, name, value)
        return llm
    if route == "model_copy":
        return llm.model_copy(update={name: value})
    if route == "pickle":
        return pickle.loads(pickle.dumps(llm))
    return type(llm).model_construct(**{**llm.__dict__, name: value})


def use(llm: Any) -> Any:
    """Send the simplest request of an adapter."""
    if isinstance(llm, ChatEmpirioLabs):
        return llm.invoke("Hello")
    if isinstance(llm, EmpirioLabs):
        return llm.complete("Hello")
    if isinstance(llm, EmpirioLabsEmbeddings):
        return llm.embed_query("Hello")
    if isinstance(llm, EmpirioLabsEmbedding):
        return llm.get_text_embedding("Hello")
    if isinstance(llm, EmpirioLabsRerank | LlamaIndexRerank):
        return llm.rerank("Hello", ["Hello"])
    return llm.gateway.complete(llm.request([{"role": "user", "content": "Hello"}], {}, stream=False))


WRONG = [
    ("api_key", f"{KEY}\n"),
    ("api_key", f" {KEY}"),
    ("api_key", f"{KEY}é"),
    ("base_url", f"https://user:{PASSWORD}@127.0.0.1/v1"),
    ("base_url", f"https://user:{PASSWORD} @127.0.0.1/v1"),
    ("base_url", f"https://127.0.0.1/v1?key={KEY}"),
    ("base_url", "https://127.0.0.1:99999/v1"),
    ("base_url", "https://127.0.0.1:0/v1"),
    ("base_url", "ftp://127.0.0.1/v1"),
    ("base_url", " https://127.0.0.1/v1"),
    ("default_headers", {"x-mine": f"{HEADER}\n"}),
    ("default_headers", {"x-mine": f" {HEADER}"}),
    ("default_headers", {"x-mine": f"{HEADER} "}),
    ("default_headers", {"x mine": HEADER}),
    ("default_headers", {"x-mine": HEADER.encode()}),
    ("default_headers", [("x-mine", HEADER)]),
]


def applies(route: str, name: str, value: Any) -> bool:
    """Return whether a setting can come by a route. A constructor turns the bytes of a header into text."""
    if route == "constructor":
        return value != {"x-mine": HEADER.encode()}
    return name in {"environment": ("api_key", "base_url"), "pickle": ("api_key",)}.get(route, (name,))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("route", ROUTES)
def test_every_wrong_setting_by_every_route(
    route: str, kind: Any, sandbox: Sandbox, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in [(n, v) for n, v in WRONG if applies(route, n, v)]:
        with pytest.raises(EmpirioLabsError) as refused:
            use(by_route(route, kind, name, value, where, monkeypatch))
        assert isinstance(refused.value, SettingsError), (name, value)
        assert "canary" not in told(refused.value), (name, value)
        assert_travels(refused.value)
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        monkeypatch.delenv(BASE_VARIABLE, raising=False)
    assert sandbox.requests == []


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("route", ["assignment", "model_copy", "model_construct"])
@pytest.mark.parametrize("value", [None, ""])
def test_no_base_url_is_not_openais(
    kind: Any, route: str, value: Any, sandbox: Sandbox, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BASE_VARIABLE, sandbox.base_url)
    assert use(by_route(route, kind, "base_url", value, where, monkeypatch))
    assert_kept(sandbox, [])


CALLS = [
    {"extra_headers": {"x-mine": f"{HEADER}\n"}},
    {"extra_headers": {"x-mine": f"{HEADER} "}},
    {"extra_headers": [("x-mine", HEADER)]},
    {"extra_headers": {"x-mine": HEADER}, "temperature": 3},
    {"extra_headers": {"x-mine": HEADER}, "timeout": -1},
    {"extra_headers": {"x-mine": HEADER}, "nonsense": 1},
    {"extra_headers": {"x-mine": HEADER}, "model": "no-such-model"},
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_headers_of_a_call(driver: str, stream: bool, where: dict[str, Any]) -> None:
    for call in CALLS:
        with pytest.raises(EmpirioLabsError) as refused:
            DRIVERS[driver](Case("x", call=call), where, stream)
        assert "canary" not in told(refused.value), call


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:{}@127.0.0.1:9",
        "ftp://user:{}@127.0.0.1",
        "http://user:{}@127.0.0.1:99999",
        "http://user:{}@:1",
        "socks5://user:{}@127.0.0.1:9",
    ],
)
def test_proxies_of_the_environment(
    proxy: str, driver: str, stream: bool, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.format(PASSWORD))
    with pytest.raises(EmpirioLabsError) as refused:
        DRIVERS[driver](Case("x"), where, stream)
    assert isinstance(
        refused.value, ConnectionDroppedError if proxy.endswith(":9") and "http" in proxy else SettingsError
    )
    assert "canary" not in told(refused.value)
    with pytest.raises(EmpirioLabsError) as refused:
        ChatEmpirioLabs.list_models(where["base_url"])
    assert "canary" not in told(refused.value)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_header_of_the_users_http_client(driver: str, stream: bool, where: dict[str, Any]) -> None:
    headers = {"x-other": f"{HEADER}\n"}
    clients = {
        "http_client": openai.DefaultHttpxClient(headers=headers),
        "http_async_client": openai.DefaultAsyncHttpxClient(headers=headers),
    }
    with pytest.raises(EmpirioLabsError) as refused:
        DRIVERS[driver](Case("x", settings=clients), where, stream)
    assert "canary" not in told(refused.value)


LOCATION = f"http://someone:{PASSWORD}@127.0.0.2:{{port}}/there?key={KEY}"


ECHOES = [
    (401, {"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY}}),
    (400, {"detail": [f"Bearer {KEY}", {HEADER: HEADER}]}),
    (404, f"No {KEY}"),
    (200, f"<p>{KEY} {HEADER}</p>"),
    (200, {"error": {"message": f"Not {KEY}"}}),
    (200, {"choices": [], "key": KEY}),
    (302, f"<p>{KEY}</p>"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_gateway_that_repeats_the_key(driver: str, stream: bool, where: dict[str, Any]) -> None:
    for status, body in ECHOES:
        raw = body if isinstance(body, str) else json.dumps(body)
        headers = {"x-key": KEY, "location": LOCATION}
        with answering(status, headers, raw) as server, pytest.raises(EmpirioLabsError) as raised:
            DRIVERS[driver](Case("x"), {**where, "base_url": server.base_url, "max_retries": 0}, stream)
        error: Any = raised.value
        response = getattr(error, "response", None)
        shown = [told(error), str(pickle.dumps(error))]
        shown += [response.text, str(response.headers), str(response.request.headers)] if response is not None else []
        assert "canary" not in "\n".join(shown), (status, body)


def test_a_connection_is_not_pickled(where: dict[str, Any]) -> None:
    connection = ChatEmpirioLabs(**where).gateway.connection
    with pytest.raises(EmpirioLabsError):
        pickle.dumps(connection)
    assert "canary" not in f"{connection} {vars(connection)}"


@pytest.mark.parametrize("own_client", [False, True], ids=["default", "http_client"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, own_client: bool, where: dict[str, Any]) -> None:
    if own_client:
        where["http_client"] = openai.DefaultHttpxClient(follow_redirects=True)
        where["http_async_client"] = openai.DefaultAsyncHttpxClient(follow_redirects=True)
    calls: list[Any] = [
        lambda: ChatEmpirioLabs(**where).invoke("Hello", extra_headers={"x-mine": HEADER}),
        lambda: list(EmpirioLabs(**where).stream_complete("Hello")),
        lambda: asyncio.run(EmpirioLabs(**where).acomplete("Hello")),
        lambda: EmpirioLabsEmbeddings(**where).embed_query("Hello"),
        lambda: EmpirioLabsRerank(**where).rerank("Hello", ["Hello"]),
        lambda: ChatEmpirioLabs.list_models(where["base_url"]),
        lambda: asyncio.run(ChatEmpirioLabs.alist_models(where["base_url"])),
    ]
    with answering(status, {"location": LOCATION}) as server:
        where["base_url"] = server.base_url
        for call in calls:
            with pytest.raises(RedirectError, match=r"http://127\.0\.0\.2:\d+/there ") as raised:
                call()
            assert "canary" not in told(raised.value)
        assert len(server.seen) == len(calls)
        assert "/there" not in "\n".join(server.seen)
