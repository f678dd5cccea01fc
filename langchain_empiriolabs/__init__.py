"""EmpirioLabs models in LangChain."""

try:
    import langchain_core as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        'langchain_empiriolabs needs LangChain: pip install "empiriolabs-adapters[langchain]".'
    ) from error

from langchain_empiriolabs.chat_models import ChatEmpirioLabs

__all__ = ["ChatEmpirioLabs"]
