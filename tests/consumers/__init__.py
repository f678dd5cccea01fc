"""Kits that use the adapters as their users do; `README.md` lists them."""

from __future__ import annotations

import os
from typing import Any

import pytest


def kit(module: str) -> Any:
    """Import a kit, or skip the tests of it where it is not installed; `make consumers` has all of them."""
    reason = f"{module} cannot be imported here: make consumers has an environment for it."
    try:
        return pytest.importorskip(module, reason=reason, exc_type=ImportError)
    except pytest.skip.Exception as skipped:
        if os.environ.get("CONSUMERS"):
            raise ImportError(f"make consumers should have installed {module}: {skipped.msg}") from skipped
        raise


def reasonings(body: dict[str, Any]) -> list[str]:
    """Return the reasoning of the turns with tool calls that a request sends back; fails where there is none."""
    return [turn["reasoning_content"] for turn in body["messages"] if turn.get("tool_calls")]
