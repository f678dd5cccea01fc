"""The tools of the LangChain tests."""

from __future__ import annotations

from langchain_core.tools import tool


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


@tool
def get_time(city: str) -> str:
    """Get the time in a city."""
    return f"Noon in {city}."
