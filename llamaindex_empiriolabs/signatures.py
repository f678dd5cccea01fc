"""Types of constructor arguments, for type checkers; see `empiriolabs_core.signatures`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import BaseOutputParser, PydanticProgramMode
from typing_extensions import TypedDict

from empiriolabs_core.signatures import EmbeddingArguments, RerankArguments, SettingsArguments


class _ComponentArguments(TypedDict, total=False):
    callback_manager: CallbackManager


class LLMArguments(SettingsArguments, _ComponentArguments, total=False):
    """Constructor arguments of `EmpirioLabs`: those of `Settings` and LlamaIndex's own."""

    rate_limiter: Any
    system_prompt: str | None
    messages_to_prompt: Callable[[Sequence[ChatMessage]], str] | None
    completion_to_prompt: Callable[[str], str] | None
    output_parser: BaseOutputParser | None
    pydantic_program_mode: PydanticProgramMode
    query_wrapper_prompt: BasePromptTemplate | None
    context_window: int | None


class LlamaIndexEmbeddingArguments(EmbeddingArguments, _ComponentArguments, total=False):
    """Constructor arguments of `EmpirioLabsEmbedding`: those of `EmbeddingFields` and LlamaIndex's own."""

    num_workers: int | None
    embeddings_cache: Any
    rate_limiter: Any


class LlamaIndexRerankArguments(RerankArguments, _ComponentArguments, total=False):
    """Constructor arguments of `EmpirioLabsRerank`: those of `RerankFields` and LlamaIndex's own."""
