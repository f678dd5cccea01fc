"""Load the gateway's catalogue, `GET /models`, into model cards."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from empiriolabs_core.arguments import check_url
from empiriolabs_core.catalog.cards import CARDS, ModelCard, Parameter, Rates, card
from empiriolabs_core.errors import BASE_VARIABLE, DEFAULT_API_BASE, InvalidReplyError, excerpt
from empiriolabs_core.gateway import get, get_async


def fetch(base_url: str | None = None, *, timeout: float = 30.0) -> list[ModelCard]:
    """Load the gateway's catalogue (`GET /models`, public, no key), and replace the cards of this process.

    The catalogue does not say what a model requires or rejects. These rules are kept from the built-in card of the
    model or its family, if it exists.

    Args:
        base_url: URL of the API. Default: the environment variable `EMPIRIOLABS_API_BASE`, or the public gateway.
        timeout: seconds.

    Raises:
        InvalidReplyError: if the reply is not a catalogue. A malformed entry does not raise: it is skipped, and a
            warning names it.
        openai.APIError: if the gateway cannot be reached, or rejects the request.
    """
    return _adopt(get(_base(base_url), "/models", timeout))


async def afetch(base_url: str | None = None, *, timeout: float = 30.0) -> list[ModelCard]:
    """Do what `fetch` does, asynchronously."""
    return _adopt(await get_async(_base(base_url), "/models", timeout))


def _base(base_url: str | None) -> str:
    return check_url(base_url or os.environ.get(BASE_VARIABLE) or DEFAULT_API_BASE)


def _adopt(reply: object) -> list[ModelCard]:
    entries = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(entries, list):
        raise InvalidReplyError(f"The gateway's catalogue must be a list of models, got {excerpt(reply)}.")
    cards = []
    for entry in entries:
        try:
            cards.append(read_entry(entry))
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            name = entry.get("id") if isinstance(entry, Mapping) else None
            warnings.warn(f"The catalogue's entry {name or excerpt(entry)!r} was skipped: {error}", stacklevel=3)
    CARDS.update({found.id: found for found in cards})
    return cards


def read_entry(entry: Mapping[str, Any]) -> ModelCard:
    """Return the card of a catalogue entry. The field names are undocumented; they were observed in other clients.

    Raises:
        TypeError, ValueError: if the entry is not an object, has no id, or contains an invalid number.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise TypeError("it is not an object with an id")
    known = card(entry["id"]) or ModelCard(id=entry["id"], name=entry["id"], input_modalities=None)
    features = {*(entry.get("features") or ()), *(n for n, on in (entry.get("capabilities") or {}).items() if on)}
    formats = entry.get("structured_output")
    found: dict[str, Any] = {
        "name": _text(entry.get("display_name") or entry.get("name")),
        "provider": _text(entry.get("provider")),
        "context_window": _count(entry.get("context_length") or entry.get("context_window")),
        "max_output_tokens": _count(entry.get("max_output_tokens")),
        "input_modalities": _names(entry.get("input_modalities")),
        "output_modalities": _names(entry.get("output_modalities")),
        "region": _text(entry.get("served_from")),
        "endpoints": _names(entry.get("supported_endpoints")),
        "parameters": tuple(_parameter(listed) for listed in entry.get("supported_parameters") or ()),
        "rates": _rates(entry.get("pricing"), known.rates),
    }
    # Keys are undocumented. A missing key may have another name, so it does not clear a value.
    return replace(
        known,
        **{name: value for name, value in found.items() if value},
        thinks=known.thinks or bool(features & {"reasoning", "thinking"}),
        json_object_only=known.json_object_only if formats is None else formats == "json_object",
    )


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{excerpt(value)} is not a string")
    return value


def _names(listed: Any) -> tuple[str, ...]:
    if isinstance(listed, str) or not all(isinstance(name, str) for name in listed or ()):
        raise TypeError(f"{excerpt(listed)} is not a list of strings")
    return tuple(listed or ())


def _count(value: Any) -> int | None:
    if value is not None and int(value) < 0:
        raise ValueError(f"{value} is negative")
    return None if value is None else int(value)


def _parameter(listed: Any) -> Parameter:
    if isinstance(listed, str):
        return Parameter(listed)
    low, high, name = listed.get("min"), listed.get("max"), _text(listed.get("name"))
    if name is None:
        raise TypeError(f"{excerpt(listed)} has no name")
    return Parameter(
        name,
        listed.get("default"),
        None if low is None else float(low),
        None if high is None else float(high),
        _names(listed.get("options")),
    )


_PRICES = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cached_input",
    "web_search": "web_search",
}


def _rates(pricing: Any, known: Rates | None) -> Rates | None:
    """Read prices per token. If there are several tiers, the first applies: the tier of short prompts.

    A missing price keeps its old value. No key for a web search fee has been observed.
    """
    tier = pricing[0] if isinstance(pricing, list) and pricing else pricing
    if not isinstance(tier, Mapping) or tier.get("prompt") is None or tier.get("completion") is None:
        return None
    listed = {name: Decimal(str(price)) for name, price in tier.items() if name in _PRICES and price not in (None, "")}
    found = {_PRICES[name]: price if name == "web_search" else price * 1_000_000 for name, price in listed.items()}
    if not all(price.is_finite() and price >= 0 for price in found.values()):
        raise ValueError(f"{excerpt(tier)} has an invalid price")
    return replace(known or Rates(Decimal(0), Decimal(0)), **found)
