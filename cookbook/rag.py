"""Retrieval on one key: embeddings, a vector index, rerank and an answer, in LlamaIndex and in LangChain.

Runs against the sandbox, or the live gateway if EMPIRIOLABS_API_KEY is set.
"""

from __future__ import annotations

from pathlib import Path

from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import stand_in
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from langchain_empiriolabs import EmpirioLabsRerank as LangChainRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank

QUESTION = "What is the generator of the station named?"
HANDBOOK = Path(__file__).parent / "aurora_station.md"


def llamaindex() -> None:
    """Ask a query engine over the handbook."""
    index = VectorStoreIndex.from_documents(
        SimpleDirectoryReader(input_files=[HANDBOOK]).load_data(),
        transformations=[SentenceSplitter(chunk_size=100, chunk_overlap=0, include_metadata=False)],
        embed_model=EmpirioLabsEmbedding(dimensions=256),
        show_progress=True,
    )
    rerank = LlamaIndexRerank(top_n=1)
    engine = index.as_query_engine(llm=EmpirioLabs(), similarity_top_k=3, node_postprocessors=[rerank])
    response = engine.query(QUESTION)
    print(response, "\n  from:", " ".join(response.source_nodes[0].text.split())[:70])


def langchain() -> None:
    """Search a vector store, rerank what it finds, and ask."""
    store = InMemoryVectorStore(EmpirioLabsEmbeddings(dimensions=256))
    store.add_texts(HANDBOOK.read_text().split("\n\n"))
    found = store.similarity_search(QUESTION, k=3)
    (best,) = LangChainRerank(top_n=1).compress_documents(found, QUESTION)
    print(ChatEmpirioLabs().invoke(f"{best.page_content}\n\n{QUESTION}").content)
    print("  score:", best.metadata["relevance_score"])


def main() -> None:
    """Run both, and print what they cost."""
    stand_in()
    with track_cost() as costs:
        llamaindex()
        langchain()
    print(costs)


if __name__ == "__main__":
    main()
