"""Translate this provider's messages to LangChain's standard content blocks. Importing the module registers it.

Every block of a stream has a unique index. Without an index, LangChain merges a tool call into the reasoning
before it.
"""

from __future__ import annotations

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock

from langchain_empiriolabs.messages import PROVIDER

_INDICES = {
    "reasoning": "lc_rsn_0",
    "text": "lc_txt_0",
    "server_tool_call": "lc_srch_0",
    "server_tool_result": "lc_srch_1",
}
_SEARCH_ID = "web_search_0"

Block = dict[str, Any]


def refusal_of(message: AIMessage) -> Block | None:
    """Return the standard block for a refusal or a filtered answer; `None` for any other message."""
    metadata = message.response_metadata
    text, filtered = metadata.get("refusal"), metadata.get("finish_reason") == "content_filter"
    if not filtered and not (isinstance(text, str) and text):
        return None
    block: Block = {"type": "refusal", "refusal": text if isinstance(text, str) else ""}
    return {**block, "extras": {"category": "content_filter"}} if filtered else block


def translate_content(message: AIMessage) -> list[ContentBlock]:
    """Return the standard content blocks of a complete message."""
    blocks = [*_reasoning_and_text(message), *_search(message)]
    calls = message.tool_calls
    refusal = refusal_of(message)
    blocks += [refusal] if refusal else []
    blocks += [{"type": "tool_call", "name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    return cast(list[ContentBlock], blocks)


def translate_content_chunk(message: AIMessageChunk) -> list[ContentBlock]:
    """Return the standard content blocks of a message chunk, or of a sum of chunks."""
    if message.chunk_position == "last" and message.tool_calls:
        return translate_content(message)
    refusal = refusal_of(message)
    blocks = [*_reasoning_and_text(message), *_search(message), *([refusal] if refusal else [])]
    for block in blocks:
        block["index"] = _INDICES.get(block["type"], f"lc_{block['type']}")
    for call in message.tool_call_chunks:
        piece = {"type": "tool_call_chunk", "id": call["id"], "name": call["name"], "args": call["args"]}
        blocks.append({**piece, "index": f"lc_tc_{call['index']}"})
    return cast(list[ContentBlock], blocks)


def _reasoning_and_text(message: AIMessage) -> list[Block]:
    blocks: list[Block] = []
    reasoning = message.additional_kwargs.get("reasoning_content")
    if reasoning:
        blocks.append({"type": "reasoning", "reasoning": reasoning})
    if isinstance(message.content, list):
        # The content is already a list of blocks, as in a history that was written by hand.
        return blocks + [{"type": "text", "text": b} if isinstance(b, str) else dict(b) for b in message.content]
    citations = message.additional_kwargs.get("citations")
    if message.content or citations:
        text: Block = {"type": "text", "text": message.content}
        if citations:
            text["annotations"] = [{"type": "citation", **citation} for citation in citations]
        blocks.append(text)
    return blocks


def _search(message: AIMessage) -> list[Block]:
    """Return the blocks of the gateway's web search; an empty list if the message has no citations."""
    citations = message.additional_kwargs.get("citations")
    if not citations:
        return []
    return [
        {"type": "server_tool_call", "name": "web_search", "args": {}, "id": _SEARCH_ID},
        {"type": "server_tool_result", "tool_call_id": _SEARCH_ID, "status": "success", "output": citations},
    ]


register_translator(PROVIDER, translate_content, translate_content_chunk)
