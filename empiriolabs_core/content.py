"""Functions for content parts of wire messages, shared by the adapters and the settings."""

from __future__ import annotations

import json
from typing import Any

from empiriolabs_core.errors import JSON


def join_parts(parts: list[JSON], between: str) -> str | list[JSON]:
    """Return content parts as wire content: one string if all parts are text, since every model accepts a string.

    Args:
        parts: the parts.
        between: separator of texts: empty for parts of a message, a line break for items of a tool's result.
    """
    if all(part["type"] == "text" for part in parts):
        return between.join(part["text"] for part in parts)
    return parts


def as_json(value: Any) -> str:
    """Return any value as JSON text. Values that JSON does not support become strings."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)
