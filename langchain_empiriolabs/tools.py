"""Convert LangChain tools and tool choices to wire dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_function, convert_to_openai_tool

from empiriolabs_core.errors import SettingsError


def wire_tools(tools: Sequence[Any], strict: bool | None = None) -> list[dict[str, Any]]:
    """Convert tools: classes, functions, LangChain tools, or dictionaries in any format that LangChain accepts."""
    return [_wire_tool(tool, strict) for tool in tools]


def _wire_tool(tool: Any, strict: bool | None) -> dict[str, Any]:
    """Convert a tool. LangChain returns OpenAI-style dictionaries unchanged, so `strict` is added here."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if strict is None or function is None:
        return convert_to_openai_tool(tool, strict=strict)
    if "strict" in function or "parameters" not in function:
        return dict(tool)
    return {**tool, "function": convert_to_openai_function(function, strict=strict)}


def wire_tool_choice(choice: Any, tools: list[dict[str, Any]]) -> Any:
    """Return OpenAI's spelling of a tool choice; `None` to leave it to the model."""
    simple = {None: None, "auto": None, "any": "required", "required": "required", True: "required"}
    simple |= {"none": "none", False: "none"}
    if isinstance(choice, Mapping):
        return dict(choice)
    if choice is not None and not isinstance(choice, str | bool):
        raise SettingsError(f"tool_choice must be a tool's name, a bool or an OpenAI-style dictionary, got {choice!r}.")
    if choice in simple:
        return simple[choice]
    names = [tool["function"]["name"] for tool in tools if "function" in tool]
    if choice not in names:
        raise SettingsError(
            f"tool_choice={choice!r} does not match a bound tool. Bound tools: {', '.join(names) or 'none'}."
        )
    return {"type": "function", "function": {"name": choice}}
