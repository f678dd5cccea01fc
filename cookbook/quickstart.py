"""Run a LangChain chain, a LlamaIndex query engine and one agent per framework.

With EMPIRIOLABS_API_KEY set, they use the live gateway. Without it, they use the
sandbox on this machine, where a small language model (SmolLM2, 135M parameters)
answers. The requests are real; do not expect good answers from so small a model.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from pathlib import Path

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import Settings, SimpleDirectoryReader, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler

from empiriolabs_core.sandbox import stand_in
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

HERE = Path(__file__).parent


def connect() -> None:
    """Use the live gateway if a key is set, else the sandbox on this machine."""
    try:
        stand_in(local_model=True)
    except ImportError as error:
        print(error)
        stand_in()


def langchain_chain() -> None:
    """Stream a chain's reasoning and answer."""
    # A seed makes the answer reproducible. At temperature 0, so small a model would
    # repeat itself endlessly. The gateway's page for V4 does not list `seed`.
    warnings.filterwarnings("ignore", message="The card of .* 'seed'")
    llm = ChatEmpirioLabs(
        model="deepseek-v4-flash",
        thinking_budget=64,
        max_tokens=160,
        model_kwargs={"seed": 7},
    )
    prompt = ChatPromptTemplate.from_messages(
        [("human", "What is the color of {thing}?")]
    )

    message = None
    for chunk in (prompt | llm).stream({"thing": "the sky on a clear day"}):
        print(chunk.additional_kwargs.get("reasoning_content", ""), end="", flush=True)
        if chunk.content and not (message and message.content):
            print("\n  -- answer --")
        print(chunk.content, end="", flush=True)
        message = chunk if message is None else message + chunk
    print(f"\n{message.usage_metadata}")

    print(
        "\nAs a plain string:",
        (prompt | llm | StrOutputParser()).invoke({"thing": "a ripe banana"}),
    )


def llamaindex_query_engine() -> None:
    """Answer a question about a document with an index that needs no embeddings."""
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter])
    llm = EmpirioLabs(
        model="deepseek-v4-flash", enable_thinking=False, temperature=0, max_tokens=160
    )
    reader = SimpleDirectoryReader(input_files=[HERE / "aurora_station.md"])
    documents = reader.load_data()
    index = SummaryIndex.from_documents(documents)
    response = index.as_query_engine(llm=llm, streaming=True).query(
        "What is the generator of Aurora Station named?"
    )
    response.print_response_stream()
    prompt, answer = counter.prompt_llm_token_count, counter.completion_llm_token_count
    print(f"\n{prompt} prompt tokens, {answer} answer tokens")


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny and 21 degrees in {city or 'town'}."


def langchain_agent() -> None:
    """Let a LangChain agent call a tool and answer."""
    from langchain.agents import create_agent

    llm = ChatEmpirioLabs(model="deepseek-v4-flash", temperature=0, max_tokens=120)
    agent = create_agent(llm, [get_weather])
    state = agent.invoke(
        {"messages": "Use get_weather for the city of Paris."}, {"recursion_limit": 6}
    )
    for message in state["messages"]:
        called = (
            [call["name"] for call in message.tool_calls]
            if message.type == "ai"
            else []
        )
        print(f"  {message.type}: {message.content or called}")


async def llamaindex_agent() -> None:
    """Let a LlamaIndex agent call a tool and answer."""
    llm = EmpirioLabs(model="deepseek-v4-flash", temperature=0, max_tokens=120)
    agent = FunctionAgent(llm=llm, tools=[get_weather])
    response = await agent.run(
        "Use get_weather for the city of Paris.", max_iterations=4
    )
    print(f"  called: {[call.tool_name for call in response.tool_calls]}\n  {response}")


def each_endpoint() -> None:
    """Send the same question to all three endpoints."""
    for endpoint in ("chat/completions", "responses", "messages"):
        llm = ChatEmpirioLabs(
            model="deepseek-v4-flash",
            endpoint=endpoint,
            enable_thinking=False,
            max_tokens=40,
        )
        message = llm.invoke("Say hello in one sentence.")
        tokens = message.usage_metadata["input_tokens"]
        print(f"  {endpoint}: {message.content!r}, {tokens} prompt tokens")


def main() -> None:
    """Run all examples."""
    connect()
    print("\n== LangChain: a chain that streams reasoning and answer ==")
    langchain_chain()
    print("\n== LlamaIndex: a query engine over a document ==")
    llamaindex_query_engine()
    print("\n== LangChain: an agent with a tool ==")
    langchain_agent()
    print("\n== LlamaIndex: an agent with a tool ==")
    asyncio.run(llamaindex_agent())
    print("\n== One answer per endpoint ==")
    each_endpoint()


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped.")
