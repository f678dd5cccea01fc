"""`ChatEmpirioLabs`: EmpirioLabs models as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import ConfigDict, SecretStr, model_validator
from typing_extensions import Self, Unpack

from empiriolabs_core import __version__
from empiriolabs_core.arguments import hide_headers
from empiriolabs_core.costs import astream_here, stream_here
from empiriolabs_core.errors import DEFAULT_API_BASE, SettingsError
from empiriolabs_core.gateway import Request
from empiriolabs_core.settings import DEFAULT_MODEL, RequestFields, Settings
from langchain_empiriolabs import content_blocks as _registers_the_translator  # noqa: F401
from langchain_empiriolabs.errors import langchain_errors
from langchain_empiriolabs.messages import PROVIDER, ChunkConverter, convert_messages, create_chat_result, sum_of_usage
from langchain_empiriolabs.structured import Parser, call_for, json_for, with_name, with_raw
from langchain_empiriolabs.tools import wire_tool_choice, wire_tools

if TYPE_CHECKING:
    from langchain_empiriolabs.signatures import ChatArguments

__all__ = ["DEFAULT_API_BASE", "DEFAULT_MODEL", "ChatEmpirioLabs"]

Schema = dict[str, Any] | type
StructuredOutputMethod = Literal["function_calling", "json_mode", "json_schema"]


class ChatEmpirioLabs(Settings, BaseChatModel):
    """An EmpirioLabs model in LangChain.

    ```python
    llm = ChatEmpirioLabs(model="deepseek-v4-pro", reasoning_effort="high", web_search_linkup=True)
    message = llm.invoke("What is new in Python?")
    message.additional_kwargs["reasoning_content"], message.content, message.usage_metadata
    ```

    The key is read from `EMPIRIOLABS_API_KEY`, the URL from `EMPIRIOLABS_API_BASE`. All arguments are fields of
    `empiriolabs_core.settings.Settings`, or LangChain's own. Standard Chat Completions fields, such as
    `seed=7`, are accepted too, in the constructor or in a call.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    streaming: bool = False
    """Whether `invoke` uses a stream internally, so that callbacks receive each token. Default: false."""

    if TYPE_CHECKING:

        def __init__(self, **arguments: Unpack[ChatArguments]) -> None: ...

    @property
    def model_name(self) -> str:
        """Model id; an alias of `model`."""
        return self.model

    @property
    def empiriolabs_api_key(self) -> SecretStr | None:
        """API key; an alias of `api_key`."""
        return self.api_key

    @property
    def empiriolabs_api_base(self) -> str:
        """URL of the API; an alias of `base_url`."""
        return self.base_url

    @model_validator(mode="after")
    def _set_empiriolabs_version(self) -> Self:
        self._add_version("empiriolabs-adapters", __version__)
        return self

    # Serializable overrides

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return `True`. The key is not serialized; loading reads it from the environment."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Secret constructor arguments, mapped to their environment variables."""
        return {"empiriolabs_api_key": "EMPIRIOLABS_API_KEY"}

    # BaseChatModel overrides

    @property
    def _llm_type(self) -> str:
        return "empiriolabs-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in RequestFields.model_fields}
        return {"base_url": self.base_url, **{name: value for name, value in fields.items() if value is not None}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = kwargs.get("model") or self.model
        if stop or self.stop:
            params["ls_stop"] = stop or self.stop or []
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        card = self.card
        if card is None or card.context_window is None or card.max_output_tokens is None:
            return None
        taken = card.input_modalities
        profile = ModelProfile(
            name=card.name,
            max_input_tokens=card.context_window,
            max_output_tokens=card.max_output_tokens,
            text_inputs=taken is None or "text" in taken,
            text_outputs="text" in card.output_modalities,
            reasoning_output=card.thinks,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            # Undocumented for the gateway. DeepSeek's own API supports JSON mode only.
            structured_output=False,
            temperature=True,
        )
        if taken is not None:
            profile["image_inputs"] = "image" in taken
            profile["audio_inputs"] = "audio" in taken
            profile["video_inputs"] = "video" in taken
        return profile

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs, stream=False)
        with langchain_errors():
            return create_chat_result(self.gateway.complete(request), request.body)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs, stream=False)
        with langchain_errors():
            return create_chat_result(await self.gateway.acomplete(request), request.body)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        converter = ChunkConverter(request.body)
        with langchain_errors(), closing(self.gateway.stream(request)) as chunks:
            for wire in chunks:
                chunk = converter.convert(wire)
                if chunk is not None:
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            yield converter.finish()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs, stream=True)
        converter = ChunkConverter(request.body)
        with langchain_errors():
            async with aclosing(self.gateway.astream(request)) as chunks:
                async for wire in chunks:
                    chunk = converter.convert(wire)
                    if chunk is not None:
                        if run_manager:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk
            yield converter.finish()

    # A generator starts at its first read, which may be outside the `track_cost` block that created it.

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Generator[AIMessageChunk, None, None]:
        """Yield the answer in chunks."""
        chunks = super().stream(input, config, stop=stop, **kwargs)
        return stream_here(cast("Generator[AIMessageChunk, None, None]", chunks))

    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """Yield the answer in chunks."""
        chunks = super().astream(input, config, stop=stop, **kwargs)
        return astream_here(cast("AsyncGenerator[AIMessageChunk, None]", chunks))

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return sum_of_usage(_llm_outputs, self.model)

    def _should_stream(
        self,
        *,
        async_api: bool,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> bool:
        """Return whether to stream. LangChain streams one answer, so listeners do not turn it on for `n` above 1."""
        if self._wants_several(kwargs):
            return bool(kwargs.get("stream"))
        return super()._should_stream(async_api=async_api, run_manager=run_manager, **kwargs)

    def _should_use_protocol_streaming(
        self,
        *,
        async_api: bool,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> bool:
        return not self._wants_several(kwargs) and super()._should_use_protocol_streaming(
            async_api=async_api, run_manager=run_manager, **kwargs
        )

    def _wants_several(self, call: Mapping[str, Any]) -> bool:
        """Return whether a call requests more than one answer, in any of the places where `n` can be set."""
        places = (call, call.get("model_kwargs"), call.get("extra_body"), self.model_kwargs, self.extra_body)
        wanted = next((place["n"] for place in places if isinstance(place, Mapping) and place.get("n")), 1)
        return bool(wanted != 1)

    def _convert_cached_generations(self, cache_val: list[Generation]) -> list[ChatGeneration]:
        """Set the cost of cached answers to 0, as LangChain does in `usage_metadata`."""
        generations = super()._convert_cached_generations(cache_val)
        for generation in generations:
            metadata = generation.message.response_metadata
            if "cost_usd" in metadata:
                generation.message = generation.message.model_copy(
                    update={"response_metadata": {**metadata, "cost_usd": 0.0}}
                )
        return generations

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], *, stream: bool
    ) -> Request:
        """Build the request. `stream` and the `ls_...` arguments are for LangChain and are not sent."""
        hide_headers(kwargs)
        call = {name: value for name, value in kwargs.items() if name != "stream" and not name.startswith("ls_")}
        request = self.request(convert_messages(messages), {**call, "stop": stop}, stream=stream)
        if stream and request.body.get("n", 1) != 1:
            raise SettingsError(f"n must be 1 in a stream, got {request.body['n']}. Use generate for several answers.")
        return request

    def get_num_tokens(self, text: str) -> int:
        """Return an approximate token count of a text. Responses contain exact counts, in `usage_metadata`."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens(text)
        return count_tokens_approximately([text])

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return an approximate token count of messages, computed offline and without a tokenizer."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(list(messages), tools)
        return count_tokens_approximately(messages, tools=[*wire_tools(tools or ())] or None)

    # Tools and structured output

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools.

        Args:
            tools: classes, functions, tools, or OpenAI-style dictionaries. With an empty list, no tools are sent.
            tool_choice: `"auto"` or `None`; `"any"`, `"required"` or `True` for at least one call; `"none"` or
                `False` for no calls; a tool's name, or an OpenAI-style dictionary. Models that think reject a
                forced choice, so such a request turns thinking off.
            strict: whether arguments must match the schema. Applies to tools that do not set `strict` themselves;
                their schemas are adjusted to OpenAI's strict mode.
            parallel_tool_calls: sent only if set. Undocumented for the gateway.
            **kwargs: additional arguments for each call.

        Raises:
            SettingsError: if `tool_choice` names a tool that is not bound, or is not one of the values above.
        """
        hide_headers(kwargs)
        bound = wire_tools(tools, strict=strict)
        choice = wire_tool_choice(tool_choice, bound)
        named = {"tools": bound, "tool_choice": choice, "parallel_tool_calls": parallel_tool_calls}
        return super().bind(**{name: value for name, value in named.items() if value not in (None, [])}, **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: StructuredOutputMethod = "function_calling",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable whose output matches a schema.

        Args:
            schema: pydantic class, `TypedDict`, function or JSON schema.
            method: `"function_calling"` forces a call of one tool, which turns thinking off for that request.
                `"json_mode"` requests a JSON object, which the prompt must describe. `"json_schema"` sends the
                schema. For models that support only JSON mode, such as DeepSeek V4, the schema is sent in a system
                message instead. The two JSON methods leave thinking on.
            include_raw: return `{"raw": message, "parsed": ..., "parsing_error": ...}` instead of raising.
            strict: whether the answer must match the schema, for `"function_calling"` and `"json_schema"`. Not sent
                if the schema is sent in a system message.
            **kwargs: additional arguments for each call.

        Raises:
            SettingsError: if the schema is missing, the method is unknown, or an argument conflicts with the method.
        """
        hide_headers(kwargs)
        if schema is None and method != "json_mode":
            raise SettingsError(f"with_structured_output(method={method!r}) requires a schema.")
        schema = with_name(schema)
        if method == "function_calling":
            model, parser = self._by_function(schema, strict, kwargs)
        elif method in ("json_mode", "json_schema"):
            model, parser = self._by_json(schema, method, strict, kwargs)
        else:
            raise SettingsError(f"method must be 'function_calling', 'json_mode' or 'json_schema', got {method!r}.")
        return with_raw(model, parser) if include_raw else model | parser

    def _by_function(
        self, schema: Any, strict: bool | None, kwargs: dict[str, Any]
    ) -> tuple[Runnable[LanguageModelInput, AIMessage], Parser]:
        for name in ("tools", "tool_choice"):
            if name in kwargs:
                raise SettingsError(
                    f"with_structured_output sets {name} itself with method='function_calling'. "
                    f"Leave {name} out, or use another method."
                )
        tool, parser = call_for(schema, strict)
        traced = {"kwargs": {"method": "function_calling"}, "schema": schema}
        name = tool["function"]["name"]
        return self.bind_tools([tool], tool_choice=name, ls_structured_output_format=traced, **kwargs), parser

    def _by_json(
        self, schema: Any, method: Literal["json_mode", "json_schema"], strict: bool | None, kwargs: dict[str, Any]
    ) -> tuple[Runnable[LanguageModelInput, AIMessage], Parser]:
        if "response_format" in kwargs:
            raise SettingsError(f"with_structured_output(method={method!r}) sets response_format itself. Leave it out.")
        if kwargs.get("tools"):
            kwargs = {**kwargs, "tools": wire_tools(kwargs["tools"])}
        response_format, parser = json_for(schema, method, strict)
        traced = {"kwargs": {"method": method}, "schema": schema and convert_to_json_schema(schema)}
        return self.bind(response_format=response_format, ls_structured_output_format=traced, **kwargs), parser
