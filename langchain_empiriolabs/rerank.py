"""`EmpirioLabsRerank`: EmpirioLabs rerank as a LangChain document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict
from typing_extensions import Unpack

from empiriolabs_core.vectors import Ranked, RerankFields
from langchain_empiriolabs.errors import langchain_errors

if TYPE_CHECKING:
    from empiriolabs_core.signatures import RerankArguments


class EmpirioLabsRerank(RerankFields, BaseDocumentCompressor):
    """Sorts documents by relevance to a query, for a `ContextualCompressionRetriever`.

    `metadata["relevance_score"]` of each document contains its score. All arguments are fields of
    `empiriolabs_core.vectors.RerankFields`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[RerankArguments]) -> None: ...

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, most relevant first; only the first `top_n` if it is set."""
        with langchain_errors():
            return _ordered(documents, self.rerank(query, [document.page_content for document in documents]))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, most relevant first; only the first `top_n` if it is set."""
        with langchain_errors():
            return _ordered(documents, await self.arerank(query, [document.page_content for document in documents]))


def _ordered(documents: Sequence[Document], ranking: list[Ranked]) -> list[Document]:
    """Return copies of the documents, sorted by a ranking and with their scores."""
    return [
        documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
        for place, score in ranking
    ]
