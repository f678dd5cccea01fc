"""The error for an unknown argument suggests only an accepted argument with the same meaning."""

from __future__ import annotations

import re
from typing import Any

import pytest

from empiriolabs_core.arguments import field_names, standard_fields
from empiriolabs_core.errors import SettingsError
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding

CHAT = {
    "openai_api_key": "api_key",
    "url": "base_url",
    "deployment_name": "model",
    "num_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "think": "enable_thinking",
    "budget_tokens": "thinking_budget",
    "reasoning": "reasoning_effort",
    "web_search": "web_search_linkup",
    "json_mode": "response_format",
    "repeat_penalty": "frequency_penalty",
    "num_retries": "max_retries",
    "headers": "default_headers",
    "openai_proxy": "http_client",
    "async_client": "http_async_client",
    "top_k": "extra_body",
    "temprature": "temperature",
    "max_token": "max_tokens",
    "api_kee": "api_key",
    # Nothing here has the same meaning.
    "keep_alive": None,
    "mirostat": None,
    "custom_llm_provider": None,
    "openai_organization": None,
    "is_chat_model": None,
    "messages": None,
    "drop_params": None,
}


def _suggested(owner: Any, name: str) -> str | None:
    with pytest.raises(SettingsError) as raised:
        owner(**{name: "x"})
    found = re.search(r"Did you mean '(.*?)'", str(raised.value))
    return found[1] if found else None


@pytest.mark.parametrize("owner", [ChatEmpirioLabs, EmpirioLabs])
@pytest.mark.parametrize(("name", "meant"), CHAT.items())
def test_chat(owner: Any, name: str, meant: str | None) -> None:
    assert _suggested(owner, name) == meant


@pytest.mark.parametrize(
    ("owner", "name", "meant"),
    [
        (ChatEmpirioLabs, "tokenizer", "custom_get_token_ids"),
        (EmpirioLabs, "num_ctx", "context_window"),
        (ChatEmpirioLabs, "num_ctx", None),
        (EmpirioLabsEmbeddings, "dims", "dimensions"),
        (EmpirioLabsEmbedding, "openai_api_key", "api_key"),
        (EmpirioLabsEmbeddings, "temperature", None),
        (EmpirioLabsRerank, "top_k", "top_n"),
        (EmpirioLabsRerank, "instruction", "instruct"),
    ],
)
def test_only_what_the_class_accepts(owner: Any, name: str, meant: str | None) -> None:
    assert _suggested(owner, name) == meant


@pytest.mark.parametrize("owner", [ChatEmpirioLabs, EmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank])
def test_a_suggestion_is_never_the_word_itself_or_a_rejected_name(owner: Any) -> None:
    accepted = set(field_names(owner)) | (
        standard_fields() - {"messages", "stream"} if "extra_body" in field_names(owner) else set()
    )
    for name in [*CHAT, "stream", "n_ctx", "organization", *(f"{known}s" for known in list(accepted)[:20])]:
        if name not in accepted:
            meant = _suggested(owner, name)
            assert meant is None or (meant != name and meant in accepted)
