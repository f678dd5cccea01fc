"""A LangChain chain and a LlamaIndex query engine, through this package, over a real socket.

With EMPIRIOLABS_API_KEY set they talk to the live gateway. Without it they talk to the sandbox on this
machine, where a small language model (SmolLM2, 135M parameters) answers: expect the wire, not wisdom.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import Settings, SimpleDirectoryReader, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

HERE = Path(__file__).parent


@contextlib.contextmanager
def gateway() -> Iterator[dict[str, str]]:
    """Yield the arguments that say where to connect, and tell the reader."""
    if os.environ.get("EMPIRIOLABS_API_KEY"):
        print("Using the live gateway, since EMPIRIOLABS_API_KEY is set.")
        yield {}
        return
    try:
        sandbox = Sandbox(local_model=True).start()
    except ImportError as error:
        print(f"Using scripted answers. {error}")
        sandbox = Sandbox().start()
    else:
        print("Using the sandbox on this machine, with a real but very small language model.")
    try:
        yield {"base_url": sandbox.base_url, "api_key": sandbox.api_key}
    finally:
        sandbox.stop()


def langchain_chain(where: dict[str, str]) -> None:
    """Stream a chain's reasoning and answer."""
    llm = ChatEmpirioLabs(model="deepseek-v4-flash", thinking_budget=64, max_tokens=160, **where)
    prompt = ChatPromptTemplate.from_messages([("human", "What is the color of {thing}?")])

    message = None
    for chunk in (prompt | llm).stream({"thing": "the sky on a clear day"}):
        print(chunk.additional_kwargs.get("reasoning_content", ""), end="", flush=True)
        if chunk.content and not (message and message.content):
            print("\n  -- answer --")
        print(chunk.content, end="", flush=True)
        message = chunk if message is None else message + chunk
    print(f"\n{message.usage_metadata}")

    print("\nAs a plain string:", (prompt | llm | StrOutputParser()).invoke({"thing": "a ripe banana"}))


def llamaindex_query_engine(where: dict[str, str]) -> None:
    """Answer a question from the handbook beside this file. The index needs no embeddings."""
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter])
    llm = EmpirioLabs(model="deepseek-v4-flash", enable_thinking=False, max_tokens=160, **where)
    documents = SimpleDirectoryReader(input_files=[HERE / "aurora_station.md"]).load_data()
    index = SummaryIndex.from_documents(documents)
    response = index.as_query_engine(llm=llm, streaming=True).query("What is the generator of Aurora Station named?")
    response.print_response_stream()
    print(f"\n{counter.prompt_llm_token_count} tokens of prompt, {counter.completion_llm_token_count} of answer")


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny and 21 degrees in {city or 'town'}."


def langchain_agent(where: dict[str, str]) -> None:
    """Let a LangChain agent call a tool and answer."""
    from langchain.agents import create_agent

    llm = ChatEmpirioLabs(model="deepseek-v4-flash", max_tokens=60, **where)
    agent = create_agent(llm, [get_weather])
    state = agent.invoke({"messages": "Use get_weather for the city of Paris."}, {"recursion_limit": 6})
    for message in state["messages"]:
        print(f"  {message.type}: {message.content or [call['name'] for call in message.tool_calls]}")


async def llamaindex_agent(where: dict[str, str]) -> None:
    """Let a LlamaIndex agent call a tool and answer."""
    llm = EmpirioLabs(model="deepseek-v4-flash", max_tokens=60, **where)
    agent = FunctionAgent(llm=llm, tools=[get_weather])
    response = await agent.run("Use get_weather for the city of Paris.", max_iterations=4)
    print(f"  called: {[call.tool_name for call in response.tool_calls]}\n  {response}")


def main() -> None:
    """Run the four."""
    with gateway() as where:
        print("\n== LangChain: a chain that streams reasoning and answer ==")
        langchain_chain(where)
        print("\n== LlamaIndex: a query engine over a document ==")
        llamaindex_query_engine(where)
        print("\n== LangChain: an agent with a tool ==")
        langchain_agent(where)
        print("\n== LlamaIndex: an agent with a tool ==")
        asyncio.run(llamaindex_agent(where))


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped.")
