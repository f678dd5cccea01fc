"""The peers, made as their documentation says. Imports are within the functions: each environment has its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from .subject import MODEL, Peer


def langchain_empiriolabs(url: str, **settings: Any) -> Any:
    """Make ours or the vendor's: they have the same name, so it depends on the environment which."""
    from langchain_empiriolabs import ChatEmpirioLabs

    return ChatEmpirioLabs(model=MODEL, base_url=url, **settings)


def langchain_deepseek(url: str, **settings: Any) -> Any:
    from langchain_deepseek import ChatDeepSeek

    return ChatDeepSeek(model=MODEL, base_url=url, **settings)


def langchain_openrouter(url: str, *, extra_body: Any = None, **settings: Any) -> Any:
    from langchain_openrouter import ChatOpenRouter

    # "Any extra model parameters for the OpenRouter API": it has no extra_body.
    extra = {} if extra_body is None else {"model_kwargs": extra_body}
    return ChatOpenRouter(model=MODEL, base_url=url, **extra, **settings)


def llamaindex_empiriolabs(url: str, **settings: Any) -> Any:
    from llamaindex_empiriolabs import EmpirioLabs

    return EmpirioLabs(model=MODEL, base_url=url, **settings)


def openai_like(url: str, *, extra_body: Any = None, **settings: Any) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(model=MODEL, api_base=url, **_additional(extra_body), **settings)


def llamaindex_deepseek(url: str, *, extra_body: Any = None, **settings: Any) -> Any:
    from llama_index.llms.deepseek import DeepSeek

    return DeepSeek(model=MODEL, api_base=url, **_additional(extra_body), **settings)


def _additional(extra_body: Any) -> dict[str, Any]:
    """Return an extra_body the way that both classes take it: among the arguments of the OpenAI client's call."""
    return {} if extra_body is None else {"additional_kwargs": {"extra_body": extra_body}}


def langchain_embeddings(**connection: Any) -> Any:
    from langchain_empiriolabs import EmpirioLabsEmbeddings

    return EmpirioLabsEmbeddings(**connection)


def llamaindex_embeddings(**connection: Any) -> Any:
    from llamaindex_empiriolabs import EmpirioLabsEmbedding

    return EmpirioLabsEmbedding(**connection)


def track_cost(usd: str) -> AbstractContextManager[Any]:
    from empiriolabs_core.costs import track_cost

    return track_cost(budget_usd=usd)


OURS = "empiriolabs-adapters"
PEERS = {
    "langchain_ours": Peer(
        "ours",
        "langchain",
        (OURS, "langchain-core", "langchain", "openai"),
        langchain_empiriolabs,
        embeddings=langchain_embeddings,
        budget=track_cost,
        provider="empiriolabs",
    ),
    "langchain_vendor": Peer(
        "langchain-empiriolabs",
        "langchain",
        ("langchain-empiriolabs", "langchain-openai", "langchain-core", "langchain", "openai"),
        langchain_empiriolabs,
        embeddings=langchain_embeddings,
        environment="vendor",
        provider="empiriolabs",
    ),
    "langchain_deepseek": Peer(
        "langchain-deepseek",
        "langchain",
        ("langchain-deepseek", "langchain-openai", "langchain-core", "langchain", "openai"),
        langchain_deepseek,
        environment="vendor",
        provider="deepseek",
    ),
    "langchain_openrouter": Peer(
        "langchain-openrouter",
        "langchain",
        ("langchain-openrouter", "openrouter", "langchain-core", "langchain"),
        langchain_openrouter,
        environment="vendor",
        provider="openrouter",
    ),
    "llamaindex_ours": Peer(
        "ours",
        "llamaindex",
        (OURS, "llama-index-core", "openai"),
        llamaindex_empiriolabs,
        embeddings=llamaindex_embeddings,
        budget=track_cost,
    ),
    # Both are told what they cannot know of the model: that it chats, calls functions and has a window of 1M tokens.
    "llamaindex_like": Peer(
        "OpenAILike",
        "llamaindex",
        ("llama-index-llms-openai-like", "llama-index-llms-openai", "llama-index-core", "openai"),
        openai_like,
        documented={"is_chat_model": True, "is_function_calling_model": True, "context_window": 1_000_000},
        environment="like",
    ),
    "llamaindex_deepseek": Peer(
        "DeepSeek",
        "llamaindex",
        ("llama-index-llms-deepseek", "llama-index-llms-openai-like", "llama-index-core", "openai"),
        llamaindex_deepseek,
        documented={"is_function_calling_model": True, "context_window": 1_000_000},
        environment="like",
    ),
}
"""The columns of the table, in order."""
