"""Structured output: the tool or response format of the request, and the parser of the answer.

LangChain's parsers close the brackets of a truncated answer. The parsers here raise, so that retries and fallbacks run.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableMap
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from empiriolabs_core.errors import SettingsError, excerpt
from empiriolabs_core.tool_calls import plain_name
from langchain_empiriolabs.content_blocks import refusal_of
from langchain_empiriolabs.errors import EmpirioLabsRefusalError, EmpirioLabsStructuredOutputError
from langchain_empiriolabs.tools import wire_tools

Parser = OutputParserLike[Any]

_NAMES = frozenset({"title", "name", "function", "toolSpec"})
"""Keys that contain the schema's name, in the schema formats that LangChain accepts."""


def with_name(schema: Any) -> Any:
    """Return a schema with a name. LangChain requires a name, but a JSON schema may lack it."""
    return {"title": "response", **schema} if isinstance(schema, dict) and not _NAMES & schema.keys() else schema


def call_for(schema: Any, strict: bool | None) -> tuple[dict[str, Any], Parser]:
    """Return a tool whose arguments match a schema, and the parser of its calls.

    Raises:
        SettingsError: if the schema does not describe an object.
    """
    plain = wire_tools([schema])
    _check_object(schema, plain[0]["function"].get("parameters"))
    (converted,) = wire_tools(plain, strict)
    function = converted["function"]
    tool = {**converted, "function": {**function, "name": plain_name(function["name"])}}
    if _is_pydantic(schema) and tool == converted:
        return tool, _PydanticParser(tools=[schema], first_tool_only=True)
    parser = _KeyParser(key_name=tool["function"]["name"], first_tool_only=True)
    if not _is_pydantic(schema):
        return tool, parser
    # LangChain's parser looks a class up by its name. A generic class, such as Page[int], is sent under another name.
    return tool, parser | (schema.model_validate if issubclass(schema, BaseModel) else schema.parse_obj)


def json_for(schema: Any, method: Literal["json_mode", "json_schema"], strict: bool | None) -> tuple[Any, Parser]:
    """Return the response format for a schema, and the parser of the answer."""
    response_format = _json_schema_format(schema, strict) if method == "json_schema" else {"type": "json_object"}
    return response_format, _PydanticJsonParser(pydantic_object=schema) if _is_pydantic(schema) else _JsonParser()


def _grown(result: list[Generation]) -> AIMessage | None:
    """Return the message of a complete answer; `None` while it is still being streamed."""
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    growing = isinstance(message, AIMessageChunk) and message.chunk_position != "last"
    return message if isinstance(message, AIMessage) and not growing else None


def _raise_if_refused(result: list[Generation]) -> None:
    """Raise `EmpirioLabsRefusalError` if the model refused, or if its answer was filtered."""
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    refusal = refusal_of(message) if isinstance(message, AIMessage) else None
    if refusal is not None:
        said = refusal["refusal"] or result[0].text or "It gave no reason."
        how = "Its answer was filtered" if "extras" in refusal else "The model refused"
        raise EmpirioLabsRefusalError(f"{how}: {excerpt(said)} Rephrase the request.", message)


def _check_json(result: list[Generation]) -> None:
    """Raise if a complete answer is not complete JSON. LangChain's parsers would close its brackets.

    Raises:
        EmpirioLabsRefusalError: if the model refused, or its answer was filtered.
        EmpirioLabsStructuredOutputError: if the JSON is incomplete. It is an `OutputParserException`, so retries and
            fallbacks handle it.
    """
    _raise_if_refused(result)
    message = _grown(result)
    if message is None or message.tool_calls:
        return
    try:
        # Text after the JSON, such as a closing sentence, is ignored.
        parse_json_markdown(result[0].text, parser=json.JSONDecoder(strict=False).raw_decode)
    except json.JSONDecodeError as error:
        raise EmpirioLabsStructuredOutputError(
            f"The answer is not complete JSON (finish_reason={message.response_metadata.get('finish_reason')!r}): "
            f"{excerpt(result[0].text)!r}. Retry, or raise max_tokens if it was truncated.",
            llm_output=result[0].text,
        ) from error


class _JsonParser(JsonOutputParser):
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_json(result)
        return super().parse_result(result, partial=partial)


class _PydanticJsonParser(PydanticOutputParser[Any]):
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_json(result)
        return super().parse_result(result, partial=partial)


def _check_call(result: list[Generation]) -> None:
    """Raise if a complete answer has no valid tool call. LangChain's parsers would return `None`.

    Raises:
        EmpirioLabsRefusalError: if the model refused, or its answer was filtered.
        EmpirioLabsStructuredOutputError: if there is no valid call. It is an `OutputParserException`, so retries and
            fallbacks handle it.
    """
    _raise_if_refused(result)
    message = _grown(result)
    if message is None or message.tool_calls:
        return
    if message.invalid_tool_calls:
        call = message.invalid_tool_calls[0]
        raise EmpirioLabsStructuredOutputError(
            f"The model called {call['name']} with arguments that are not a JSON object: "
            f"{excerpt(call['args'] or '')!r}. Retry, or raise max_tokens if they were truncated.",
            llm_output=call["args"],
        )
    raise EmpirioLabsStructuredOutputError(
        f"The model called no tool (finish_reason={message.response_metadata.get('finish_reason')!r}). It said: "
        f"{excerpt(result[0].text)!r}. Retry, or raise max_tokens if the answer was truncated.",
        llm_output=result[0].text,
    )


class _PydanticParser(PydanticToolsParser):
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_call(result)
        return super().parse_result(result, partial=partial)


class _KeyParser(JsonOutputKeyToolsParser):
    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        _check_call(result)
        found = super().parse_result(result, partial=partial)
        message = _grown(result)
        if found is None and message is not None:
            names = ", ".join(call["name"] for call in message.tool_calls)
            raise EmpirioLabsStructuredOutputError(
                f"The model called {names} instead of {self.key_name}. Retry.", llm_output=str(message.tool_calls)
            )
        return found


def _check_object(schema: Any, parameters: Any) -> None:
    """Raise `SettingsError` if a schema does not describe an object with properties, as a tool's arguments must be."""
    if parameters is None or parameters.get("type", "object") != "object":
        raise SettingsError(
            f"The schema must describe an object with properties, got {excerpt(schema)}. Wrap it in a class with one "
            "field."
        )


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def _json_schema_format(schema: Any, strict: bool | None) -> dict[str, Any]:
    if isinstance(schema, dict) and "properties" not in schema and not (_NAMES - {"title"}) & schema.keys():
        # LangChain would keep only its title.
        json_schema = schema
    else:
        json_schema = convert_to_json_schema(schema, strict=strict)
    named: dict[str, Any] = {"name": plain_name(json_schema.get("title", "response")), "schema": json_schema}
    if strict is not None:
        named["strict"] = strict
    return {"type": "json_schema", "json_schema": named}


def with_raw(model: Runnable[LanguageModelInput, AIMessage], parser: Parser) -> Runnable[LanguageModelInput, Any]:
    """Return the message with the parsed value, or with the error."""

    def parse(found: dict[str, Any], config: RunnableConfig) -> dict[str, Any]:
        try:
            return {**found, "parsed": parser.invoke(found["raw"], config), "parsing_error": None}
        except Exception as error:
            return {**found, "parsed": None, "parsing_error": error}

    return RunnableMap(raw=model) | RunnableLambda(parse)
