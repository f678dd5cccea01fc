"""Embeddings and rerank in both frameworks, over a socket to the sandbox."""

from __future__ import annotations

import asyncio
import base64
import pickle
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from llama_index.core import Document as LlamaDocument
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeWithScore, TextNode

from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import EmpirioLabsError, InvalidReplyError, SettingsError
from empiriolabs_core.sandbox import Fault, Sandbox
from empiriolabs_core.vectors import Ranked, read_ranking, read_vectors
from langchain_empiriolabs import EmpirioLabsEmbeddings
from langchain_empiriolabs import EmpirioLabsRerank as LangChainRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank
from tests.core.test_fuzz import ANY_JSON


@pytest.fixture(autouse=True)
def _nothing_is_left_under_way() -> Iterator[None]:
    """Wait for requests beside one that failed: they would take faults that are meant for the next test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("empiriolabs-embed"):
            thread.join()


@pytest.fixture
def chain(where: dict[str, Any]) -> EmpirioLabsEmbeddings:
    return EmpirioLabsEmbeddings(**where)


@pytest.fixture
def llama(where: dict[str, Any]) -> EmpirioLabsEmbedding:
    return EmpirioLabsEmbedding(**where)


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[EmpirioLabsEmbeddings]:
        return EmpirioLabsEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"api_key": "key"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        address = "http://gateway.invalid/v1"
        return (
            {"EMPIRIOLABS_API_KEY": "key", "EMPIRIOLABS_API_BASE": address},
            {},
            {"api_key": "key", "base_url": address},
        )


class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _sandbox(self, where: dict[str, Any]) -> None:
        self.where = where

    @property
    def embeddings_class(self) -> type[EmpirioLabsEmbeddings]:
        return EmpirioLabsEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return self.where


def test_the_vendors_documented_snippet(sandbox: Sandbox) -> None:
    embeddings = EmpirioLabsEmbeddings(model="text-embedding-v4", api_key=sandbox.api_key, base_url=sandbox.base_url)
    assert len(embeddings.embed_query("Hello, world!")) == 1024
    assert sandbox.requests[-1].body == {
        "model": "text-embedding-v4",
        "encoding_format": "float",
        "input": ["Hello, world!"],
    }


def test_both_send_the_same(chain: EmpirioLabsEmbeddings, llama: EmpirioLabsEmbedding, sandbox: Sandbox) -> None:
    texts = [f"text {number}" for number in range(23)]
    ways = [
        chain.embed_documents(texts),
        asyncio.run(chain.aembed_documents(texts)),
        llama.get_text_embedding_batch(texts),
        asyncio.run(llama.aget_text_embedding_batch(texts)),
        [chain.embed_query(text) for text in texts],
        [llama.get_query_embedding(text) for text in texts],
        [asyncio.run(llama.aget_text_embedding(text)) for text in texts],
    ]
    assert all(way == ways[0] for way in ways)
    sizes = sorted(len(request.body["input"]) for request in sandbox.requests[:12])
    assert sizes == [3] * 4 + [10] * 8


@pytest.mark.parametrize("spelling", ["batch_size", "chunk_size", "embed_batch_size"])
def test_typed_fields(where: dict[str, Any], sandbox: Sandbox, spelling: str) -> None:
    for owner in (EmpirioLabsEmbeddings, EmpirioLabsEmbedding):
        embeddings: Any = owner(dimensions=64, encoding_format="base64", **{spelling: 2}, **where)
        vectors = embeddings.embed(["a cat", "a cat", "dogs"])
        assert [len(vector) for vector in vectors] == [64] * 3
        assert vectors[0] == vectors[1] != vectors[2]
        assert sandbox.requests[-1].body["dimensions"] == 64
        plain: Any = owner(dimensions=64, **where)
        assert plain.embed(["dogs"])[0] == pytest.approx(vectors[2], abs=1e-6)


@pytest.mark.parametrize("owner", [EmpirioLabsEmbeddings, EmpirioLabsEmbedding])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"dimensions": 100}, "dimensions"),
        ({"batch_size": 0}, "batch_size"),
        ({"encoding_format": "hex"}, "hex"),
        ({"dimension": 64}, "Did you mean 'dimensions'"),
    ],
)
def test_bad_arguments(owner: Any, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        owner(api_key="sk-canary", **arguments)


def test_bad_texts(chain: EmpirioLabsEmbeddings, sandbox: Sandbox) -> None:
    assert chain.embed_documents([]) == []
    assert asyncio.run(chain.aembed_documents([])) == []
    bad: list[tuple[Any, str]] = [
        (["a", [1, 2]], r"texts\[1\] must be a string, got list"),
        ("a", "a list of strings"),
    ]
    for texts, told in bad:
        with pytest.raises(SettingsError, match=told):
            chain.embed_documents(texts)
    assert sandbox.requests == []
    with pytest.raises(openai.BadRequestError, match="at most 8192"):
        chain.embed_documents(["word " * 9000])
    big = chain.model_copy(update={"batch_size": 20})
    with pytest.raises(openai.BadRequestError, match="documented limit is 10 texts: lower batch_size from 12"):
        big.embed_documents(["x"] * 12)
    with pytest.raises(openai.BadRequestError, match="lower batch_size"):
        asyncio.run(big.aembed_documents(["x"] * 12))


def _entry(index: int, embedding: Any) -> dict[str, Any]:
    return {"index": index, "embedding": embedding}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([_entry(0, [1.0])], "2 texts were sent"),
        ([_entry(0, [1.0]), _entry(0, [1.0])], "2 texts were sent"),
        ([_entry(0, [1.0]), _entry(1, [1.0, 2.0])], "differ in length"),
        ([_entry(0, []), _entry(1, [])], "differ in length"),
        ([_entry(0, [1.0]), _entry(1, [float("nan")])], "text 1 contains a number that is not finite"),
        ([_entry(0, "!"), _entry(1, "!")], "not valid base64"),
        (None, "cannot be read"),
    ],
)
def test_bad_replies(data: Any, told: str) -> None:
    with pytest.raises(InvalidReplyError, match=told):
        read_vectors({"data": data}, 2)


def test_replies_out_of_order() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, 1.0)).decode()
    assert read_vectors({"data": [_entry(1, packed), _entry(0, [1, 2])]}, 2) == [[1.0, 2.0], [0.5, 1.0]]


@given(reply=ANY_JSON)
def test_any_reply(reply: Any) -> None:
    for read in (read_vectors, read_ranking):
        with pytest.raises(EmpirioLabsError):
            read({"data": reply, "output": reply}, 2)


def test_cost_and_copies(chain: EmpirioLabsEmbeddings, llama: EmpirioLabsEmbedding, sandbox: Sandbox) -> None:
    with track_cost() as costs:
        chain.embed_documents(["some words here"] * 25)
        llama.get_text_embedding("more words")
    assert costs.total.calls == 4
    assert costs.total.input_tokens == sum(line.prompt_tokens for line in sandbox.ledger) > 0
    assert costs.total_usd > 0
    for embeddings in (chain, llama):
        assert sandbox.api_key not in repr(embeddings)
        assert sandbox.api_key.encode() not in pickle.dumps(embeddings)
    assert EmpirioLabsEmbedding.from_dict(llama.to_dict()).embed_batch_size == 40


def test_an_index_of_a_thousand_documents_under_faults(where: dict[str, Any], sandbox: Sandbox) -> None:
    again = Fault("status", status=503, headers={"retry-after-ms": "1"})
    sandbox.fail(*[again if number % 7 == 0 else None for number in range(100)])
    embed = EmpirioLabsEmbedding(dimensions=64, **{**where, "max_retries": 3})
    documents = [LlamaDocument(text=f"Document number {number}.") for number in range(1000)]
    index = VectorStoreIndex.from_documents(
        documents, embed_model=embed, transformations=[SentenceSplitter()], insert_batch_size=1000
    )
    served = [line for line in sandbox.ledger if line.path == "/v1/embeddings"]
    assert len(served) == 100
    batches = {tuple(request.body["input"]) for request in sandbox.requests}
    assert batches == {
        tuple(f"Document number {number}." for number in range(start, start + 10)) for start in range(0, 1000, 10)
    }
    for number in range(0, 1000, 97):
        found = index.as_retriever(similarity_top_k=1).retrieve(f"Document number {number}.")
        assert found[0].text == f"Document number {number}."


TEXTS = ["Stock markets fell.", "The cat sat on the mat.", "A cat and a dog.", "Nothing."]


def test_texts_out_of_a_generator(where: dict[str, Any]) -> None:
    embeddings: Any = EmpirioLabsEmbeddings(**where)
    assert embeddings.embed_documents(text for text in TEXTS) == embeddings.embed_documents(TEXTS)
    rerank: Any = LangChainRerank(**where)
    assert rerank.rerank("cat", (text for text in TEXTS)) == rerank.rerank("cat", TEXTS)


def test_the_first_error_of_many_batches_is_raised_at_once(where: dict[str, Any], sandbox: Sandbox) -> None:
    sandbox.fail(Fault("status", status=401), Fault("timeout", seconds=4))
    embeddings = EmpirioLabsEmbeddings(batch_size=1, **where)
    before = time.monotonic()
    with pytest.raises(openai.AuthenticationError):
        embeddings.embed_documents(["a", "b"])
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("lengths", [[4, 4], [256, 255]])
def test_vectors_of_another_length_than_asked_for(where: dict[str, Any], lengths: list[int]) -> None:
    embeddings = EmpirioLabsEmbeddings(dimensions=256, **where)
    with pytest.raises(InvalidReplyError, match="dimensions=256"):
        embeddings._joined([[[0.5] * length] for length in lengths])


@pytest.mark.parametrize("places", [[0], [], [0.0, 1, 2], [True, 0, 2], [0, 1, 3]])
def test_a_ranking_that_is_none_of_these_documents(places: list[Any]) -> None:
    results = [{"index": place, "relevance_score": 0.5} for place in places]
    with pytest.raises(InvalidReplyError, match="3 documents were sent and 3 requested"):
        read_ranking({"output": {"results": results}}, 3)


def test_no_more_documents_than_wanted() -> None:
    results = [{"index": place, "relevance_score": place / 10} for place in range(3)]
    assert read_ranking({"output": {"results": results}}, 3, 1) == [Ranked(2, 0.2)]


def test_rerank_in_langchain(where: dict[str, Any], sandbox: Sandbox) -> None:
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    rerank = LangChainRerank(top_n=3, instruct="Find cats.", **where)
    found = rerank.compress_documents(documents, "the cat")
    assert [document.metadata["place"] for document in found] == [1, 2, 0]
    assert [document.metadata["relevance_score"] for document in found] == [1.0, 0.5, 0.0]
    assert asyncio.run(rerank.acompress_documents(documents, "the cat")) == found
    assert "relevance_score" not in documents[0].metadata
    assert sandbox.requests[-1].body["instruct"] == "Find cats."
    assert rerank.compress_documents([], "the cat") == []


def test_rerank_in_llamaindex(where: dict[str, Any]) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]
    rerank = LlamaIndexRerank(top_n=2, **where)
    found = rerank.postprocess_nodes(nodes, query_str="the cat")
    assert [(node.text, node.score) for node in found] == [(TEXTS[1], 1.0), (TEXTS[2], 0.5)]
    assert asyncio.run(rerank.apostprocess_nodes(nodes, query_str="the cat"))[0].text == TEXTS[1]
    with pytest.raises(SettingsError, match="requires a query"):
        rerank.postprocess_nodes(nodes)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_rerank_is_seen_by_callbacks_and_instrumentation(where: dict[str, Any], asynchronous: bool) -> None:
    seen: list[Any] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            seen.append(event)

    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = LlamaIndexRerank(top_n=2, callback_manager=CallbackManager([debug]), **where)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    handler = Handler()
    get_dispatcher().add_event_handler(handler)
    try:
        if asynchronous:
            found = asyncio.run(rerank.apostprocess_nodes(nodes, query_str="the cat"))
        else:
            found = rerank.postprocess_nodes(nodes, query_str="the cat")
    finally:
        get_dispatcher().event_handlers.remove(handler)
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload is not None
    assert end.payload is not None
    assert (start.payload[EventPayload.TOP_K], end.payload[EventPayload.NODES]) == (2, found)
    assert [type(event) for event in seen] == [ReRankStartEvent, ReRankEndEvent]
    assert seen[0].model_name == "qwen3-rerank"
    without: Any = LlamaIndexRerank(**{**where, "callback_manager": None})
    assert without.postprocess_nodes(nodes, query_str="the cat")[:2] == found


async def test_documents_without_text_are_ranked_last(sandbox: Sandbox, where: dict[str, Any]) -> None:
    documents = [Document(text) for text in ("", "A dog.", "The cat.")]
    rerank = LangChainRerank(**where)
    for found in (
        rerank.compress_documents(documents, "the cat"),
        await rerank.acompress_documents(documents, "the cat"),
    ):
        assert [document.page_content for document in found] == ["The cat.", "A dog.", ""]
        assert found[-1].metadata["relevance_score"] == 0
    assert rerank.rerank("q", []) == rerank.rerank("q", iter(())) == []


async def test_an_empty_text_is_sent_as_it_is(chain: EmpirioLabsEmbeddings, sandbox: Sandbox) -> None:
    """LangChain's and LlamaIndex's OpenAI classes do this too. The sandbox rejects it; the gateway may reject it."""
    with pytest.raises(openai.BadRequestError, match="empty"):
        chain.embed_documents(["a", ""])
    with pytest.raises(openai.BadRequestError, match="empty"):
        await chain.aembed_documents(["a", ""])
    assert [received.body["input"] for received in sandbox.requests] == [["a", ""]] * 2


def test_rerank_refuses(where: dict[str, Any], sandbox: Sandbox) -> None:
    rerank = LangChainRerank(**where)
    for documents, told in (
        (["x"] * 501, "at most 500 documents, got 501"),
        (["a", 1], r"documents\[1\] must be a string, got int"),
    ):
        with pytest.raises(SettingsError, match=told):
            rerank.rerank("q", documents)
    with pytest.raises(SettingsError, match=r"query\[0\] is empty"):
        rerank.rerank("", ["a"])
    with pytest.raises(SettingsError, match="top_n"):
        LangChainRerank(top_n=501)
    assert sandbox.requests == []
    ties = [{"index": n, "relevance_score": 0.5} for n in (2, 0, 1)]
    assert read_ranking({"output": {"results": ties}}, 3) == [Ranked(0, 0.5), Ranked(1, 0.5), Ranked(2, 0.5)]
    for results in ([{"index": 3, "relevance_score": 1}], ties + ties, [{"index": 0, "relevance_score": float("inf")}]):
        with pytest.raises(InvalidReplyError):
            read_ranking({"output": {"results": results}}, 3)


def test_everything_on_one_key(where: dict[str, Any], sandbox: Sandbox) -> None:
    store = InMemoryVectorStore(EmpirioLabsEmbeddings(**where))
    store.add_texts(TEXTS)
    assert store.similarity_search("where is the cat", k=1)[0].page_content in TEXTS[1:3]
    index = VectorStoreIndex.from_documents(
        [LlamaDocument(text=t) for t in TEXTS], embed_model=EmpirioLabsEmbedding(**where)
    )
    engine = index.as_query_engine(
        llm=EmpirioLabs(**where), similarity_top_k=4, node_postprocessors=[LlamaIndexRerank(top_n=1, **where)]
    )
    response = engine.query("Where is the cat sat?")
    assert [node.text for node in response.source_nodes] == [TEXTS[1]]
    assert {request.headers["authorization"] for request in sandbox.requests} == {f"Bearer {sandbox.api_key}"}


@pytest.mark.parametrize("owner", [EmpirioLabsEmbeddings, EmpirioLabsEmbedding])
def test_batches_side_by_side_but_not_more_than_the_limit(owner: Any) -> None:
    texts = [f"text {number}" for number in range(120)]
    for way in ("sync", "async"):
        with Sandbox(delay=0.05) as sandbox:
            embeddings = owner(base_url=sandbox.base_url, api_key=sandbox.api_key, max_concurrency=3)
            if owner is EmpirioLabsEmbeddings:
                found = (
                    embeddings.embed_documents(texts)
                    if way == "sync"
                    else asyncio.run(embeddings.aembed_documents(texts))
                )
            elif way == "sync":
                found = embeddings.get_text_embedding_batch(texts)
            else:
                found = asyncio.run(embeddings.aget_text_embedding_batch(texts))
            assert len(found) == 120
            assert sandbox.most_at_once == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_refused_batch_is_the_last_that_is_sent(asynchronous: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(Fault("status", status=400))
    embeddings = EmpirioLabsEmbeddings(**where)
    texts = [f"text {number}" for number in range(400)]

    async def ask() -> None:
        with pytest.raises(openai.BadRequestError):
            await embeddings.aembed_documents(texts)
        sent = len(sandbox.requests)
        await asyncio.sleep(0.2)
        assert len(sandbox.requests) <= sent + embeddings.max_concurrency

    if asynchronous:
        asyncio.run(ask())
    else:
        with pytest.raises(openai.BadRequestError):
            embeddings.embed_documents(texts)
    assert len(sandbox.requests) < 20
