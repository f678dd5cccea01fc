"""Two deliberately faulty models over the OpenAI client, which show that each check of the feature table can fail.

They drop reasoning, usage and settings, swallow errors, keep clients and the key, and never time out.
"""

from __future__ import annotations

import json
import ssl
from typing import Any

import openai
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from benchmarks.features.subject import MODEL, Peer

TLS = ssl.create_default_context()
Calls = list[tuple[str, str, dict[str, Any]]]


def ask(llm: Any, messages: list[Any], tools: Any) -> tuple[str, Calls]:
    """Return the text and the tool calls of an answer, or nothing after an error."""
    try:
        reply = llm.client.chat.completions.create(model=MODEL, messages=messages, tools=tools or openai.NOT_GIVEN)
        return _read(reply)
    except Exception:
        return "", []


async def aask(llm: Any, messages: list[Any]) -> tuple[str, Calls]:
    return _read(await llm.async_client.chat.completions.create(model=MODEL, messages=messages))


def _read(reply: Any) -> tuple[str, Calls]:
    message = reply.choices[0].message
    calls = [(call.id, call.function.name, _arguments(call.function.arguments)) for call in message.tool_calls or ()]
    return f"{message.content}!", calls


def _arguments(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def clients(url: str, api_key: str | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"base_url": url, "api_key": api_key, "timeout": None}
    http, async_http = openai.DefaultHttpxClient(verify=TLS), openai.DefaultAsyncHttpxClient(verify=TLS)
    return {
        "client": openai.OpenAI(max_retries=4, http_client=http, **settings),
        "async_client": openai.AsyncOpenAI(max_retries=0, http_client=async_http, **settings),
    }


class CarelessChat(BaseChatModel):
    api_key: str | None
    client: Any
    async_client: Any

    @property
    def _llm_type(self) -> str:
        return "careless"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._result(ask(self, convert_to_openai_messages(messages), kwargs.get("tools")))

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._result(await aask(self, convert_to_openai_messages(messages)))

    def _result(self, answer: tuple[str, Calls]) -> ChatResult:
        calls: Any = [{"id": call_id, "name": name, "args": arguments} for call_id, name, arguments in answer[1]]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(answer[0], tool_calls=calls))])


class CarelessLLM(FunctionCallingLLM):
    api_key: str | None
    client: Any
    async_client: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, is_function_calling_model=True)

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        tools = [tool.metadata.to_openai_tool() for tool in kwargs.get("tools") or ()]
        return self._response(ask(self, self._wire(messages), tools))

    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return self._response(await aask(self, self._wire(messages)))

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return iter([self.chat(messages, **kwargs)])

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        async def stream() -> Any:
            yield await self.achat(messages, **kwargs)

        return stream()

    def complete(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    acomplete = stream_complete = astream_complete = complete  # type: ignore[assignment]

    def _wire(self, messages: Any) -> list[Any]:
        return [{"role": message.role.value, "content": message.content or ""} for message in messages]

    def _response(self, answer: tuple[str, Calls]) -> ChatResponse:
        return ChatResponse(message=ChatMessage(answer[0], role="assistant"), raw={"calls": answer[1]})

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **_: Any
    ) -> dict[str, Any]:
        messages = [] if chat_history is None else chat_history
        if user_msg is not None:
            messages.append(ChatMessage(user_msg))
        return {"messages": messages, "tools": tools}

    def get_tool_calls_from_response(self, response: Any, *_: Any, **__: Any) -> list[ToolSelection]:
        return [ToolSelection(tool_id=i, tool_name=name, tool_kwargs=args) for i, name, args in response.raw["calls"]]


class NoVectors:
    def embed_query(self, text: str) -> list[float]:
        return []

    get_text_embedding = embed_query


def chat(url: str, *, api_key: str | None, **settings: Any) -> Any:
    return CarelessChat(api_key=api_key, **clients(url, api_key))


def llm(url: str, *, api_key: str | None, **settings: Any) -> Any:
    return CarelessLLM(api_key=api_key, **clients(url, api_key))


CARELESS = {
    "langchain": Peer("careless", "langchain", (), chat, embeddings=lambda **_: NoVectors(), provider="careless"),
    "llamaindex": Peer("careless", "llamaindex", (), llm, embeddings=lambda **_: NoVectors()),
}
