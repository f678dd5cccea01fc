"""What type checkers are told of the constructors: each accepted spelling, with the types that it accepts.

By themselves they read pydantic's fields, and know one name of each, with the type that it has afterwards: to them
`api_key="sk-..."`, `stop="END"` and `api_base=...` would be errors. Nothing here is imported at run time; the fields
say what the arguments mean, and a test compares the two.
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
    """Spellings of `ConnectionFields`."""

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
    """Spellings of `RequestFields`. Standard fields, such as `seed`, are known to type checkers in `model_kwargs`."""

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
    """Spellings of `Settings`."""


class EmbeddingArguments(ConnectionArguments, total=False):
    """Spellings of `EmbeddingFields`."""

    model: str
    model_name: str
    dimensions: Dimensions | None
    encoding_format: Literal["float", "base64"]
    batch_size: int
    chunk_size: int
    embed_batch_size: int
    max_concurrency: int


class RerankArguments(ConnectionArguments, total=False):
    """Spellings of `RerankFields`."""

    model: str
    top_n: int | None
    instruct: str | None
