"""Tool calls: strict schemas, and the outputs of `predict_and_call`, also for calls that cannot be run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool, ToolOutput

from empiriolabs_core.errors import ToolRunError

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse


def with_strict(spec: dict[str, Any], strict: bool | None) -> dict[str, Any]:
    """Return a wire tool with `strict` set. If it is true, the schema is adjusted to OpenAI's strict mode."""
    if strict is None:
        return spec
    function = {**spec["function"], "strict": strict}
    if strict:
        function["parameters"] = _closed(function.get("parameters") or {"type": "object", "properties": {}})
    return {**spec, "function": function}


def _closed(schema: Any) -> Any:
    """Return a schema in which all properties are required and no others allowed, as in OpenAI's strict mode."""
    if isinstance(schema, list):
        return [_closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties")
    closed = {
        # Names of properties and definitions are not schema keywords.
        name: {key: _closed(one) for key, one in inner.items()}
        if name in ("properties", "$defs", "definitions") and isinstance(inner, dict)
        else _closed(inner)
        for name, inner in schema.items()
        if name not in ("default", "enum", "const", "examples")
    }
    closed |= {name: schema[name] for name in ("default", "enum", "const", "examples") if name in schema}
    if isinstance(properties, dict):
        closed |= {"additionalProperties": False, "required": list(properties)}
    return closed


def not_run(call: ToolSelection, tools: Sequence[BaseTool]) -> ToolOutput | None:
    """Return an error output for a call to an unknown tool; `None` for a call that can be run."""
    if any(tool.metadata.name == call.tool_name for tool in tools):
        return None
    told = f"The tool {call.tool_name!r} does not exist."
    return ToolOutput(
        tool_name=call.tool_name, content=told, raw_input=call.tool_kwargs, raw_output=None, is_error=True
    )


def called(response: ChatResponse, outputs: list[ToolOutput], *, raise_errors: bool) -> AgentChatResponse:
    """Return the answer of `predict_and_call`: the tools' outputs, or the model's text if it called no tool.

    Raises:
        ToolRunError: if `raise_errors` is set and an output is an error.
    """
    from llama_index.core.chat_engine.types import AgentChatResponse

    text = "\n\n".join(output.content for output in outputs)
    if raise_errors and any(output.is_error for output in outputs):
        raise ToolRunError(text)
    return AgentChatResponse(response=text if outputs else response.message.content or "", sources=outputs)
