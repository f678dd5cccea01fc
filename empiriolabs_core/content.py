"""Content parts of wire messages: what both adapters and the settings need of them."""

from __future__ import annotations

import json
from typing import Any

from empiriolabs_core.errors import JSON


def join_parts(parts: list[JSON], between: str) -> str | list[JSON]:
    """Return content parts as wire content: one string if all of them are text, which every model accepts.

    Args:
        parts: the parts.
        between: what separates texts: nothing for pieces of one message, a line break for items of a tool's result.
    """
    if all(part["type"] == "text" for part in parts):
        return between.join(part["text"] for part in parts)
    return parts


def as_json(value: Any) -> str:
    """Return any value as JSON text. What JSON has no form for is shown as a string."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
