"""`EmpirioLabsEmbeddings`: EmpirioLabs embeddings in LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings
from typing_extensions import Unpack

from empiriolabs_core.errors import DEFAULT_API_BASE
from empiriolabs_core.vectors import EmbeddingFields
from langchain_empiriolabs.errors import langchain_errors

if TYPE_CHECKING:
    from empiriolabs_core.signatures import EmbeddingArguments


__all__ = ["DEFAULT_API_BASE", "EmpirioLabsEmbeddings"]


class EmpirioLabsEmbeddings(EmbeddingFields, Embeddings):
    """Embeddings of an EmpirioLabs model.

    ```python
    embeddings = EmpirioLabsEmbeddings(model="text-embedding-v4", dimensions=256)
    embeddings.embed_query("Hello")
    ```

    All arguments are fields of `empiriolabs_core.vectors.EmbeddingFields`.
    """

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[EmbeddingArguments]) -> None: ...

    @property
    def openai_api_base(self) -> str:
        """URL of the API; an alias of `base_url`, for code written for the vendor's class."""
        return self.base_url

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text, in order."""
        with langchain_errors():
            return self.embed(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text, in order."""
        with langchain_errors():
            return await self.aembed(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return (await self.aembed_documents([text]))[0]
