"""How LangChain reads standard content blocks off this provider's messages. Registered when imported.

The blocks of a stream have an index each that no other block has. Without one, LangChain's own reading
merges a tool call into the reasoning before it.
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
    """Return the standard block of a refusal, or of an answer that was filtered; `None` for any other message."""
    metadata = message.response_metadata
    text, filtered = metadata.get("refusal"), metadata.get("finish_reason") == "content_filter"
    if not filtered and not (isinstance(text, str) and text):
        return None
    block: Block = {"type": "refusal", "refusal": text if isinstance(text, str) else ""}
    return {**block, "extras": {"category": "content_filter"}} if filtered else block


def translate_content(message: AIMessage) -> list[ContentBlock]:
    """Return the standard content blocks of a whole message."""
    blocks = [*_reasoning_and_text(message), *_search(message)]
    calls = message.tool_calls
    refusal = refusal_of(message)
    blocks += [refusal] if refusal else []
    blocks += [{"type": "tool_call", "name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    return cast(list[ContentBlock], blocks)


def translate_content_chunk(message: AIMessageChunk) -> list[ContentBlock]:
    """Return the standard content blocks of a piece of a message, or of pieces added up to a whole one."""
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
        # Content that is made of blocks already, in a history that was put together by hand.
        return blocks + [{"type": "text", "text": b} if isinstance(b, str) else dict(b) for b in message.content]
    citations = message.additional_kwargs.get("citations")
    if message.content or citations:
        text: Block = {"type": "text", "text": message.content}
        if citations:
            text["annotations"] = [{"type": "citation", **citation} for citation in citations]
        blocks.append(text)
    return blocks


def _search(message: AIMessage) -> list[Block]:
    """Return the web search that the gateway made, if the message names what it found."""
    citations = message.additional_kwargs.get("citations")
    if not citations:
        return []
    return [
        {"type": "server_tool_call", "name": "web_search", "args": {}, "id": _SEARCH_ID},
        {"type": "server_tool_result", "tool_call_id": _SEARCH_ID, "status": "success", "output": citations},
    ]


register_translator(PROVIDER, translate_content, translate_content_chunk)
