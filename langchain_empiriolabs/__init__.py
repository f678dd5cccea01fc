"""EmpirioLabs models in LangChain."""

try:
    import langchain_core as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'langchain_empiriolabs needs LangChain: pip install "empiriolabs-adapters[langchain]".'
    ) from error

from empiriolabs_core import __version__
from langchain_empiriolabs.chat_models import ChatEmpirioLabs
from langchain_empiriolabs.embeddings import EmpirioLabsEmbeddings
from langchain_empiriolabs.rerank import EmpirioLabsRerank

__all__ = ["ChatEmpirioLabs", "EmpirioLabsEmbeddings", "EmpirioLabsRerank", "__version__"]
