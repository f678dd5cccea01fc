"""Embeddings and rerank, replayed by both adapters. Recorded against the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from empiriolabs_core.errors import DEFAULT_API_BASE
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import EmpirioLabsEmbeddings
from langchain_empiriolabs import EmpirioLabsRerank as LangChainRerank
from llamaindex_empiriolabs import EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank
from tests.recording import is_live

HERE = Path(__file__).parent
TEXTS = ["The cat sat on the mat.", "Stock markets fell.", "A cat and a dog."]

EMBED: dict[str, Callable[[dict[str, Any]], list[list[float]]]] = {
    "langchain": lambda where: EmpirioLabsEmbeddings(dimensions=64, **where).embed_documents(TEXTS),
    "langchain-async": lambda w: asyncio.run(EmpirioLabsEmbeddings(dimensions=64, **w).aembed_documents(TEXTS)),
    "llamaindex": lambda where: EmpirioLabsEmbedding(dimensions=64, **where).get_text_embedding_batch(TEXTS),
    "llamaindex-async": lambda w: asyncio.run(
        EmpirioLabsEmbedding(dimensions=64, **w).aget_text_embedding_batch(TEXTS)
    ),
}


def _langchain(where: dict[str, Any]) -> list[str]:
    found = LangChainRerank(top_n=2, **where).compress_documents([Document(text) for text in TEXTS], "a cat")
    return [document.page_content for document in found]


def _llamaindex(where: dict[str, Any]) -> list[str]:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    return [node.text for node in LlamaIndexRerank(top_n=2, **where).postprocess_nodes(nodes, query_str="a cat")]


@pytest.fixture
def where(recording: bool) -> Iterator[dict[str, Any]]:
    if not recording or is_live():
        key = {} if recording else {"api_key": "sk-empiriolabs-replayed"}
        yield {"base_url": DEFAULT_API_BASE, "max_retries": 0, **key}
        return
    with Sandbox() as sandbox:
        plain = {"accept-encoding": "identity"}
        yield {"base_url": sandbox.base_url, "api_key": sandbox.api_key, "default_headers": plain}


@pytest.mark.vcr
@pytest.mark.default_cassette(str(HERE / "sandbox" / "embeddings.yaml"))
@pytest.mark.parametrize("driver", EMBED)
def test_embeddings(where: dict[str, Any], driver: str) -> None:
    first, second, third = EMBED[driver](where)
    near, far = (sum(a * b for a, b in zip(first, other, strict=True)) for other in (third, second))
    assert near > far


@pytest.mark.vcr
@pytest.mark.default_cassette(str(HERE / "sandbox" / "rerank.yaml"))
@pytest.mark.parametrize("rerank", [_langchain, _llamaindex])
def test_rerank(where: dict[str, Any], rerank: Callable[[dict[str, Any]], list[str]]) -> None:
    assert rerank(where) == ["A cat and a dog.", "The cat sat on the mat."]
