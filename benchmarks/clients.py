"""What is measured: each client as a function of base URL and model. Run one in a process of its own:

    python -m benchmarks.clients CLIENT CASE BASE_URL ROUNDS

prints the CPU seconds of every round as JSON. Imports are within the functions, so that each process loads
one client only.
"""

from __future__ import annotations

import asyncio
import json
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


def langchain_ours(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    return _langchain(ChatEmpirioLabs(model=model, base_url=base_url, api_key="k"), stream)


def langchain_ours_async(base_url: str, model: str, stream: bool) -> Run:
    from langchain_empiriolabs import ChatEmpirioLabs

    llm = ChatEmpirioLabs(model=model, base_url=base_url, api_key="k")

    async def consume() -> None:
        async for _ in llm.astream(PROMPT):
            pass

    return lambda: asyncio.run(consume())


def langchain_vendor(base_url: str, model: str, stream: bool) -> Run:
    return langchain_ours(base_url, model, stream)  # The same import name, in an environment of its own.


def langchain_deepseek(base_url: str, model: str, stream: bool) -> Run:
    from langchain_deepseek import ChatDeepSeek

    return _langchain(ChatDeepSeek(model=model, base_url=base_url, api_key="k"), stream)


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


def measure(client: str, case: str, base_url: str, rounds: int) -> dict[str, Any]:
    """Return the CPU seconds of each round, after one that does not count."""
    started = time.process_time()
    stream = case != "plain"
    run = globals()[client](base_url, case, stream)
    ready = time.process_time() - started
    run()
    seconds = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(1 if stream else 50):
            run()
        seconds.append((time.process_time() - before) / (1 if stream else 50))
    before = time.process_time()
    for _ in range(10):
        globals()[client](base_url, case, stream)
    return {"ready": ready, "seconds": seconds, "construction": (time.process_time() - before) / 10}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
