"""The chat completions endpoint. Its wire format is the internal form, so nothing is translated."""

from __future__ import annotations

from typing import Any

from empiriolabs_core.errors import JSON

NAME = "chat/completions"
PATH = "/chat/completions"
HEADERS: dict[str, str] = {}


def write_body(body: JSON) -> JSON:
    """Return the body to send."""
    return body


def read_reply(reply: JSON) -> JSON:
    """Return a complete reply in the internal form."""
    return reply


def read_usage(usage: Any) -> Any:
    """Return token counts in the internal form."""
    return usage
