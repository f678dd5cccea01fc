"""Retrieval on one key: embeddings, a vector index, rerank and an answer, in LlamaIndex and in LangChain.

Runs against the sandbox, or the live gateway if EMPIRIOLABS_API_KEY is set.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from langchain_empiriolabs import EmpirioLabsRerank as LangChainRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank

QUESTION = "What is the generator of the station named?"
HANDBOOK = Path(__file__).parent / "aurora_station.md"


def llamaindex(where: dict[str, Any]) -> None:
    """Ask a query engine over the handbook."""
    index = VectorStoreIndex.from_documents(
        SimpleDirectoryReader(input_files=[HANDBOOK]).load_data(),
        transformations=[SentenceSplitter(chunk_size=80, chunk_overlap=0)],
        embed_model=EmpirioLabsEmbedding(dimensions=256, **where),
        show_progress=True,
    )
    rerank = LlamaIndexRerank(top_n=1, **where)
    engine = index.as_query_engine(llm=EmpirioLabs(**where), similarity_top_k=3, node_postprocessors=[rerank])
    response = engine.query(QUESTION)
    print(response, "\n  from:", " ".join(response.source_nodes[0].text.split())[:70])


def langchain(where: dict[str, Any]) -> None:
    """Search a vector store, rerank what it finds, and ask."""
    store = InMemoryVectorStore(EmpirioLabsEmbeddings(dimensions=256, **where))
    store.add_texts(HANDBOOK.read_text().split("\n\n"))
    found = store.similarity_search(QUESTION, k=3)
    (best,) = LangChainRerank(top_n=1, **where).compress_documents(found, QUESTION)
    print(ChatEmpirioLabs(**where).invoke(f"{best.page_content}\n\n{QUESTION}").content)
    print("  score:", best.metadata["relevance_score"])


def main() -> None:
    """Run both, and print what they cost."""
    live = bool(os.environ.get("EMPIRIOLABS_API_KEY"))
    with nullcontext() if live else Sandbox() as sandbox, track_cost() as costs:
        where = {} if sandbox is None else {"base_url": sandbox.base_url, "api_key": sandbox.api_key}
        print("The live gateway." if live else "The sandbox: scripted answers that quote what they were sent.")
        llamaindex(where)
        langchain(where)
    print(costs)


if __name__ == "__main__":
    main()
