"""How a LlamaIndex LLM is used, and the checks that only LlamaIndex has."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, CitationBlock, ThinkingBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from .subject import ASK_PERSON, ASK_WEATHER, PROMPT, REASONING, Reply, Subject, equal, expect, feature


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def _weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


get_weather = FunctionTool.from_defaults(_weather, name="get_weather")


class LlamaIndex(Subject):
    framework = "llamaindex"

    def ask(self, llm: Any, prompt: str = PROMPT, **call: Any) -> Reply:
        return self.read(llm.chat([ChatMessage(prompt)], **call))

    async def aask(self, llm: Any) -> Reply:
        return self.read(await llm.achat([ChatMessage(PROMPT)]))

    def stream(self, llm: Any) -> Reply:
        return self.read(list(llm.stream_chat([ChatMessage(PROMPT)]))[-1])

    async def astream(self, llm: Any) -> Reply:
        return self.read([response async for response in await llm.astream_chat([ChatMessage(PROMPT)])][-1])

    def read(self, response: Any) -> Reply:
        blocks, kept = response.message.blocks, response.additional_kwargs
        reasoning = "".join(block.content or "" for block in blocks if isinstance(block, ThinkingBlock))
        return Reply(
            text=response.message.content or "",
            reasoning=reasoning,
            in_blocks=reasoning,
            usage={
                "input": kept.get("prompt_tokens"),
                "output": kept.get("completion_tokens"),
                "cached": kept.get("cached_tokens"),
                "reasoning": kept.get("reasoning_tokens"),
            },
            raw_usage=_raw_usage(response.raw),
            citations=[block.source for block in blocks if isinstance(block, CitationBlock)],
            cost=next((value for name, value in kept.items() if "cost" in name), None),
            native=response,
        )

    def calls(self, llm: Any, reply: Reply) -> list[tuple[str, Any]]:
        found = llm.get_tool_calls_from_response(reply.native, error_on_no_tool_call=False)
        return [(call.tool_name, call.tool_kwargs) for call in found]

    def calls_not_taken(self, reply: Reply) -> int:
        """Return 0, because LlamaIndex has no field for invalid calls. They must raise an exception."""
        return 0

    def ask_tool(
        self, llm: Any, prompt: str = ASK_WEATHER, *, choice: str | None = None, stream: bool = False
    ) -> Reply:
        call = {None: {}, "any": {"tool_required": True}}.get(choice, {"tool_choice": choice})
        if stream:
            return self.read(list(llm.stream_chat_with_tools([get_weather], user_msg=prompt, **call))[-1])
        return self.read(llm.chat_with_tools([get_weather], user_msg=prompt, **call))

    def answer_tool(self, llm: Any, reply: Reply) -> str:
        """Send a tool's result after the message that called it, and return the answer."""
        calls = llm.get_tool_calls_from_response(reply.native)
        results = [
            ChatMessage(role="tool", content="Sunny.", additional_kwargs={"tool_call_id": call.tool_id})
            for call in calls
        ]
        history = [ChatMessage(ASK_WEATHER), reply.native.message, *results]
        return str(llm.chat_with_tools([get_weather], chat_history=history).message.content)

    def run_agent(self, llm: Any) -> str:
        from llama_index.core.agent.workflow import FunctionAgent

        async def ended() -> Any:
            return await FunctionAgent(llm=llm, tools=[get_weather]).run(ASK_WEATHER)

        return str(asyncio.run(ended()))

    def structured(self, llm: Any) -> dict[str, Any]:
        return dict(llm.structured_predict(Person, PromptTemplate(ASK_PERSON)))

    def window(self, llm: Any) -> int | None:
        return int(llm.metadata.context_window)

    def texts(self, llm: Any) -> list[str]:
        """Return the texts in which a model ends up in logs and files."""
        return [repr(llm), str(llm), str(llm.to_dict())]

    def is_overflow(self, error: Exception) -> bool:
        """LlamaIndex has no class for it, so any that names it will do."""
        return "ContextOverflow" in type(error).__name__ or "ContextLength" in type(error).__name__

    def embed(self, embeddings: Any) -> list[float]:
        return list(embeddings.get_text_embedding("Hello"))


def _raw_usage(raw: Any) -> dict[str, int | None]:
    raw = raw.model_dump() if isinstance(raw, BaseModel) else raw or {}
    usage = raw.get("usage") or {}
    usage = usage.model_dump() if isinstance(usage, BaseModel) else usage
    return {
        "input": usage.get("prompt_tokens"),
        "output": usage.get("completion_tokens"),
        "cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        "reasoning": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens"),
    }


@feature("Reasoning", "`thinking_delta` on every streamed response, which agents pass on", "llamaindex")
def thinking_delta(t: LlamaIndex) -> None:
    t.wire.script({"content": "Blue.", "reasoning": REASONING})
    seen = [r.additional_kwargs.get("thinking_delta") or "" for r in t.make().stream_chat([ChatMessage(PROMPT)])]
    equal("".join(seen), REASONING, "deltas")


@feature("Tools and structured output", "Structured output streamed: objects that grow, strings included", "llamaindex")
def structured_stream(t: LlamaIndex) -> None:
    def grow(llm: Any) -> None:
        objects = list(llm.stream_structured_predict(Person, PromptTemplate(ASK_PERSON)))
        equal(dict(objects[-1]), {"name": "Ada Lovelace", "age": 36}, "last object")
        names = [seen.name for seen in objects]
        expect(any(name and name != "Ada Lovelace" for name in names), f"names as they came: {names!r}")

    arguments = '{"name": "Ada Lovelace", "age": 36}'
    t.wire.script({"content": None, "tool_calls": [{"name": "Person", "arguments": arguments}]})
    grow(t.make())


@feature("Tools and structured output", "The caller's `chat_history` is not modified", "llamaindex")
def history_untouched(t: LlamaIndex) -> None:
    history = [ChatMessage("Hello"), ChatMessage(role="assistant", content="Hello.")]
    t.make().chat_with_tools([get_weather], user_msg="And now?", chat_history=history)
    equal(len(history), 2, "messages in it afterwards")
