"""A canary key through every path, fault and serialisation: the gateway is told it, and nothing else is."""

from __future__ import annotations

import copy
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

from empiriolabs_core.errors import SettingsError
from empiriolabs_core.sandbox import Fault, Sandbox
from empiriolabs_core.sandbox.faults import KINDS
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank
from tests.consumers.collector import collector
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
"""What the OpenAI client reads off the environment, as its own sources say."""


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


def told(error: BaseException) -> str:
    """Return what a tool that reports errors shows: the traceback with the local variables, but for the tests' own."""
    seen = [error, error.__cause__, error.__context__]
    shown = [repr(e) + repr(vars(e)) for e in seen if e is not None]
    for exception in (e for e in seen if e is not None):
        found = traceback.TracebackException.from_exception(exception, capture_locals=True)
        frames = [frame for frame in found.stack if f"{Path(__file__).parent.parent}" not in frame.filename]
        shown += [f"{frame.filename} {frame.locals}" for frame in frames]
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
        sandbox.fail(Fault("status", status=401, code="invalid_api_key"))
        with pytest.raises(openai.AuthenticationError):
            ChatEmpirioLabs(**where).invoke("Hello")
    recorded = (tmp_path / "c.yaml").read_text()
    assert recorded.count("uri: ") == 3
    assert "canary" not in recorded


def test_no_committed_cassette_has_a_key() -> None:
    for path in (Path(__file__).parent.parent).rglob("*.yaml"):
        assert not re.search(r"(?i)authorization|x-api-key|sk-empiriolabs|set-cookie", path.read_text()), path
