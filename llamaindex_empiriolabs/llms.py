"""`EmpirioLabs`: EmpirioLabs models as a LlamaIndex LLM."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.instrumentation.events.llm import LLMStructuredPredictEndEvent, LLMStructuredPredictStartEvent
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools.calling import acall_tool_with_selection, call_tool_with_selection
from llama_index.core.tools.types import ToolMetadata, ToolOutput
from llama_index.core.types import Model
from llama_index_instrumentation import get_dispatcher
from pydantic import ConfigDict, Field
from typing_extensions import Unpack

from empiriolabs_core.arguments import hide_headers
from empiriolabs_core.costs import astream_here, stream_here
from empiriolabs_core.errors import NoToolCallError, SettingsError, excerpt
from empiriolabs_core.gateway import Request
from empiriolabs_core.settings import Settings
from empiriolabs_core.tool_calls import plain_name
from llamaindex_empiriolabs.calling import called, not_run, with_strict
from llamaindex_empiriolabs.messages import (
    StreamedMessage,
    chat_response,
    completion_response,
    one_call_only,
    to_wire,
    tool_choice_to_wire,
    tool_selections,
)
from llamaindex_empiriolabs.observation import observed
from llamaindex_empiriolabs.structured import FUNCTION_MODES, GrowingObject, call_arguments, object_tool, read_object

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.tools.types import BaseTool

    from llamaindex_empiriolabs.signatures import LLMArguments

dispatcher = get_dispatcher(__name__)

DEFAULT_CONTEXT_WINDOW = 128_000
"""Context window in tokens of a model without a card. A high value is safer: if it is too large, requests are
rejected; if it is too small, history is dropped silently."""

DEFAULT_NUM_OUTPUT = 4096
"""The gateway's default of `max_tokens`, in tokens."""


class EmpirioLabs(Settings, FunctionCallingLLM):
    """An EmpirioLabs model in LlamaIndex.

    ```python
    llm = EmpirioLabs(model="deepseek-v4-flash", thinking_budget=8192)
    response = llm.chat([ChatMessage("What is new in Python?")])
    response.message.blocks, response.additional_kwargs["total_tokens"]
    ```

    The key is read from `EMPIRIOLABS_API_KEY`, the URL from `EMPIRIOLABS_API_BASE`. All arguments are fields of
    `empiriolabs_core.settings.Settings`, or LlamaIndex's own. Standard Chat Completions fields, such as
    `seed=7`, are accepted too, in the constructor or in a call.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    context_window: int | None = Field(default=None, ge=1)
    """Context window: tokens of prompt and answer together, 1 or more. Default: the value on the model's card, or
    128,000 without a card."""

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[LLMArguments]) -> None: ...

    @classmethod
    def class_name(cls) -> str:
        """Return the class name used in serialised data."""
        return "EmpirioLabs_LLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Properties of the model, for query engines, agents and memories."""
        card_window = self.card.context_window if self.card else None
        window = self.context_window or card_window or DEFAULT_CONTEXT_WINDOW
        return LLMMetadata(
            context_window=window,
            # LlamaIndex subtracts it from the window, and raises an error if nothing is left for the prompt.
            num_output=min(self.max_tokens or DEFAULT_NUM_OUTPUT, max(window // 2, 1)),
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.model,
            system_role=MessageRole.SYSTEM,
        )

    # The decorators of the public methods emit events. No public method calls another public method, so that each
    # call emits one pair of events.

    @observed(llm_chat_callback())
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the answer to a conversation."""
        return self._chat(self._request(messages, kwargs, stream=False))

    @observed(llm_chat_callback())
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the answer to a conversation."""
        return await self._achat(self._request(messages, kwargs, stream=False))

    @observed(llm_chat_callback())
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the answer to a conversation while it is generated."""
        return self._stream_chat(self._request(messages, kwargs, stream=True))

    @observed(llm_chat_callback())
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Return a generator that yields the answer to a conversation while it is generated."""
        return self._astream_chat(self._request(messages, kwargs, stream=True))

    @observed(llm_completion_callback())
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the answer to a prompt."""
        request = self._request(self._as_messages(prompt, formatted), kwargs, stream=False)
        return completion_response(self._chat(request))

    @observed(llm_completion_callback())
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the answer to a prompt."""
        request = self._request(self._as_messages(prompt, formatted), kwargs, stream=False)
        return completion_response(await self._achat(request))

    @observed(llm_completion_callback())
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield the answer to a prompt while it is generated."""
        request = self._request(self._as_messages(prompt, formatted), kwargs, stream=True)
        return (completion_response(response) for response in self._stream_chat(request))

    @observed(llm_completion_callback())
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Return a generator that yields the answer to a prompt while it is generated."""
        request = self._request(self._as_messages(prompt, formatted), kwargs, stream=True)
        return (completion_response(response) async for response in self._astream_chat(request))

    def _chat(self, request: Request) -> ChatResponse:
        return chat_response(self.gateway.complete(request), request.body)

    async def _achat(self, request: Request) -> ChatResponse:
        return chat_response(await self.gateway.acomplete(request), request.body)

    def _stream_chat(self, request: Request) -> ChatResponseGen:
        return stream_here(self._responses(request))

    def _astream_chat(self, request: Request) -> ChatResponseAsyncGen:
        return astream_here(self._aresponses(request))

    def _responses(self, request: Request) -> ChatResponseGen:
        streamed = StreamedMessage(request.body)
        with closing(self.gateway.stream(request)) as chunks:
            for chunk in chunks:
                response = streamed.add(chunk)
                if response is not None:
                    yield response
        yield streamed.finish()

    async def _aresponses(self, request: Request) -> ChatResponseAsyncGen:
        streamed = StreamedMessage(request.body)
        async with aclosing(self.gateway.astream(request)) as chunks:
            async for chunk in chunks:
                response = streamed.add(chunk)
                if response is not None:
                    yield response
        yield streamed.finish()

    def _as_messages(self, prompt: str, formatted: bool) -> list[ChatMessage]:
        if not isinstance(prompt, str):
            raise SettingsError(f"prompt must be a str, got {excerpt(prompt)}.")
        convert = self.completion_to_prompt
        return [ChatMessage(role=MessageRole.USER, content=prompt if formatted or not convert else convert(prompt))]

    def _request(self, messages: Sequence[ChatMessage], call: dict[str, Any], *, stream: bool) -> Request:
        hide_headers(call)
        request = self.request(to_wire(messages), call, stream=stream)
        if request.body.get("n", 1) != 1:
            raise SettingsError(
                f"n must be 1, got {request.body['n']}: a LlamaIndex response contains one answer. Make several calls."
            )
        return request

    # Tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of a chat with tools. A `tool_choice` other than `None` overrides `tool_required`."""
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg)
        specs = [with_strict(_spec(tool), strict) for tool in tools]
        choice = tool_choice_to_wire(tool_choice, specs, required=tool_required)
        named = {"tools": specs, "tool_choice": choice, **kwargs}
        return {"messages": messages, **{name: value for name, value in named.items() if value not in (None, [])}}

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Yield the answer while it is generated. Without `allow_parallel_tool_calls`, only its first call is kept."""
        hide_headers(kwargs)
        responses = super().stream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )
        return responses if allow_parallel_tool_calls else _one_call_each(responses)

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Do what `stream_chat_with_tools` does, asynchronously."""
        hide_headers(kwargs)
        responses = await super().astream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )
        return responses if allow_parallel_tool_calls else _aone_call_each(responses)

    def _validate_chat_with_tools_response(
        self, response: ChatResponse, tools: Sequence[BaseTool], allow_parallel_tool_calls: bool = False, **kwargs: Any
    ) -> ChatResponse:
        return response if allow_parallel_tool_calls else one_call_only(response)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tool calls of a response, which may be complete or still being streamed.

        Agents call this method without `error_on_no_tool_call`. A call that was truncated or has invalid JSON arguments
        is then returned under a placeholder name. No tool has this name, so the agent does not run the call, and the
        model receives the reason.

        Raises:
            NoToolCallError: if the response has no calls and `error_on_no_tool_call` is set.
            InvalidToolArgumentsError: if the response is complete, a call was truncated or its arguments are not a JSON
                object, and `error_on_no_tool_call` is set.
        """
        calls = tool_selections(response, invalid_too=not error_on_no_tool_call)
        if not calls and error_on_no_tool_call:
            raise NoToolCallError(f"The model called no tool. It said: {response.message.content!r}.")
        return calls

    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Request tool calls from the model, run them, and return their outputs.

        For a call that cannot be run, because no tool has its name or its arguments are unusable, the output has
        `is_error` set.

        Raises:
            NoToolCallError: if the model called no tool, and `error_on_no_tool_call` is set.
            InvalidToolArgumentsError: if arguments are unusable, and `error_on_no_tool_call` is set.
            ToolRunError: if a tool failed, and `error_on_tool_error` is set.
        """
        response = self.chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )
        calls = self.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call)
        outputs = [not_run(call, tools) or call_tool_with_selection(call, tools, verbose=verbose) for call in calls]
        return called(response, outputs, raise_errors=error_on_tool_error)

    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Do what `predict_and_call` does, asynchronously. Tools run concurrently."""
        response = await self.achat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )
        calls = self.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call)

        async def output(call: ToolSelection) -> ToolOutput:
            return not_run(call, tools) or await acall_tool_with_selection(call, tools, verbose=verbose)

        outputs = await asyncio.gather(*map(output, calls))
        return called(response, list(outputs), raise_errors=error_on_tool_error)

    # Structured output

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an instance of a pydantic class. The request forces a tool call, which turns thinking off for it.

        Raises:
            StructuredOutputError: if the model's answer does not match the class.
        """
        llm_kwargs = _discreet(llm_kwargs)
        if self.pydantic_program_mode not in FUNCTION_MODES:
            other: Model = super().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return other
        dispatcher.event(_started(output_cls, prompt, prompt_args))
        call = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        return _predicted(output_cls, self.chat_with_tools(**call))

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an instance of a pydantic class. The request forces a tool call, which turns thinking off for it.

        Raises:
            StructuredOutputError: if the model's answer does not match the class.
        """
        llm_kwargs = _discreet(llm_kwargs)
        if self.pydantic_program_mode not in FUNCTION_MODES:
            other: Model = await super().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
            return other
        dispatcher.event(_started(output_cls, prompt, prompt_args))
        call = self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        return _predicted(output_cls, await self.achat_with_tools(**call))

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        llm_kwargs = _discreet(llm_kwargs)
        if self.pydantic_program_mode not in FUNCTION_MODES:
            yield from super()._structured_stream_call(output_cls, prompt, llm_kwargs, **prompt_args)
            return
        growing = GrowingObject(output_cls)
        for response in self.stream_chat_with_tools(
            **self._structured_call(output_cls, prompt, llm_kwargs, prompt_args)
        ):
            found = growing.add(response)
            if found is not None:
                yield found
        yield growing.finish()

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        llm_kwargs = _discreet(llm_kwargs)
        if self.pydantic_program_mode not in FUNCTION_MODES:
            return await super()._structured_astream_call(output_cls, prompt, llm_kwargs, **prompt_args)
        return self._agrow(output_cls, self._structured_call(output_cls, prompt, llm_kwargs, prompt_args))

    async def _agrow(self, output_cls: type[Model], call: dict[str, Any]) -> AsyncGenerator[Any, None]:
        growing = GrowingObject(output_cls)
        async for response in await self.astream_chat_with_tools(**call):
            found = growing.add(response)
            if found is not None:
                yield found
        yield growing.finish()

    def _structured_call(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> dict[str, Any]:
        return {
            **call_arguments(llm_kwargs),
            "tools": [object_tool(output_cls)],
            "chat_history": self._extend_messages(prompt.format_messages(llm=self, **prompt_args)),
            "tool_required": True,
        }


def _one_call_each(responses: ChatResponseGen) -> ChatResponseGen:
    with closing(responses):
        for response in responses:
            yield one_call_only(response)


async def _aone_call_each(responses: ChatResponseAsyncGen) -> ChatResponseAsyncGen:
    async with aclosing(responses):
        async for response in responses:
            yield one_call_only(response)


def _discreet(llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return a call's arguments, with header values that do not appear in a repr."""
    shown = dict(llm_kwargs or {})
    hide_headers(shown)
    return shown


def _check_tool(tool: BaseTool) -> None:
    """Raise `SettingsError` if a value is not a tool, or its name would have to be changed to be sent."""
    if not hasattr(tool, "metadata"):
        raise SettingsError(f"{excerpt(repr(tool))} is not a tool. Wrap a function in FunctionTool.from_defaults(...).")
    name = tool.metadata.name or ""
    if plain_name(name) != name:
        raise SettingsError(
            f"A tool name must have 1 to 64 letters, digits, _ or -, got {name!r}. Rename it, for example to "
            f"{plain_name(name)!r}."
        )


def _spec(tool: BaseTool) -> dict[str, Any]:
    """Return a wire tool. For a class that refers to itself, add the reference that LlamaIndex leaves out."""
    _check_tool(tool)
    metadata = tool.metadata
    if type(metadata) is not ToolMetadata:
        return _convert(metadata)
    spec = _cached_spec(metadata.name, metadata.description, metadata.fn_schema)
    return {**spec, "function": dict(spec["function"])}


@functools.lru_cache(maxsize=1024)
def _cached_spec(name: str | None, description: str, fn_schema: Any) -> dict[str, Any]:
    """Return a wire tool, cached: building a schema takes a third of a millisecond, and agents have many tools."""
    return _convert(ToolMetadata(name=name, description=description, fn_schema=fn_schema))


def _convert(metadata: ToolMetadata) -> dict[str, Any]:
    spec: dict[str, Any] = metadata.to_openai_tool(skip_length_check=True)
    fn_schema = metadata.fn_schema
    if fn_schema is None or "type" in spec["function"]["parameters"]:
        return spec
    whole = fn_schema.model_json_schema()
    definitions = whole.get("$defs", {})
    target = definitions.get(whole.get("$ref", "").rpartition("/")[2])
    if target is None:
        return spec
    return {**spec, "function": {**spec["function"], "parameters": {**target, "$defs": definitions}}}


def _started(output_cls: type[Model], prompt: PromptTemplate, args: dict[str, Any]) -> LLMStructuredPredictStartEvent:
    return LLMStructuredPredictStartEvent(output_cls=output_cls, template=prompt, template_args=args)


def _predicted(output_cls: type[Model], response: ChatResponse) -> Model:
    """Return the object of an answer, and emit the event of structured prediction."""
    found = read_object(tool_selections(response), response, output_cls)
    dispatcher.event(LLMStructuredPredictEndEvent(output=found))
    return found
