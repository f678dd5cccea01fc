"""Model cards: limits, regions, prices and rules of models, built in or loaded from the gateway.

`python -m empiriolabs_core.catalog` prints them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from empiriolabs_core.catalog.cards import (
    CARDS,
    FAMILIES,
    READ_ON,
    ModelCard,
    Parameter,
    Rates,
    card,
    may_have_searched,
)

if TYPE_CHECKING:
    from empiriolabs_core.catalog.live import afetch, fetch, read_entry

__all__ = [
    "CARDS",
    "FAMILIES",
    "READ_ON",
    "ModelCard",
    "Parameter",
    "Rates",
    "afetch",
    "card",
    "fetch",
    "may_have_searched",
    "read_entry",
]


def __getattr__(name: str) -> Any:
    """Import the module of the live catalogue at its first use. It needs the transport, which needs the cards."""
    if name in ("fetch", "afetch", "read_entry"):
        from empiriolabs_core.catalog import live

        return getattr(live, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
