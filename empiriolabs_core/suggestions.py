"""Suggest an argument for an unknown name, also for users of other packages."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_MEANT: dict[str, tuple[str, ...]] = {
    "api_key": ("openai_api_key", "deepseek_api_key", "apikey", "key", "token", "auth_token"),
    "base_url": ("openai_api_base", "deepseek_api_base", "endpoint_url", "api_url", "url", "host", "server_url"),
    "model": ("model_id", "engine", "deployment", "deployment_name", "azure_deployment"),
    "temperature": ("temp",),
    "max_tokens": ("num_predict", "max_new_tokens", "max_output_tokens", "max_length", "num_output"),
    "stop": ("stop_words", "stop_tokens", "stops"),
    "enable_thinking": ("think", "thinking", "enable_reasoning", "thinking_enabled", "include_reasoning"),
    "thinking_budget": ("budget_tokens", "max_thinking_tokens", "reasoning_budget", "max_reasoning_tokens"),
    "reasoning_effort": ("reasoning", "effort", "thinking_level", "think_level"),
    "web_search_linkup": ("web_search", "enable_search", "enable_web_search", "search", "linkup"),
    "response_format": ("format", "json_mode", "response_mime_type"),
    "frequency_penalty": ("repeat_penalty", "repetition_penalty"),
    "seed": ("random_seed",),
    "timeout": ("client_timeout", "read_timeout"),
    "max_retries": ("num_retries", "retries", "max_retry"),
    "default_headers": ("headers", "extra_headers", "http_headers", "custom_headers"),
    "http_client": ("openai_proxy", "proxy", "proxies", "client", "client_kwargs", "sync_client", "reuse_client"),
    "http_async_client": ("async_client", "async_client_kwargs"),
    "stream_usage": ("stream_options", "include_usage"),
    "extra_body": ("top_k", "min_p", "provider_options", "options", "litellm_params"),
    "custom_get_token_ids": ("tokenizer", "tiktoken_model_name"),
    "context_window": ("num_ctx", "n_ctx", "max_context", "context_size"),
    "dimensions": ("dim", "dims", "embedding_dimensions", "embedding_size", "output_dimensionality"),
    "batch_size": ("batch", "max_batch_size", "num_batch", "embedding_batch_size"),
    "max_concurrency": ("concurrency", "max_workers", "max_parallel"),
    "top_n": ("top_k", "k", "n", "limit"),
    "instruct": ("instruction", "instructions", "prompt"),
}
"""Maps names with the same meaning in ChatOpenAI, ChatDeepSeek, OpenAILike, Ollama, LiteLLM and others to arguments."""

_SIMILAR = 0.8
"""Minimum similarity of a misspelt name, from 0 to 1."""


def suggestion(name: str, accepted: Collection[str]) -> str | None:
    """Return the accepted name that the user probably meant, or `None`.

    Args:
        name: the unknown name.
        accepted: the accepted names.
    """
    meant = [ours for ours, theirs in _MEANT.items() if name.lower() in theirs and ours in accepted and ours != name]
    if meant:
        return meant[0]
    close = difflib.get_close_matches(name, [other for other in accepted if other != name], n=1, cutoff=_SIMILAR)
    return close[0] if close else None
