"""Convert LlamaIndex messages to wire dictionaries and back: pure functions, and a small state object for streams."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CitationBlock,
    CompletionResponse,
    DocumentBlock,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms.llm import ToolSelection
from pydantic import BaseModel, Field
from pydantic_core import from_json

from empiriolabs_core.catalog import may_have_searched
from empiriolabs_core.citations import Citation, note_sources, read_citations
from empiriolabs_core.content import as_json, join_parts
from empiriolabs_core.costs import cost_of_call
from empiriolabs_core.errors import (
    JSON,
    InvalidReplyError,
    SettingsError,
    UnsupportedContentError,
    excerpt,
    readable,
    warn_once,
)
from empiriolabs_core.prepared import Prepared
from empiriolabs_core.replies import (
    StreamedReply,
    read_reasoning,
    read_refusal,
    read_text,
    read_usage,
    warn_if_cut_short,
    why_truncated,
)
from empiriolabs_core.tool_calls import (
    INVALID_JSON,
    NO_NAME,
    ToolCall,
    known_id,
    read_arguments,
    read_calls,
    read_stored_call,
    settle_calls,
    unusable_calls,
    why_unusable,
    write_call,
)

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "developer",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


class InvalidToolArgumentsError(InvalidReplyError, ValueError):
    """The model called a tool with arguments that are not a JSON object, or the call was truncated. Worth a retry.

    Retry, or raise `max_tokens` if the call was truncated.
    """


class EmpirioLabsChatResponse(ChatResponse):
    """A chat response with its sources."""

    citations: list[CitationBlock] = Field(default_factory=list)
    """The sources that the answer cites, without duplicates."""


class EmpirioLabsCompletionResponse(CompletionResponse):
    """A completion with its sources."""

    citations: list[CitationBlock] = Field(default_factory=list)
    """The sources that the answer cites, without duplicates."""


def to_wire(messages: Iterable[ChatMessage]) -> list[JSON]:
    """Return the wire messages of a conversation. The given messages are not changed.

    Raises:
        UnsupportedContentError: if the API does not support a message or block, or a tool call or result has no id.
    """
    return settle_calls([_message_to_wire(message) for message in messages])


def _message_to_wire(message: ChatMessage) -> JSON:
    if not isinstance(message, ChatMessage):
        raise UnsupportedContentError(f"A message must be a ChatMessage, got {type(message).__name__}.")
    role = _ROLES.get(message.role)
    if role is None:
        raise UnsupportedContentError(f"A message of role {message.role.value!r} cannot be sent.")
    if role == "tool":
        return _result_to_wire(message)
    if role == "assistant":
        wire = _assistant_to_wire(message)
    else:
        # Frameworks copy blocks of answers into user messages. Such blocks are left out.
        answered = (ThinkingBlock, ToolCallBlock) if role == "user" else ()
        wire = {"role": role, "content": _content([b for b in message.blocks if not isinstance(b, answered)])}
    if message.additional_kwargs.get("name"):
        wire["name"] = message.additional_kwargs["name"]
    return wire


def _result_to_wire(message: ChatMessage) -> JSON:
    named = message.additional_kwargs.get("name") or excerpt(message.content or "", 40)
    call_id = known_id(message.additional_kwargs.get("tool_call_id"), f"The tool result {named!r}")
    return {"role": "tool", "content": _result_content(message.blocks), "tool_call_id": call_id}


def _assistant_to_wire(message: ChatMessage) -> JSON:
    called = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = [_call_to_wire(block) for block in called] or _older_calls(message)
    thoughts = [block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock)]
    spoken = [block for block in message.blocks if not isinstance(block, ToolCallBlock | ThinkingBlock)]
    content = _content(spoken)
    if isinstance(content, list):
        kinds = ", ".join(sorted({part["type"] for part in content} - {"text"}))
        raise UnsupportedContentError(
            f"An assistant message with {kinds} content cannot be sent. Assistant messages may contain only text."
        )
    wire: JSON = {"role": "assistant", "content": content or None if calls else content}
    if thoughts:
        wire["reasoning_content"] = "".join(thoughts)
    if calls:
        wire["tool_calls"] = calls
    return wire


def _call_to_wire(block: ToolCallBlock) -> JSON:
    call_id = known_id(block.tool_call_id, f"The call of the tool {block.tool_name!r}")
    return write_call(call_id, block.tool_name, block.tool_kwargs)


def _older_calls(message: ChatMessage) -> list[JSON]:
    """Return the calls of a message without tool call blocks, the older format that chat stores still contain.

    The calls are dictionaries or objects of any LLM's client. Our own short entries only label blocks, so they are
    ignored.
    """
    further = message.additional_kwargs
    entries = further.get("tool_calls") or [further[key] for key in ("function_call",) if further.get(key)]
    ours = {"id", "name"}
    calls = [read_stored_call(e) for e in entries if not (isinstance(e, Mapping) and e.keys() == ours)]
    for call in calls:
        known_id(call["id"], f"The call of the tool {call['function']['name']!r}")
    return calls


def _content(blocks: Sequence[Any]) -> str | list[JSON]:
    """Return wire content: a string if all parts are text, since every model accepts it; otherwise a list."""
    return join_parts([part for block in blocks for part in _parts(block)], "")


def _result_content(blocks: Sequence[Any]) -> str | list[JSON]:
    """Return the wire content of a tool result. Blocks without a matching content part are sent as JSON."""
    items = [_result_parts(block) for block in blocks]
    whole = [join_parts(item, "") for item in items if item]
    if all(isinstance(item, str) for item in whole):
        return "\n".join(item for item in whole if isinstance(item, str))
    return [part for item in items for part in item]


def _result_parts(block: Any) -> list[JSON]:
    try:
        return _parts(block)
    except UnsupportedContentError:
        return [{"type": "text", "text": as_json(block.model_dump() if isinstance(block, BaseModel) else block)}]


def _parts(block: Any) -> list[JSON]:
    """Return the wire parts of a block.

    Raises:
        UnsupportedContentError: if the block is malformed, or the API does not support its type.
    """
    try:
        return _known_parts(block)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedContentError):
            raise
        raise UnsupportedContentError(f"A {type(block).__name__} cannot be sent: {error}.") from error


def _known_parts(block: Any) -> list[JSON]:
    match block:
        case TextBlock():
            return [{"type": "text", "text": block.text}]
        case CitableBlock():
            return _citable(block)
        case CachePoint() | CitationBlock():
            # The gateway caches automatically. A citation refers to the text next to it, which is sent.
            return []
        case ImageBlock():
            detail = {"detail": block.detail} if block.detail else {}
            return [{"type": "image_url", "image_url": {"url": _url(block), **detail}}]
        case AudioBlock():
            data = block.resolve_audio(as_base64=True).read().decode()
            return [{"type": "input_audio", "input_audio": {"data": data, "format": block.format or "wav"}}]
        case VideoBlock():
            if block.detail or block.fps:
                warn_once("detail and fps of a VideoBlock were not sent: the API does not support them.")
            return [{"type": "video_url", "video_url": {"url": _url(block)}}]
        case DocumentBlock():
            return [{"type": "file", "file": {"filename": block.title, "file_data": _url(block)}}]
        case _:
            raise UnsupportedContentError(f"A {type(block).__name__} cannot be sent: {excerpt(repr(block))}.")


def _url(block: ImageBlock | VideoBlock | DocumentBlock) -> str:
    """Return a block's URL, or its content as a data URL."""
    if block.url:
        return str(block.url)
    match block:
        case ImageBlock():
            content, kind = block.resolve_image().read(), block.image_mimetype
        case VideoBlock():
            content, kind = block.resolve_video().read(), block.video_mimetype
        case _:
            content, kind = block.resolve_document().read(), block.document_mimetype
    return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"


def _citable(block: CitableBlock) -> list[JSON]:
    inner = [part for content in block.content for part in _parts(content)]
    head = f"Source: {block.title} ({block.source})\n"
    return [{"type": "text", "text": head}, *inner, {"type": "text", "text": "\n"}]


def _citation_block(citation: Citation) -> CitationBlock:
    places = {"start_index": citation.start_index, "end_index": citation.end_index}
    return CitationBlock(
        cited_content=TextBlock(text=citation.cited_text or ""),
        source=citation.url,
        title=citation.title or citation.url,
        additional_location_info={name: place for name, place in places.items() if place is not None},
    )


@readable
def chat_response(reply: JSON, body: JSON) -> EmpirioLabsChatResponse:
    """Convert a chat completion that was not streamed.

    Args:
        reply: the body of the gateway's response.
        body: the body of the request.
    """
    choice = reply["choices"][0]
    wire = choice["message"]
    # LlamaIndex has no block for a refusal, so the refusal becomes the text.
    text = read_text(wire) or read_refusal(wire) or ""
    warn_if_cut_short(choice.get("finish_reason"), text, wire.get("tool_calls"))
    calls, sources = read_calls(wire.get("tool_calls")), dict[str, Any]()
    unusable = unusable_calls(calls, why_truncated(choice, reply.get("usage"), body))
    note_sources(sources, reply)
    note_sources(sources, wire)
    return _response(text, read_reasoning(wire), calls, unusable, sources, body, raw=reply, delta=None)


def _response(
    text: str | None,
    reasoning: str | None,
    calls: Sequence[ToolCall],
    unusable: dict[str, JSON],
    sources: JSON,
    body: JSON,
    *,
    raw: JSON,
    delta: str | None,
) -> EmpirioLabsChatResponse:
    """Build the response for a complete message, streamed or not."""
    choice = raw["choices"][0]
    thought = [ThinkingBlock(content=reasoning)] if reasoning else []
    blocks = _blocks(text, thought, [_finished(call, unusable) for call in calls])
    counts, cost = read_usage(raw.get("usage")), cost_of_call(body, raw.get("usage"))
    if counts is not None and isinstance(blocks[0], ThinkingBlock):
        blocks[0].num_tokens = counts.reasoning_tokens
    found = read_citations(sources, text or "", searched=may_have_searched(body))
    citations = [_citation_block(citation) for citation in found]
    return EmpirioLabsChatResponse(
        message=_assistant([*blocks, *citations], calls),
        citations=citations,
        raw=raw,
        delta=delta,
        logprobs=_logprobs(choice.get("logprobs")),
        additional_kwargs={
            **_flat_usage(raw.get("usage")),
            **({} if cost is None else {"cost_usd": float(cost.total)}),
            **({"truncated_tool_calls": unusable} if unusable else {}),
            "finish_reason": choice.get("finish_reason"),
        },
    )


def _blocks(text: str | None, thought: list[ThinkingBlock], calls: list[ToolCallBlock]) -> list[Any]:
    """Return the blocks of an assistant message: at most one text block, and no text block if it only calls tools."""
    if text or not calls:
        return [*thought, TextBlock(text=text or ""), *calls]
    return [*thought, *calls]


def _assistant(blocks: list[Any], calls: Sequence[ToolCall]) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=_named(calls))


def _named(calls: Sequence[ToolCall]) -> JSON:
    # Chat engines recognise a tool turn by this key, and tracers read it instead of the blocks.
    return {"tool_calls": [_traced(call) for call in calls]} if calls else {}


_CALL = Prepared(ToolCallBlock(tool_call_id="", tool_name="", tool_kwargs=""))
_MESSAGE = Prepared(ChatMessage(role=MessageRole.ASSISTANT, blocks=[], additional_kwargs={}))
"""Prototypes of objects whose LlamaIndex constructors are slow. The constructors of other classes are fast enough."""


def _traced(call: ToolCall) -> JSON:
    """Return a call in the format that tracers read. It lacks the key `function`, which marks older calls."""
    return {"id": call.id, "name": call.name, "input": call.arguments}


def _finished(call: ToolCall, unusable: Mapping[str, JSON]) -> ToolCallBlock:
    """Convert a complete call. Arguments that must not be used are kept as text."""
    found = unusable.get(call.id or "")
    arguments = read_arguments(call.arguments) if found is None or found["reason"] == NO_NAME else None
    return ToolCallBlock(
        tool_call_id=call.id, tool_name=call.name or "", tool_kwargs=call.arguments if arguments is None else arguments
    )


def _flat_usage(usage: Mapping[str, Any] | None) -> JSON:
    counts = read_usage(usage)
    if counts is None:
        return {}
    flat = {
        "prompt_tokens": counts.input_tokens,
        "completion_tokens": counts.output_tokens,
        "total_tokens": counts.total_tokens,
        "cached_tokens": counts.cached_tokens,
        "reasoning_tokens": counts.reasoning_tokens,
    }
    return {name: count for name, count in flat.items() if count is not None}


def _logprobs(wire: JSON | None) -> list[list[LogProb]] | None:
    if not wire or not wire.get("content"):
        return None
    return [[_logprob(entry) for entry in token.get("top_logprobs") or [token]] for token in wire["content"]]


def _logprob(entry: JSON) -> LogProb:
    return LogProb(token=entry["token"], logprob=entry["logprob"], bytes=entry.get("bytes") or [])


class StreamedMessage:
    """Assembles the chunks of one stream. Each response contains the message so far."""

    def __init__(self, body: JSON) -> None:
        self._body = body
        self._reply = StreamedReply()
        self._text = ""
        self._reasoning = ""
        self._thought: list[ThinkingBlock] = []
        self._logprobs: list[Any] = []
        self._partial: dict[int, _Partial] = {}

    @readable
    def add(self, chunk: JSON) -> ChatResponse | None:
        """Add one chunk and return the response so far; `None` if the chunk adds nothing."""
        delta = self._reply.read(chunk)
        if delta is None:
            return None
        if delta.logprobs is not None:
            self._logprobs += delta.logprobs.get("content") or []
        if not (delta.text or delta.reasoning or delta.tool_calls):
            return None
        self._text += delta.text
        if delta.reasoning:
            self._reasoning += delta.reasoning
            self._thought = [ThinkingBlock(content=self._reasoning)]
        calls = self._reply.tool_calls.calls
        blocks = _blocks(self._text, self._thought, [self._growing(call) for call in calls])
        return ChatResponse(
            message=_MESSAGE.new(blocks=blocks, additional_kwargs=_named(calls)),
            raw=chunk,
            delta=delta.text,
            additional_kwargs={"thinking_delta": delta.reasoning} if delta.reasoning else {},
        )

    def _growing(self, call: ToolCall) -> ToolCallBlock:
        """Convert a call that is still being streamed. Its arguments stay text."""
        text = call.arguments
        if call.length > _PARSED_AT_ONCE:
            text = _LongArguments(text)
            text.partial = self._partial.setdefault(call.position, _Partial())
        values: JSON = {"tool_call_id": call.id, "tool_name": call.name or "", "tool_kwargs": text}
        # LlamaIndex validates ids and names that are not strings.
        known = isinstance(call.id, str | None) and isinstance(call.name, str | None)
        return _CALL.new(**values) if known else ToolCallBlock(**values)

    @readable
    def finish(self) -> EmpirioLabsChatResponse:
        """Return the last response: the complete message, with usage and the other values that are emitted once."""
        reply = self._reply
        rest = reply.finish()
        self._text += rest.text
        self._reasoning += rest.reasoning
        (choice,) = reply.last["choices"]
        if self._logprobs:
            choice = {**choice, "logprobs": {"content": self._logprobs}}
        raw = {**reply.last, "choices": [choice]}
        if reply.usage:
            raw["usage"] = reply.usage
        calls, unusable = reply.tool_calls.calls, reply.unusable_calls(self._body)
        refusal = reply.unknown.get("refusal")
        # LlamaIndex has no block for a refusal, so the refusal becomes the text.
        late = refusal if not self._text and isinstance(refusal, str) else ""
        text, delta = self._text + late, rest.text + late
        return _response(text, self._reasoning, calls, unusable, reply.sources, self._body, raw=raw, delta=delta)


def completion_response(response: ChatResponse) -> EmpirioLabsCompletionResponse:
    """Return a chat response as a completion."""
    return EmpirioLabsCompletionResponse(
        citations=response.citations if isinstance(response, EmpirioLabsChatResponse) else [],
        text=response.message.content or "",
        additional_kwargs=response.additional_kwargs,
        raw=response.raw,
        logprobs=response.logprobs,
        delta=response.delta,
    )


def tool_selections(response: ChatResponse, *, invalid_too: bool = False) -> list[ToolSelection]:
    """Return the tool calls of a message, which may be complete or still being streamed.

    Args:
        response: the response that contains the message.
        invalid_too: whether to return calls that must not be run, such as truncated calls. Their placeholder name says
            what is wrong.

    Raises:
        InvalidToolArgumentsError: if the message is complete, a call in it must not be run, and `invalid_too` is false.
    """
    whole = "finish_reason" in response.additional_kwargs
    unusable = response.additional_kwargs.get("truncated_tool_calls") or {}
    return [
        _selection(block, unusable.get(block.tool_call_id), whole=whole, invalid_too=invalid_too)
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _selection(block: ToolCallBlock, unusable: JSON | None, *, whole: bool, invalid_too: bool) -> ToolSelection:
    name, given = block.tool_name, block.tool_kwargs
    if isinstance(given, str) and not whole:
        given = partial_object(given)
    elif isinstance(given, str):
        why = why_unusable(unusable["reason"] if unusable else INVALID_JSON, given)
        if not invalid_too:
            raise InvalidToolArgumentsError(
                f"The call of {name} was not run: {why}. Retry, or raise max_tokens if it was truncated."
            )
        # With the tool's own name the call would be run with these arguments. For an unknown name, agents answer
        # "Tool ... not found", and the model reads in this answer what to do.
        name = f"{name} (not run: {why}; call it again with complete arguments)"
        given = {"invalid_json": given}
    return ToolSelection(tool_id=block.tool_call_id or "", tool_name=name, tool_kwargs=given)


_PARSED_AT_ONCE = 16_384
"""Length in characters up to which arguments are parsed at every delta. Longer arguments are parsed again only after
they grow by a sixteenth."""


class _Partial:
    """Cache of the last parsed value of one long call's arguments.

    Agents keep the value of every delta. A copy per delta would need gigabytes for arguments of 200 KB.
    """

    def __init__(self) -> None:
        self._length = 0
        self._value: dict[str, Any] = {}

    def read(self, text: str) -> dict[str, Any]:
        """Return the parsed arguments, which may lack the last sixteenth of the text."""
        if not self._length <= len(text) < self._length * 17 // 16:
            self._value, self._length = _parse_partial(text), len(text)
        return self._value


class _LongArguments(str):
    """Arguments that are being streamed. Copies and pickles are plain text."""

    partial: _Partial

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def partial_object(text: str) -> dict[str, Any]:
    """Return the value so far of a JSON object that is still being streamed.

    Above 16,384 characters, the last sixteenth of the text may be missing.
    """
    return text.partial.read(text) if isinstance(text, _LongArguments) else _parse_partial(text)


def _parse_partial(text: str) -> dict[str, Any]:
    try:
        value = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def one_call_only(response: ChatResponse) -> ChatResponse:
    """Return a response with only its first tool call."""
    calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    if len(calls) < 2:
        return response
    blocks = [block for block in response.message.blocks if not isinstance(block, ToolCallBlock)]
    named = response.message.additional_kwargs.get("tool_calls") or []
    message = response.message.model_copy(
        update={"blocks": [*blocks, calls[0]], "additional_kwargs": {"tool_calls": named[:1]}}
    )
    return response.model_copy(update={"message": message})


def tool_choice_to_wire(choice: str | Mapping[str, Any] | None, tools: Sequence[JSON], *, required: bool) -> Any:
    """Return OpenAI's spelling of a tool choice; `None` to leave it to the model.

    Raises:
        SettingsError: if the choice names a tool that is not among the tools.
    """
    if choice is None:
        return "required" if required else None
    if isinstance(choice, Mapping):
        return dict(choice)
    if not isinstance(choice, str):
        raise SettingsError(f"tool_choice must be a tool's name or an OpenAI-style dictionary, got {choice!r}.")
    spellings = {"auto": None, "none": "none", "any": "required", "required": "required"}
    if choice in spellings:
        return spellings[choice]
    names = [tool["function"]["name"] for tool in tools]
    if choice not in names:
        raise SettingsError(f"tool_choice={choice!r} does not match any tool. Tools: {', '.join(names) or 'none'}.")
    return {"type": "function", "function": {"name": choice}}
