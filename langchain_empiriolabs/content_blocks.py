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

_REASONING, _TEXT, _TOOL_CALL = "lc_rsn_0", "lc_txt_0", "lc_tc_"


def translate_content(message: AIMessage) -> list[ContentBlock]:
    """Return the standard content blocks of a whole message."""
    blocks = _reasoning_and_text(message)
    blocks += [{"type": "tool_call", "name": c["name"], "args": c["args"], "id": c["id"]} for c in message.tool_calls]
    return cast(list[ContentBlock], blocks)


def translate_content_chunk(message: AIMessageChunk) -> list[ContentBlock]:
    """Return the standard content blocks of a piece of a message, or of pieces added up to a whole one."""
    if message.chunk_position == "last" and message.tool_calls:
        return translate_content(message)
    blocks = _reasoning_and_text(message)
    for block in blocks:
        block["index"] = _REASONING if block["type"] == "reasoning" else _TEXT
    for call in message.tool_call_chunks:
        piece = {"type": "tool_call_chunk", "id": call["id"], "name": call["name"], "args": call["args"]}
        blocks.append({**piece, "index": f"{_TOOL_CALL}{call['index']}"})
    return cast(list[ContentBlock], blocks)


def _reasoning_and_text(message: AIMessage) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    reasoning = message.additional_kwargs.get("reasoning_content")
    if reasoning:
        blocks.append({"type": "reasoning", "reasoning": reasoning})
    if isinstance(message.content, str):
        if message.content:
            blocks.append({"type": "text", "text": message.content})
    else:
        blocks += [{"type": "text", "text": b} if isinstance(b, str) else dict(b) for b in message.content]
    return blocks


register_translator(PROVIDER, translate_content, translate_content_chunk)
