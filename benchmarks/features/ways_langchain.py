"""How a LangChain chat model is used, and the checks that only LangChain has."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from langchain_core.load import dumps
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from .subject import (
    ASK_PERSON,
    ASK_WEATHER,
    CALL,
    MODEL,
    PROMPT,
    REASONING,
    Reply,
    Subject,
    equal,
    expect,
    feature,
    several,
)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


class LangChain(Subject):
    framework = "langchain"

    def ask(self, llm: Any, prompt: Any = PROMPT, **call: Any) -> Reply:
        return self.read(llm.invoke(prompt, **call))

    async def aask(self, llm: Any) -> Reply:
        return self.read(await llm.ainvoke(PROMPT))

    def stream(self, llm: Any) -> Reply:
        return self.read(_added(list(llm.stream(PROMPT))))

    async def astream(self, llm: Any) -> Reply:
        return self.read(_added([chunk async for chunk in llm.astream(PROMPT)]))

    def read(self, message: Any) -> Reply:
        blocks = message.content_blocks
        in_blocks = "".join(block.get("reasoning", "") for block in blocks if block["type"] == "reasoning")
        usage = message.usage_metadata or {}
        cited = [note for block in blocks for note in block.get("annotations") or () if note["type"] == "citation"]
        kept = {**message.response_metadata, **message.additional_kwargs}
        return Reply(
            text=message.text,
            reasoning=message.additional_kwargs.get("reasoning_content") or in_blocks,
            in_blocks=in_blocks,
            usage={
                "input": usage.get("input_tokens"),
                "output": usage.get("output_tokens"),
                "cached": usage.get("input_token_details", {}).get("cache_read"),
                "reasoning": usage.get("output_token_details", {}).get("reasoning"),
            },
            raw_usage={},
            citations=[note.get("url", "") for note in cited],
            cost=next((value for name, value in kept.items() if "cost" in name), None),
            native=message,
        )

    def calls(self, llm: Any, reply: Reply) -> list[tuple[str, Any]]:
        return [(call["name"], call["args"]) for call in reply.native.tool_calls]

    def calls_not_taken(self, reply: Reply) -> int:
        """Return how many calls the message holds as invalid ones."""
        return len(reply.native.invalid_tool_calls)

    def ask_tool(
        self, llm: Any, prompt: str = ASK_WEATHER, *, choice: str | None = None, stream: bool = False
    ) -> Reply:
        bound = llm.bind_tools([get_weather], **({} if choice is None else {"tool_choice": choice}))
        return self.read(_added(list(bound.stream(prompt))) if stream else bound.invoke(prompt))

    def answer_tool(self, llm: Any, reply: Reply) -> str:
        """Send a tool's result after the message that called it, and return the answer."""
        return str(self._go_on(llm, reply.native).text)

    def _go_on(self, llm: Any, message: Any) -> Any:
        expect(bool(message.tool_calls), f"no tool call in {message.content_blocks!r}")
        results = [ToolMessage("Sunny.", tool_call_id=call["id"]) for call in message.tool_calls]
        return llm.bind_tools([get_weather]).invoke([HumanMessage(ASK_WEATHER), message, *results])

    def run_agent(self, llm: Any) -> str:
        from langchain.agents import create_agent

        ended = create_agent(llm, tools=[get_weather]).invoke({"messages": [HumanMessage(ASK_WEATHER)]})
        return str(ended["messages"][-1].text)

    def structured(self, llm: Any, **options: Any) -> dict[str, Any]:
        return dict(llm.with_structured_output(Person, **options).invoke(f"{ASK_PERSON} Answer in JSON."))

    def window(self, llm: Any) -> int | None:
        return (llm.profile or {}).get("max_input_tokens")

    def texts(self, llm: Any) -> list[str]:
        """Return the texts in which a model ends up in logs and files."""
        return [repr(llm), str(llm), dumps(llm)]

    def is_overflow(self, error: Exception) -> bool:
        from langchain_core.exceptions import ContextOverflowError

        return isinstance(error, ContextOverflowError)

    def embed(self, embeddings: Any) -> list[float]:
        return list(embeddings.embed_query("Hello"))


def _added(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


@feature("Reasoning", 'Sent back from `output_version="v1"` messages, whole and streamed', "langchain")
def v1_goes_back(t: LangChain) -> None:
    def loop(stream: bool) -> None:
        t.wire.script(CALL)
        llm = t.make(output_version="v1")
        t.answer_tool(llm, t.ask_tool(llm, stream=stream))
        equal(t.bodies()[-1]["messages"][1].get("reasoning_content"), REASONING, "sent back")

    several(t, {"whole": lambda: loop(False), "streamed": lambda: loop(True)})


@feature("Reasoning", "Sent back from `stream_events` version 3", "langchain")
def v3_goes_back(t: LangChain) -> None:
    t.wire.script(CALL)
    llm = t.make()
    t._go_on(llm, llm.bind_tools([get_weather]).stream_events(ASK_WEATHER, version="v3").output)
    equal(t.bodies()[-1]["messages"][1].get("reasoning_content"), REASONING, "sent back")


@feature("Reasoning", "Standard blocks of a streamed tool call: separate blocks for reasoning and call", "langchain")
def v1_stream_blocks(t: LangChain) -> None:
    t.wire.script(CALL)
    message = t.ask_tool(t.make(output_version="v1"), stream=True).native
    found = [(block["type"], block.get("reasoning") or block.get("args")) for block in message.content_blocks]
    equal(found, [("reasoning", REASONING), ("tool_call", {"city": "Paris"})], "blocks")


def _as_person(t: LangChain, method: str) -> None:
    t.wire.script({"content": '{"name": "Ada", "age": 36}', "reasoning": REASONING})
    equal(t.structured(t.make(), method=method), {"name": "Ada", "age": 36}, "parsed")


@feature("Tools and structured output", "Structured output by `json_mode`", "langchain")
def json_mode(t: LangChain) -> None:
    _as_person(t, "json_mode")


@feature(
    "Tools and structured output",
    "Structured output by `json_schema`, with a model that has only JSON mode",
    "langchain",
)
def json_schema(t: LangChain) -> None:
    _as_person(t, "json_schema")


@feature("Tokens and costs", "Token counting without a network", "langchain")
def counts_offline(t: LangChain) -> None:
    def unreachable(*arguments: Any, **named: Any) -> Any:
        raise OSError("There is no network.")

    # Neither a tokenizer that this machine has kept nor the network of this machine may help.
    with (
        mock.patch.dict("os.environ", {"TIKTOKEN_CACHE_DIR": ""}),
        mock.patch.object(socket, "getaddrinfo", unreachable),
        mock.patch.object(socket.socket, "connect", unreachable),
    ):
        tokens = t.make().get_num_tokens_from_messages([HumanMessage("The generator is named Gertrude.")])
    expect(3 <= tokens <= 30, f"counted {tokens}")


@feature("Fields", "Supported by `init_chat_model`", "langchain")
def by_init_chat_model(t: LangChain) -> None:
    from langchain.chat_models import init_chat_model

    connection = {"base_url": t.wire.base_url, "api_key": t.wire.api_key}
    made = init_chat_model(MODEL, model_provider=t.peer.provider, **connection)
    equal(type(made), type(t.make()), "class")
