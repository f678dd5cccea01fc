"""LangChain messages to wire dictionaries and back. Pure functions; the stream has one small state object."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_data_block,
    is_data_content_block,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.content import InvalidToolCall
from langchain_core.messages.tool import ToolCall as LangChainToolCall
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.json import parse_partial_json

from empiriolabs_core.catalog import may_have_searched
from empiriolabs_core.citations import Citation, note_sources, read_citations
from empiriolabs_core.costs import cost_of_call
from empiriolabs_core.errors import JSON, UnsupportedContentError, excerpt, readable, warn_once
from empiriolabs_core.replies import (
    StreamedReply,
    read_reasoning,
    read_text,
    read_usage,
    unknown_keys,
    warn_if_cut_short,
)
from empiriolabs_core.tool_calls import ToolCall, ToolCallPiece, new_call_id, read_arguments, write_arguments

PROVIDER = "empiriolabs"
"""`model_provider` of every message, and `ls_provider` of every trace. The two must be equal."""

_PASSED_ON = ("image_url", "input_audio", "file", "video_url")
"""Content parts that are in the form of the wire already."""

_SPOKEN = frozenset({"text", "text-plain", "refusal"})
_MEDIA = frozenset({"image", "audio", "video", "file", *_PASSED_ON})
_NOT_SENT = frozenset(
    {
        "thinking",
        "redacted_thinking",
        "reasoning",
        "reasoning_content",
        "tool_use",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "function_call",
        "server_tool_use",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "web_search_call",
        "web_search_tool_result",
        "executable_code",
        "code_execution_result",
        "non_standard",
    }
)
"""Blocks of an assistant turn that the wire has no content part for. Tool calls and reasoning have fields
of their own; another provider's signed thinking and the tools of its servers mean nothing to this one."""


def convert_messages(messages: Iterable[BaseMessage]) -> list[JSON]:
    """Return the wire messages of a conversation.

    Raises:
        UnsupportedContentError: a message or content block is of a kind that the wire has no form for.
    """
    conversation = list(messages)
    answered = {message.tool_call_id for message in conversation if isinstance(message, ToolMessage)}
    return [wire for message in conversation for wire in _convert_message(message, answered)]


def _convert_message(message: BaseMessage, answered: Set[str]) -> list[JSON]:
    match message:
        case SystemMessage():
            role = message.additional_kwargs.get("__openai_role__", "system")
            return [_named({"role": role, "content": _content(message.content)}, message)]
        case HumanMessage():
            return _convert_human(message)
        case AIMessage():
            return [_convert_ai(message, answered)]
        case ToolMessage():
            content = _content(message.content, "\n")
            return [{"role": "tool", "tool_call_id": message.tool_call_id, "content": content}]
        case ChatMessage():
            return [_named({"role": message.role, "content": _content(message.content)}, message)]
        case _:
            raise UnsupportedContentError(
                f"A {type(message).__name__} cannot be sent. Use a system, human, AI, tool or chat message."
            )


def _named(wire: JSON, message: BaseMessage) -> JSON:
    return {**wire, "name": message.name} if message.name else wire


def _convert_human(message: HumanMessage) -> list[JSON]:
    """Convert a user turn. Anthropic-style tool results in it become tool messages of their own."""
    if isinstance(message.content, str):
        return [_named({"role": "user", "content": message.content}, message)]
    results = [b for b in message.content if isinstance(b, dict) and b.get("type") == "tool_result"]
    rest = [block for block in message.content if block not in results]
    wire: list[JSON] = [
        {"role": "tool", "tool_call_id": result["tool_use_id"], "content": _content(result.get("content") or "", "\n")}
        for result in results
    ]
    if rest or not results:
        wire.append(_named({"role": "user", "content": _content(rest)}, message))
    return wire


def _convert_ai(message: AIMessage, answered: Set[str]) -> JSON:
    content = message.content
    blocks = content if isinstance(content, list) else []
    text = content if isinstance(content, str) else _text([block for block in blocks if _is_sent(block)])
    calls = [_whole_call(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    for invalid in message.invalid_tool_calls:
        if invalid["id"] in answered:
            # LangChain's own answer to a call without a name speaks of an unknown tool.
            calls.append(_call(invalid["id"], invalid["name"] or "unknown", invalid["args"] or ""))
        else:
            # A call that nothing answers is refused, and every later request with it.
            name = invalid["name"] or "a tool without a name"
            text = f"{text}\n[A call of {name} broke off: {invalid['args']}]".lstrip()
    if not calls:
        uses = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]
        calls = [_whole_call(use["id"], use["name"], use["input"]) for use in uses]
    wire: JSON = {"role": "assistant", "content": text or None if calls else text}
    reasoning = _reasoning(message, blocks)
    if reasoning is not None:
        wire["reasoning_content"] = reasoning
    if calls:
        wire["tool_calls"] = calls
    return _named(wire, message)


def _is_sent(block: Any) -> bool:
    """Tell whether a block of an assistant turn is content; the turn may be another provider's."""
    kind = block.get("type") if isinstance(block, dict) else "text"
    if kind in _SPOKEN or kind in _MEDIA:
        return True
    if kind not in _NOT_SENT:
        warn_once(f"A content block of type {kind!r} of an AI message is left out: the wire has no form for it.")
    return False


def _reasoning(message: AIMessage, blocks: list[Any]) -> str | None:
    """Return the reasoning of a turn from wherever LangChain keeps it: additional_kwargs, or v1 content blocks."""
    kept = message.additional_kwargs.get("reasoning_content")
    if isinstance(kept, str):
        return kept
    if message.response_metadata.get("model_provider", PROVIDER) != PROVIDER:
        return None
    pieces = [b.get("reasoning") or "" for b in blocks if isinstance(b, dict) and b.get("type") == "reasoning"]
    return "".join(pieces) if pieces else None


def _whole_call(call_id: str | None, name: str, arguments: Any) -> JSON:
    return _call(call_id, name, write_arguments(arguments, name))


def _call(call_id: str | None, name: str | None, arguments: str) -> JSON:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _content(content: str | Sequence[str | Mapping[str, Any]], between: str = "") -> str | list[JSON]:
    """Return wire content: a string where all of it is text, which every model takes.

    Blocks of a message are pieces of one text; those of a tool's result are items, with a line break `between`.
    """
    if isinstance(content, str):
        return content
    parts = [_part(block) for block in content]
    if all(part["type"] == "text" for part in parts):
        return between.join(part["text"] for part in parts)
    return parts


def _text(blocks: list[Any]) -> str:
    content = _content(blocks)
    if isinstance(content, str):
        return content
    kinds = sorted({part["type"] for part in content} - {"text"})
    raise UnsupportedContentError(f"An AI message with {', '.join(kinds)} content cannot be sent: it holds text only.")


def _part(block: str | Mapping[str, Any]) -> JSON:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind == "text-plain" and not block.get("text"):
        return {"type": "text", "text": _decoded(block)}
    if kind in _SPOKEN:
        return {"type": "text", "text": block.get("text") or block.get("refusal") or ""}
    if kind in _PASSED_ON and kind in block:
        return dict(block)
    if kind == "video" and (block.get("url") or block.get("base64")):
        return {"type": "video_url", "video_url": {"url": block.get("url") or _data_url(block)}}
    if kind == "image" and isinstance(block.get("source"), Mapping):
        source = block["source"]
        if not (source.get("url") or source.get("data")):
            raise _unsupported(block)
        found = {"base64": source.get("data"), "mime_type": source.get("media_type")}
        return {"type": "image_url", "image_url": {"url": source.get("url") or _data_url(found)}}
    try:
        if is_data_content_block(dict(block)):
            return convert_to_openai_data_block(dict(block))
    except (ValueError, KeyError) as error:
        raise _unsupported(block) from error
    raise _unsupported(block)


def _unsupported(block: Mapping[str, Any]) -> UnsupportedContentError:
    return UnsupportedContentError(
        f"A content block of type {block.get('type')!r} cannot be sent: {excerpt(repr(dict(block)))}. "
        "Use text, an image or a video as URL or base64, audio or a file as base64."
    )


def _data_url(block: Mapping[str, Any]) -> str:
    return f"data:{block.get('mime_type') or 'application/octet-stream'};base64,{block.get('base64')}"


def _decoded(block: Mapping[str, Any]) -> str:
    """Return the text of a plain document that is given as base64."""
    try:
        return base64.b64decode(block["base64"], validate=True).decode()
    except (KeyError, TypeError, ValueError) as error:
        raise _unsupported(block) from error


@readable
def create_chat_result(reply: JSON, body: JSON) -> ChatResult:
    """Convert a whole chat completion. Usage and cost stand on the first generation, so that they count once.

    Args:
        reply: what the gateway answered.
        body: what it was asked.
    """
    generations = [_create_generation(reply, choice, body) for choice in reply["choices"]]
    first = generations[0].message
    if isinstance(first, AIMessage):
        first.usage_metadata = create_usage_metadata(reply.get("usage"))
        first.response_metadata.update(_cost(body, reply.get("usage")))
    return ChatResult(
        generations=generations,
        llm_output={"token_usage": reply.get("usage") or {}, "model_name": reply.get("model")},
    )


def _cost(body: JSON, usage: JSON | None) -> JSON:
    cost = cost_of_call(body, usage)
    return {} if cost is None else {"cost_usd": float(cost.total)}


def _create_generation(reply: JSON, choice: JSON, body: JSON) -> ChatGeneration:
    wire = choice["message"]
    text, finish_reason = read_text(wire), choice.get("finish_reason")
    warn_if_cut_short(finish_reason, text, wire.get("tool_calls"))
    calls, invalid = convert_tool_calls(wire.get("tool_calls") or [])
    sources: JSON = {}
    note_sources(sources, reply)
    note_sources(sources, wire)
    citations = read_citations(sources, text, searched=may_have_searched(body))
    message = AIMessage(
        content=text,
        additional_kwargs=_kept(read_reasoning(wire), citations),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata={**_metadata(reply), **_outcome(choice), **unknown_keys(wire)},
    )
    return ChatGeneration(message=message, generation_info={"finish_reason": finish_reason})


def _kept(reasoning: str | None, citations: list[Citation]) -> JSON:
    """Return what stands in additional_kwargs."""
    kept: JSON = {"reasoning_content": reasoning} if reasoning else {}
    if citations:
        named = [{name: value for name, value in c._asdict().items() if value is not None} for c in citations]
        kept["citations"] = named
    return kept


def convert_tool_calls(wire: list[JSON]) -> tuple[list[LangChainToolCall], list[InvalidToolCall]]:
    """Convert tool calls. Those whose arguments are no JSON object come as invalid ones, never as `{}`."""
    calls: list[LangChainToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in wire:
        function = call.get("function") or {}
        call_id, name, text = call.get("id") or new_call_id(), function.get("name"), function.get("arguments")
        arguments = read_arguments(text)
        if name and arguments is not None:
            calls.append(LangChainToolCall(name=name, args=arguments, id=call_id, type="tool_call"))
        else:
            told = "The arguments are no JSON object." if name else "The call has no name."
            invalid.append(InvalidToolCall(name=name, args=text, id=call_id, error=told, type="invalid_tool_call"))
    return calls, invalid


def create_usage_metadata(usage: Mapping[str, Any] | None) -> UsageMetadata | None:
    """Convert token counts. Counts that the gateway did not report are left out."""
    counts = read_usage(usage)
    if counts is None:
        return None
    metadata = UsageMetadata(
        input_tokens=counts.input_tokens, output_tokens=counts.output_tokens, total_tokens=counts.total_tokens
    )
    if counts.cached_tokens is not None:
        metadata["input_token_details"] = InputTokenDetails(cache_read=counts.cached_tokens)
    if counts.reasoning_tokens is not None:
        metadata["output_token_details"] = OutputTokenDetails(reasoning=counts.reasoning_tokens)
    return metadata


def _metadata(reply: JSON) -> JSON:
    named = {"id": "id", "model": "model_name", "created": "created", "system_fingerprint": "system_fingerprint"}
    found = {ours: reply[theirs] for theirs, ours in named.items() if reply.get(theirs) is not None}
    return {"model_provider": PROVIDER, **found}


def _outcome(choice: JSON) -> JSON:
    return {name: choice[name] for name in ("finish_reason", "logprobs") if choice.get(name) is not None}


def _piece(piece: ToolCallPiece) -> str:
    """Return the arguments to emit: none for `null`, which LangChain's streams would take for no object."""
    whole = piece.call.arguments
    if "null".startswith(whole):
        return ""
    held = len(whole) - len(piece.arguments)
    return whole if 0 < held <= 4 and "null".startswith(whole[:held]) else piece.arguments


def _mismatch(arguments: str) -> str:
    """Return the brackets after which LangChain cannot mend the arguments."""
    for brackets in ("]", "}", '"]', '"}'):
        try:
            mended = parse_partial_json(arguments + brackets)
        except json.JSONDecodeError:
            return brackets
        if not isinstance(mended, dict):
            return brackets
    return ""


class ChunkConverter:
    """Converts the chunks of one stream, in order.

    LangChain merges chunks by adding them up, so whatever is not a piece of something is emitted once:
    the name of a tool call, and, in the chunk of `finish`, metadata and usage.
    """

    def __init__(self, body: JSON) -> None:
        self._body = body
        self._reply = StreamedReply()

    @readable
    def convert(self, chunk: JSON) -> ChatGenerationChunk | None:
        """Convert one chunk; `None` where it holds nothing that LangChain has a place for."""
        delta = self._reply.read(chunk)
        if delta is None:
            return None
        metadata: JSON = {"model_provider": PROVIDER}
        if delta.logprobs is not None:
            metadata["logprobs"] = delta.logprobs
        if delta.finish_reason:
            metadata["finish_reason"] = delta.finish_reason
        kept = {"reasoning_content": delta.reasoning} if delta.reasoning else {}
        if not delta.tool_calls:
            return _text_chunk(delta.text, kept, metadata)
        pieces = [
            tool_call_chunk(name=piece.name, args=_piece(piece), id=piece.id, index=piece.call.position)
            for piece in delta.tool_calls
        ]
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=delta.text, additional_kwargs=kept, response_metadata=metadata, tool_call_chunks=pieces
            )
        )

    @readable
    def finish(self) -> ChatGenerationChunk:
        """Return the last chunk: what is told once for the whole message."""
        reply = self._reply
        reply.finish()
        late = [tool_call_chunk(id=call.id, index=call.position) for call in reply.tool_calls.add_ids()]
        citations = read_citations(reply.sources, reply.text, searched=may_have_searched(self._body))
        told = {**_metadata(reply.last), **reply.unknown, **_cost(self._body, reply.usage)}
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                additional_kwargs=_kept(None, citations),
                tool_call_chunks=[*late, *_unparseable(reply.tool_calls.calls)],
                usage_metadata=create_usage_metadata(reply.usage),
                response_metadata=told,
            )
        )


_EMPTY = ChatGenerationChunk(message=AIMessageChunk(content=""))


def _text_chunk(text: str, additional_kwargs: JSON, response_metadata: JSON) -> ChatGenerationChunk:
    """Return a chunk without tool calls.

    Thousands of these come in a stream. A copy with other values takes two thirds of the time that LangChain's
    constructors take, which look for tool calls in all of them. Each copy has containers of its own.
    """
    message = _EMPTY.message.model_copy(
        update={
            "content": text,
            "additional_kwargs": additional_kwargs,
            "response_metadata": response_metadata,
            "tool_calls": [],
            "invalid_tool_calls": [],
            "tool_call_chunks": [],
        }
    )
    return _EMPTY.model_copy(update={"message": message, "text": text})


def _unparseable(calls: list[ToolCall]) -> list[ToolCallChunk]:
    """Return pieces that keep arguments that were cut off from being taken for whole ones.

    LangChain closes the brackets of streamed arguments by itself, so a tool would run with what is left of
    them. A bracket that matches none makes the call an invalid one, as it is when it is not streamed.
    """
    return [
        tool_call_chunk(args=_mismatch(call.arguments), index=call.position)
        for call in calls
        if read_arguments(call.arguments) is None or not call.name
    ]
