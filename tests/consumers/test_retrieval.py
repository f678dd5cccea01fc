"""A FAISS store with our embeddings and rerank, and RankGPT."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consumers import kit

stores = kit("langchain_community.vectorstores")
kit("faiss")
rankgpt = kit("llama_index.postprocessor.rankgpt_rerank")

from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import EmpirioLabsEmbeddings
from langchain_empiriolabs.rerank import EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

TEXTS = ["The generator is called Gertrude.", "Snow is 12 cm deep.", "The cook bakes bread."]


def test_faiss_with_our_embeddings_and_rerank(where: dict[str, Any], sandbox: Sandbox) -> None:
    with track_cost() as costs:
        store = stores.FAISS.from_documents([Document(text) for text in TEXTS], EmpirioLabsEmbeddings(**where))
        found = store.similarity_search("What is the generator called?", k=2)
        ranked = EmpirioLabsRerank(**where, top_n=1).compress_documents(found, "What is the generator called?")
    assert found[0].page_content == TEXTS[0]
    assert [document.page_content for document in ranked] == [TEXTS[0]]
    assert costs.total.calls == len(sandbox.ledger) == 3
    assert costs.total.input_tokens == sum(entry.prompt_tokens for entry in sandbox.ledger)


def test_rankgpt(where: dict[str, Any], sandbox: Sandbox) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    sandbox.script(Answer("[2] > [3] > [1]", reasoning="Snow first."))
    ranked = rankgpt.RankGPTRerank(top_n=2, llm=EmpirioLabs(**where)).postprocess_nodes(nodes, query_str="Snow?")
    assert [node.get_content() for node in ranked] == [TEXTS[1], TEXTS[2]]
    assert len(sandbox.ledger) == 1
