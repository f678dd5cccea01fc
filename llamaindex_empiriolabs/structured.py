"""Structured output: pydantic objects from a forced tool call, complete or partial.

For every delta, LlamaIndex's own parser runs a slow Python loop that drops unclosed strings, and builds a model
class. The parser here takes linear time, and strings grow as they are streamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.program.utils import FlexibleModel, create_flexible_model
from llama_index.core.tools import FunctionTool
from llama_index.core.types import Model, PydanticProgramMode
from pydantic import AliasChoices, BaseModel, ValidationError

from empiriolabs_core.errors import SettingsError, StructuredOutputError, excerpt
from empiriolabs_core.tool_calls import plain_name
from llamaindex_empiriolabs.messages import tool_selections

FUNCTION_MODES = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION)
"""The values of `pydantic_program_mode` that use a forced tool call."""

_OWN = ("tools", "tool_choice", "tool_required", "allow_parallel_tool_calls")


def call_arguments(llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return the caller's arguments for the request, without the choice of the tool."""
    return {name: value for name, value in (llm_kwargs or {}).items() if name not in _OWN}


def object_tool(output_cls: type[BaseModel]) -> FunctionTool:
    """Return the tool that the model must call. Class names that are not valid tool names, as `Page[int]`, are changed.

    Raises:
        SettingsError: if the class describes a list or a single value, not an object.
    """
    tool = get_function_tool(output_cls)
    kind = output_cls.model_json_schema().get("type", "object")
    if kind != "object":
        raise SettingsError(
            f"{output_cls.__name__} is of type {kind!r}, but must be an object. Wrap it in a class with one field."
        )
    tool.metadata.name = plain_name(tool.metadata.name or "")
    return tool


def read_object(calls: Sequence[ToolSelection], response: ChatResponse, output_cls: type[Model]) -> Model:
    """Return the object of a complete answer.

    Raises:
        StructuredOutputError: if the model called no tool or refused, or its arguments do not match the class.
    """
    reason = response.additional_kwargs.get("finish_reason")
    if not calls or reason == "content_filter":
        raise StructuredOutputError(
            f"The model did not return a {output_cls.__name__} (finish_reason={reason!r}). It said: "
            f"{excerpt(response.message.content or '')!r}. Retry, or raise max_tokens if the answer was truncated."
        )
    try:
        return output_cls.model_validate(calls[0].tool_kwargs)
    except ValidationError as error:
        raise StructuredOutputError(f"The model's arguments do not match {output_cls.__name__}: {error}") from error


def _field_names(output_cls: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield pairs of alias and name of every field. The model writes aliases; partial objects have names."""
    for name, field in output_cls.model_fields.items():
        alias = field.validation_alias or field.alias
        for choice in alias.choices if isinstance(alias, AliasChoices) else (alias,):
            if isinstance(choice, str):
                yield choice, name


class GrowingObject:
    """Converts the responses of one stream into partial objects, in which every field is optional."""

    def __init__(self, output_cls: type[BaseModel]) -> None:
        self._output_cls = output_cls
        self._flexible: type[FlexibleModel] = create_flexible_model(output_cls)
        self._names = dict(_field_names(output_cls))
        self._latest: dict[str, Any] | None = None
        self._response: ChatResponse | None = None

    def add(self, response: ChatResponse) -> BaseModel | None:
        """Return the object so far; `None` if the response added nothing to it."""
        self._response = response
        calls = tool_selections(response)
        if not calls or not calls[0].tool_kwargs or calls[0].tool_kwargs == self._latest:
            return None
        self._latest = calls[0].tool_kwargs
        try:
            return self._output_cls.model_validate(self._latest)
        except Exception:
            # Skip the class's validators: they expect all fields.
            return self._flexible.model_validate({self._names.get(key, key): v for key, v in self._latest.items()})

    def finish(self) -> BaseModel:
        """Return the complete object.

        Raises:
            StructuredOutputError: if the model called no tool, or its arguments do not match the class.
        """
        response = self._response or ChatResponse(message=ChatMessage())
        return read_object(tool_selections(response), response, self._output_cls)
