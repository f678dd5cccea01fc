"""Types of constructor arguments, for type checkers; see `empiriolabs_core.signatures`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from langchain_core.caches import BaseCache
from langchain_core.callbacks import Callbacks
from langchain_core.language_models import ModelProfile
from langchain_core.rate_limiters import BaseRateLimiter

from empiriolabs_core.signatures import SettingsArguments


class ChatArguments(SettingsArguments, total=False):
    """Constructor arguments of `ChatEmpirioLabs`: those of `Settings` and LangChain's own."""

    name: str | None
    cache: BaseCache | bool | None
    verbose: bool
    callbacks: Callbacks
    tags: list[str] | None
    metadata: dict[str, Any] | None
    custom_get_token_ids: Callable[[str], list[int]] | None
    rate_limiter: BaseRateLimiter | None
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: ModelProfile | None
    streaming: bool
