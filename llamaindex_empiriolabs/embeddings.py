"""`EmpirioLabsEmbedding`: EmpirioLabs embeddings in LlamaIndex."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import ConfigDict, model_validator
from typing_extensions import Self, Unpack

from empiriolabs_core.vectors import EmbeddingFields

if TYPE_CHECKING:
    from llamaindex_empiriolabs.signatures import LlamaIndexEmbeddingArguments

_MOST_AT_A_TIME = 2048
"""LlamaIndex's own limit on `embed_batch_size`."""


class EmpirioLabsEmbedding(EmbeddingFields, BaseEmbedding):
    """Embeddings of an EmpirioLabs model.

    ```python
    index = VectorStoreIndex.from_documents(documents, embed_model=EmpirioLabsEmbedding())
    ```

    All arguments are fields of `empiriolabs_core.vectors.EmbeddingFields`, or LlamaIndex's own.

    Pickled copies do not contain the key, so the workers of `IngestionPipeline.run(num_workers=2)` read it from
    `EMPIRIOLABS_API_KEY`. Set the variable: an `api_key` argument does not reach the workers.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[LlamaIndexEmbeddingArguments]) -> None: ...

    @model_validator(mode="after")
    def _in_llamaindexs_words(self) -> Self:
        """Set the fields that LlamaIndex uses for the same settings.

        LlamaIndex passes `embed_batch_size` texts at a time and waits for their vectors, so the number is as large as
        can be sent concurrently.
        """
        self.model_name = self.model
        self.embed_batch_size = min(self.batch_size * self.max_concurrency, _MOST_AT_A_TIME)
        return self

    @classmethod
    def class_name(cls) -> str:
        """Return the class name used in serialised data."""
        return "EmpirioLabsEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self.aembed([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.embed([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self.aembed([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.embed(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self.aembed(texts)
