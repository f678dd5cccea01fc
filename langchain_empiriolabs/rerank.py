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
    """Puts documents in the order of their relevance to a query, for a `ContextualCompressionRetriever`.

    The score stands in the documents' `metadata["relevance_score"]`. All arguments are fields of
    `empiriolabs_core.vectors.RerankFields`.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[RerankArguments]) -> None: ...

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, the most relevant first, or the first `top_n` of them."""
        with langchain_errors():
            return _ordered(documents, self.rerank(query, [document.page_content for document in documents]))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the documents, the most relevant first, or the first `top_n` of them."""
        with langchain_errors():
            return _ordered(documents, await self.arerank(query, [document.page_content for document in documents]))


def _ordered(documents: Sequence[Document], ranking: list[Ranked]) -> list[Document]:
    """Return copies of the documents in the order of a ranking, each with its score."""
    return [
        documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
        for place, score in ranking
    ]
