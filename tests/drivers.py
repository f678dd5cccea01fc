"""Run the same conversation through both adapters, to compare their requests and answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True)
class Case:
    """One request: a conversation, the settings of the constructor and the settings of the call."""

    name: str
    conversation: Sequence[dict[str, Any]] = ({"role": "user", "content": "Hello"},)
    settings: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Result:
    """An adapter's reading of the answer, in a form independent of the framework."""

    text: str
    reasoning: str
    tool_calls: list[tuple[str, Any]]
    usage: dict[str, int | None] | None
    finish_reason: str | None


def langchain_messages(conversation: Sequence[dict[str, Any]]) -> list[BaseMessage]:
    return [_langchain_message(turn) for turn in conversation]


def _langchain_message(turn: dict[str, Any]) -> BaseMessage:
    role, content = turn["role"], turn.get("content") or ""
    if role == "assistant":
        kwargs = {"reasoning_content": turn["reasoning"]} if "reasoning" in turn else {}
        calls = [{"id": c["id"], "name": c["name"], "args": c["arguments"]} for c in turn.get("tool_calls", ())]
        return AIMessage(content, additional_kwargs=kwargs, tool_calls=calls)
    if role == "tool":
        return ToolMessage(content, tool_call_id=turn["tool_call_id"])
    return {"user": HumanMessage, "system": SystemMessage}[role](content)


def llamaindex_messages(conversation: Sequence[dict[str, Any]]) -> list[ChatMessage]:
    return [_llamaindex_message(turn) for turn in conversation]


def _llamaindex_message(turn: dict[str, Any]) -> ChatMessage:
    blocks: list[Any] = [ThinkingBlock(content=turn["reasoning"])] if "reasoning" in turn else []
    for part in turn["content"] if isinstance(turn.get("content"), list) else ():
        blocks.append(ImageBlock(url=part["image_url"]["url"]))
    if isinstance(turn.get("content"), str) and turn["content"]:
        blocks.append(TextBlock(text=turn["content"]))
    for call in turn.get("tool_calls", ()):
        blocks.append(ToolCallBlock(tool_call_id=call["id"], tool_name=call["name"], tool_kwargs=call["arguments"]))
    kwargs = {"tool_call_id": turn["tool_call_id"]} if "tool_call_id" in turn else {}
    return ChatMessage(role=turn["role"], blocks=blocks, additional_kwargs=kwargs)


def langchain_sync(case: Case, where: dict[str, Any], stream: bool) -> Result:
    llm = ChatEmpirioLabs(**{**where, **case.settings})
    messages = langchain_messages(case.conversation)
    if not stream:
        return langchain_result(llm.invoke(messages, **case.call))
    return langchain_result(_added(list(llm.stream(messages, **case.call))))


def langchain_async(case: Case, where: dict[str, Any], stream: bool) -> Result:
    async def ask() -> Any:
        llm = ChatEmpirioLabs(**{**where, **case.settings})
        messages = langchain_messages(case.conversation)
        if not stream:
            return await llm.ainvoke(messages, **case.call)
        return _added([chunk async for chunk in llm.astream(messages, **case.call)])

    return langchain_result(asyncio.run(ask()))


def _added(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def langchain_result(message: AIMessage) -> Result:
    usage = message.usage_metadata
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    return Result(
        text=message.text,
        reasoning=message.additional_kwargs.get("reasoning_content", ""),
        tool_calls=calls + [(call["name"] or "", call["args"]) for call in message.invalid_tool_calls],
        usage=usage
        and {
            "input": usage["input_tokens"],
            "output": usage["output_tokens"],
            "cached": usage.get("input_token_details", {}).get("cache_read"),
            "reasoning": usage.get("output_token_details", {}).get("reasoning"),
        },
        finish_reason=message.response_metadata.get("finish_reason"),
    )


def llamaindex_sync(case: Case, where: dict[str, Any], stream: bool) -> Result:
    llm = EmpirioLabs(**{**where, **case.settings})
    messages = llamaindex_messages(case.conversation)
    if not stream:
        return llamaindex_result(llm.chat(messages, **case.call))
    return llamaindex_result(list(llm.stream_chat(messages, **case.call))[-1])


def llamaindex_async(case: Case, where: dict[str, Any], stream: bool) -> Result:
    async def ask() -> ChatResponse:
        llm = EmpirioLabs(**{**where, **case.settings})
        messages = llamaindex_messages(case.conversation)
        if not stream:
            return await llm.achat(messages, **case.call)
        return [response async for response in await llm.astream_chat(messages, **case.call)][-1]

    return llamaindex_result(asyncio.run(ask()))


def llamaindex_result(response: ChatResponse) -> Result:
    blocks, counts = response.message.blocks, response.additional_kwargs
    usage = None
    if "prompt_tokens" in counts:
        names = {"prompt": "input", "completion": "output", "cached": "cached", "reasoning": "reasoning"}
        usage = {ours: counts.get(f"{theirs}_tokens") for theirs, ours in names.items()}
    return Result(
        text=response.message.content or "",
        reasoning="".join(b.content or "" for b in blocks if isinstance(b, ThinkingBlock)),
        tool_calls=[(b.tool_name, b.tool_kwargs) for b in blocks if isinstance(b, ToolCallBlock)],
        usage=usage,
        finish_reason=counts.get("finish_reason"),
    )


Driver = Callable[[Case, dict[str, Any], bool], Result]
DRIVERS: dict[str, Driver] = {
    "langchain": langchain_sync,
    "langchain-async": langchain_async,
    "llamaindex": llamaindex_sync,
    "llamaindex-async": llamaindex_async,
}


def canonical(body: Any) -> bytes:
    """Return a JSON value as bytes that do not depend on the order of its keys."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False).encode()
