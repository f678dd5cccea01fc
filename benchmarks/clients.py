"""The measured clients: each is a function of base URL and model. Run a client in a separate process:

    python -m benchmarks.clients CLIENT CASE BASE_URL ROUNDS

prints the CPU seconds of every round as JSON. The functions contain their imports, so that a process loads only
one client.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

Run = Callable[[], Any]
PROMPT = "Hello"


def openai_typed(base_url: str, model: str, stream: bool) -> Run:
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="k")
    messages: Any = [{"role": "user", "content": PROMPT}]

    def run() -> None:
        reply: Any = client.chat.completions.create(model=model, messages=messages, stream=stream)
        for chunk in reply if stream else ():
            if chunk.choices:
                _ = chunk.choices[0].delta.content

    return run


def openai_dicts(base_url: str, model: str, stream: bool) -> Run:
    """The OpenAI client below its typed layer: the cost of its HTTP and its event decoding."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="k")
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}

    def run() -> None:
        path = "/chat/completions"
        with client.post(path, body=body, cast_to=object, stream=True, stream_cls=openai.Stream[object]) as chunks:
            for _ in chunks:
                pass

    return run


def langchain_ours(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    return _langchain(ChatEmpirioLabs(model=model, base_url=base_url, api_key="k"), stream)


def langchain_ours_responses(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    return _langchain(ChatEmpirioLabs(model=model, base_url=base_url, api_key="k", endpoint="responses"), stream)


def langchain_ours_messages(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    return _langchain(ChatEmpirioLabs(model=model, base_url=base_url, api_key="k", endpoint="messages"), stream)


def langchain_openai_responses(base_url: str, model: str, stream: bool) -> Run:
    from langchain_openai import ChatOpenAI

    llm: Any = ChatOpenAI
    return _langchain(llm(model=model, base_url=base_url, api_key="k", use_responses_api=True), stream)


def langchain_anthropic(base_url: str, model: str, stream: bool) -> Run:
    from langchain_anthropic import ChatAnthropic

    llm: Any = ChatAnthropic
    return _langchain(llm(model=model, base_url=base_url.removesuffix("/v1"), api_key="k", max_tokens=4096), stream)


def langchain_ours_async(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    llm = ChatEmpirioLabs(model=model, base_url=base_url, api_key="k")

    async def consume() -> None:
        async for _ in llm.astream(PROMPT):
            pass

    return lambda: asyncio.run(consume())


def langchain_vendor(base_url: str, model: str, stream: bool) -> Run:
    return langchain_ours(base_url, model, stream)  # The same import name, in an environment of its own.


def langchain_openai(base_url: str, model: str, stream: bool) -> Run:
    from langchain_openai import ChatOpenAI

    return _langchain(ChatOpenAI(model=model, base_url=base_url, api_key="k"), stream)  # type: ignore[arg-type]


def langchain_deepseek(base_url: str, model: str, stream: bool) -> Run:
    from langchain_deepseek import ChatDeepSeek

    return _langchain(ChatDeepSeek(model=model, base_url=base_url, api_key="k"), stream)


def langchain_imports(base_url: str, model: str, stream: bool) -> Run:
    """What importing the OpenAI client and LangChain costs, before this package is imported."""
    modules = ("language_models.chat_models", "messages", "output_parsers", "outputs", "utils.function_calling")
    for name in ("openai", *[f"langchain_core.{module}" for module in modules]):
        importlib.import_module(name)
    return openai_dicts(base_url, model, stream)


def langchain_floor(base_url: str, model: str, stream: bool) -> Run:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

    count = int(model.partition("-")[2] or 1)

    class Floor(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "floor"

        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("Hello."))])

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(count + count // 10):
                yield ChatGenerationChunk(message=AIMessageChunk(content="word "))

    return _langchain(Floor(), stream)


def _langchain(llm: Any, stream: bool) -> Run:
    def run() -> None:
        if stream:
            for _ in llm.stream(PROMPT):
                pass
        else:
            llm.invoke(PROMPT)

    return run


def llamaindex_ours(base_url: str, model: str, stream: bool) -> Run:
    from llamaindex_empiriolabs import EmpirioLabs

    return _llamaindex(EmpirioLabs(model=model, base_url=base_url, api_key="k"), stream)


def llamaindex_ours_handler(base_url: str, model: str, stream: bool) -> Run:
    """The same while an event handler listens, so that LlamaIndex builds an event for each delta."""
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index_instrumentation import get_dispatcher

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            pass

    get_dispatcher().event_handlers.append(Handler())
    return llamaindex_ours(base_url, model, stream)


def llamaindex_ours_long(base_url: str, model: str, stream: bool) -> Run:
    """The same after a conversation of 10,000 messages."""
    from llama_index.core.base.llms.types import ChatMessage

    from llamaindex_empiriolabs import EmpirioLabs

    llm = EmpirioLabs(model=model, base_url=base_url, api_key="k")
    messages = [ChatMessage("Hello", role=role) for _ in range(5000) for role in ("user", "assistant")]

    def run() -> None:
        for _ in llm.stream_chat(messages):
            pass

    return run


def llamaindex_ours_async(base_url: str, model: str, stream: bool) -> Run:
    from llama_index.core.base.llms.types import ChatMessage

    from llamaindex_empiriolabs import EmpirioLabs

    llm = EmpirioLabs(model=model, base_url=base_url, api_key="k")

    async def consume() -> None:
        async for _ in await llm.astream_chat([ChatMessage(PROMPT)]):
            pass

    return lambda: asyncio.run(consume())


def llamaindex_like(base_url: str, model: str, stream: bool) -> Run:
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        model=model, api_base=base_url, api_key="k", is_chat_model=True, is_function_calling_model=True, timeout=600
    )
    return _llamaindex(llm, stream)


def _llamaindex(llm: Any, stream: bool) -> Run:
    from llama_index.core.base.llms.types import ChatMessage

    messages = [ChatMessage(role="user", content=PROMPT)]

    def run() -> None:
        if stream:
            for _ in llm.stream_chat(messages):
                pass
        else:
            llm.chat(messages)

    return run


def llamaindex_floor(base_url: str, model: str, stream: bool) -> Run:
    """A LlamaIndex model that yields constants: the cost of the framework itself."""
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse
    from llama_index.core.llms.callbacks import llm_chat_callback
    from llama_index.core.llms.mock import MockLLM

    count = int(model.partition("-")[2] or 1)

    class Floor(MockLLM):
        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            def stream() -> Any:
                for _ in range(count + count // 10):
                    yield ChatResponse(message=ChatMessage("word ", role="assistant"), delta="word ")

            return stream()

    return _llamaindex(Floor(), stream)


def _write_file(text: str) -> str:
    """Write a file."""
    return "Written."


def agent_ours(base_url: str, model: str, stream: bool) -> Run:
    """A FunctionAgent whose model streams one long tool call."""
    from llamaindex_empiriolabs import EmpirioLabs

    return _agent(EmpirioLabs(model=model, base_url=base_url, api_key="k"))


def agent_floor(base_url: str, model: str, stream: bool) -> Run:
    """A FunctionAgent whose model repeats one constant tool call: the cost of the agent itself."""
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.llms.mock import MockFunctionCallingLLM

    call = ToolCallBlock(tool_call_id="call_1", tool_name="write_file", tool_kwargs={"text": "word"})
    chosen = [ToolSelection(tool_id="call_1", tool_name="write_file", tool_kwargs={"text": "word"})]

    async def answers(messages: Any, **kwargs: Any) -> Any:
        for _ in range(int(model.partition("-")[2])):
            yield ChatMessage(role="assistant", blocks=[call])

    class Floor(MockFunctionCallingLLM):
        def get_tool_calls_from_response(self, *args: Any, **kwargs: Any) -> Any:
            return chosen

    return _agent(Floor(response_generator=answers))


def agent_like(base_url: str, model: str, stream: bool) -> Run:
    from llama_index.llms.openai_like import OpenAILike

    return _agent(
        OpenAILike(
            model=model, api_base=base_url, api_key="k", is_chat_model=True, is_function_calling_model=True, timeout=600
        )
    )


def _agent(llm: Any) -> Run:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.tools import FunctionTool

    tool = FunctionTool.from_defaults(_write_file, name="write_file", return_direct=True)

    async def consume() -> None:
        await FunctionAgent(llm=llm, tools=[tool]).run("Go")

    return lambda: asyncio.run(consume())


def structured_ours(base_url: str, model: str, stream: bool) -> Run:
    """A structured stream of one long text field."""
    from llamaindex_empiriolabs import EmpirioLabs

    return _structured(EmpirioLabs(model=model, base_url=base_url, api_key="k"))


def structured_like(base_url: str, model: str, stream: bool) -> Run:
    from llama_index.llms.openai_like import OpenAILike

    return _structured(
        OpenAILike(
            model=model, api_base=base_url, api_key="k", is_chat_model=True, is_function_calling_model=True, timeout=600
        )
    )


def _structured(llm: Any) -> Run:
    from llama_index.core.prompts import PromptTemplate
    from pydantic import BaseModel

    class Written(BaseModel):
        """The text to write."""

        text: str

    def run() -> None:
        for _ in llm.stream_structured_predict(Written, PromptTemplate("Go")):
            pass

    return run


TEXT = "word " * 400
"""What each message of a long request holds: 2,000 of them are 4 MB, a million tokens."""


def _rounds(model: str) -> range:
    """Rounds of four messages, one of which carries a tool call with its reasoning; `history-2000` asks for 500."""
    return range(int(model.partition("-")[2]) // 4)


def history_json_dumps(base_url: str, model: str, stream: bool) -> Run:
    """The minimum cost of a long request: its json.dumps."""
    turns: list[dict[str, Any]] = []
    for number in _rounds(model):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        turns += [
            {"role": "user", "content": TEXT},
            {"role": "assistant", "content": None, "reasoning_content": TEXT, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": TEXT},
            {"role": "assistant", "content": TEXT},
        ]
    return lambda: json.dumps(turns)


def history_langchain(base_url: str, model: str, stream: bool) -> Run:
    """Build the body of a long request from LangChain messages, and encode it with json.dumps."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    from langchain_empiriolabs import ChatEmpirioLabs

    llm = ChatEmpirioLabs(base_url=base_url, api_key="k")
    messages: list[Any] = []
    for number in _rounds(model):
        call: Any = {"id": f"call_{number}", "name": "f", "args": {}}
        messages += [
            HumanMessage(TEXT),
            AIMessage("", tool_calls=[call], additional_kwargs={"reasoning_content": TEXT}),
            ToolMessage(TEXT, tool_call_id=f"call_{number}"),
            AIMessage(TEXT),
        ]
    return lambda: json.dumps(llm._request(messages, None, {}, stream=False).body)


def history_llamaindex(base_url: str, model: str, stream: bool) -> Run:
    """Build the body of a long request from LlamaIndex messages, and encode it with json.dumps."""
    from llama_index.core.base.llms.types import ChatMessage, TextBlock, ThinkingBlock, ToolCallBlock

    from llamaindex_empiriolabs import EmpirioLabs

    llm = EmpirioLabs(base_url=base_url, api_key="k")
    messages: list[Any] = []
    for number in _rounds(model):
        called = [
            ThinkingBlock(content=TEXT),
            ToolCallBlock(tool_call_id=f"call_{number}", tool_name="f", tool_kwargs={}),
        ]
        messages += [
            ChatMessage(TEXT),
            ChatMessage(role="assistant", blocks=called),
            ChatMessage(role="tool", content=TEXT, additional_kwargs={"tool_call_id": f"call_{number}"}),
            ChatMessage(role="assistant", blocks=[TextBlock(text=TEXT)]),
        ]
    return lambda: json.dumps(llm._request(messages, {}, stream=False).body)


def _many(llm: Any, streams: int) -> Run:
    async def one() -> None:
        async for _ in llm.astream(PROMPT):
            pass

    async def consume() -> None:
        await asyncio.gather(*[one() for _ in range(streams)])

    return lambda: asyncio.run(consume())


STREAMS = 1000


def concurrent_ours(base_url: str, model: str, stream: bool) -> Run:
    """Run a thousand concurrent streams in one event loop."""
    from langchain_empiriolabs import ChatEmpirioLabs

    return _many(ChatEmpirioLabs(model=model, base_url=base_url, api_key="k"), STREAMS)


def concurrent_ours_aiohttp(base_url: str, model: str, stream: bool) -> Run:
    """The same over aiohttp."""
    import openai

    from langchain_empiriolabs import ChatEmpirioLabs

    def run() -> None:
        async def consume() -> None:
            # Each connection needs a place: aiohttp would wait for one otherwise.
            async with openai.DefaultAioHttpClient() as http_client:
                llm = ChatEmpirioLabs(model=model, base_url=base_url, api_key="k", http_async_client=http_client)

                async def one() -> None:
                    async for _ in llm.astream(PROMPT):
                        pass

                await asyncio.gather(*[one() for _ in range(STREAMS)])

        asyncio.run(consume())

    return run


def concurrent_dicts(base_url: str, model: str, stream: bool) -> Run:
    """Run a thousand streams of the OpenAI client below its typed layer, without a framework."""
    import openai

    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": True}

    async def consume() -> None:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="k") as client:

            async def one() -> None:
                path, stream_cls = "/chat/completions", openai.AsyncStream[object]
                async with await client.post(
                    path, body=body, cast_to=object, stream=True, stream_cls=stream_cls
                ) as chunks:
                    async for _ in chunks:
                        pass

            await asyncio.gather(*[one() for _ in range(STREAMS)])

    return lambda: asyncio.run(consume())


def concurrent_vendor(base_url: str, model: str, stream: bool) -> Run:
    def run() -> None:
        # Its asynchronous client belongs to one event loop.
        concurrent_ours(base_url, model, stream)()

    return run


def measure(client: str, case: str, base_url: str, rounds: int) -> dict[str, Any]:
    """Return the CPU seconds of each round, after a warm-up round."""
    started = time.process_time()
    stream = case.startswith(("text", "args", "single"))
    run = globals()[client](base_url, case, stream)
    ready, resting_mb = time.process_time() - started, _peak_mb()
    run()
    seconds = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(1 if stream else 50):
            run()
        seconds.append((time.process_time() - before) / (1 if stream else 50))
    before = time.process_time()
    for _ in range(3):
        globals()[client](base_url, case, stream)
    construction = (time.process_time() - before) / 3
    return {
        "ready": ready,
        "seconds": seconds,
        "construction": construction,
        "peak_mb": _peak_mb(),
        "resting_mb": resting_mb,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
