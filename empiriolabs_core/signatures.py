"""Types of constructor arguments, for type checkers: all accepted names, with the accepted types.

Without this module, type checkers read pydantic's fields: one name per field, with the type after validation. They
would report `api_key="sk-..."`, `stop="END"` and `api_base=...` as errors. Nothing here is imported at run time. The
fields document the arguments, and a test compares the two.
"""

from __future__ import annotations

from typing import Any, Literal

import openai
from pydantic import SecretStr
from typing_extensions import TypedDict

from empiriolabs_core.endpoints import EndpointName
from empiriolabs_core.settings import ReasoningEffort, SendBackReasoning
from empiriolabs_core.vectors import Dimensions


class ConnectionArguments(TypedDict, total=False):
    """Arguments of `ConnectionFields`."""

    api_key: SecretStr | str | None
    empiriolabs_api_key: SecretStr | str | None
    base_url: str | None
    empiriolabs_api_base: str | None
    api_base: str | None
    timeout: float | openai.Timeout | None
    total_timeout: float | None
    request_timeout: float | openai.Timeout | None
    max_retries: int
    default_headers: dict[str, str] | None
    http_client: Any
    http_async_client: Any
    async_http_client: Any


class RequestArguments(TypedDict, total=False):
    """Arguments of `RequestFields`. Type checkers accept standard fields, such as `seed`, only in `model_kwargs`."""

    model: str
    model_name: str
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    max_completion_tokens: int | None
    stop: list[str] | str | None
    stop_sequences: list[str] | str | None
    enable_thinking: bool | None
    thinking_budget: int | None
    reasoning_effort: ReasoningEffort | None
    web_search_linkup: bool | None
    disable_formatting: bool | None
    send_back_reasoning: SendBackReasoning
    endpoint: EndpointName
    use_responses_api: bool | None
    stream_usage: bool
    extra_body: dict[str, Any] | None
    model_kwargs: dict[str, Any] | None
    additional_kwargs: dict[str, Any] | None


class SettingsArguments(ConnectionArguments, RequestArguments, total=False):
    """Arguments of `Settings`."""


class EmbeddingArguments(ConnectionArguments, total=False):
    """Arguments of `EmbeddingFields`."""

    model: str
    model_name: str
    dimensions: Dimensions | None
    encoding_format: Literal["float", "base64"]
    batch_size: int
    chunk_size: int
    embed_batch_size: int
    max_concurrency: int


class RerankArguments(ConnectionArguments, total=False):
    """Arguments of `RerankFields`."""

    model: str
    top_n: int | None
    instruct: str | None
