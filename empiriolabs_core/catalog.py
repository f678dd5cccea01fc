"""Model cards: what is known about a model before it is called.

A card holds a model's limits, regions, rates and the two things that it insists on or refuses. The
request rules in `empiriolabs_core.settings` read cards and nothing else, so a model without a card
is sent just what the user said.

The built-in cards hold what the gateway's model pages say, read on `READ_ON`. To add a model, add
an entry to `CARDS`. `fetch` takes the gateway's own catalogue in their place.

`python -m empiriolabs_core.catalog` prints them.
"""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from empiriolabs_core.arguments import check_url
from empiriolabs_core.errors import InvalidReplyError, excerpt
from empiriolabs_core.gateway import DEFAULT_API_BASE, get, get_async

BASE_VARIABLE = "EMPIRIOLABS_API_BASE"
"""The environment variable that holds another URL."""

READ_ON = datetime.date(2026, 11, 21)
"""The day on which the numbers of the built-in cards were read off the model pages."""


@dataclass(frozen=True)
class Parameter:
    """A request parameter that a model lists.

    Attributes:
        name: its key in the body.
        default: what the gateway takes if none is sent, where that is listed.
        minimum: the least value, if there is one.
        maximum: the greatest value, if there is one.
        options: the values that are taken, if they are listed.
    """

    name: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """Prices in US dollars. `list_input` and `list_output` are the prices before a reduction."""

    input: Decimal
    """Per million prompt tokens."""
    output: Decimal
    """Per million generated tokens, reasoning included."""
    cached_input: Decimal | None = None
    """Per million prompt tokens read from the cache. `None`: billed like any other prompt token."""
    web_search: Decimal = Decimal(0)
    """Per request with web search."""
    list_input: Decimal | None = None
    list_output: Decimal | None = None


@dataclass(frozen=True)
class ModelCard:
    """What is known about one model id.

    Attributes:
        id: what to send as `model`.
        name: what to show.
        provider: who made the model.
        input_modalities: what messages may hold, such as `"text"` and `"image"`; `None` if that is not known.
        output_modalities: what it answers with.
        region: where it is served.
        endpoints: method and path of the routes that serve it.
        parameters: the request parameters that it lists.
        rates: its prices; `None` where they are not known.
    """

    id: str
    name: str
    provider: str | None = None
    context_window: int | None = None
    """Tokens of prompt and answer together."""
    max_output_tokens: int | None = None
    """The most tokens that an answer, or the reasoning before it, may have."""
    input_modalities: tuple[str, ...] | None = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    region: str | None = None
    endpoints: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    rates: Rates | None = None
    thinks: bool = False
    """Whether the model reasons before it answers, unless it is told not to."""
    needs_reasoning_back: bool = False
    """Whether an assistant turn with tool calls must carry `reasoning_content`, if only an empty one."""
    refuses_forced_tools: bool = False
    """Whether a required or named `tool_choice` is refused while the model thinks."""
    json_object_only: bool = False
    """Whether JSON mode is the only `response_format` that the model takes: no schemas."""


_MAX_OUTPUT = 393_216
_V4_PRO = ModelCard(
    id="deepseek-v4-pro",
    name="DeepSeek V4 Pro",
    provider="DeepSeek",
    context_window=1_000_000,
    max_output_tokens=_MAX_OUTPUT,
    region="Germany (Frankfurt)",
    endpoints=("POST /v1/chat/completions", "POST /v1/responses", "POST /v1/messages"),
    parameters=(
        Parameter("temperature", 0.7, 0, 2),
        Parameter("top_p", 0.9, 0, 1),
        Parameter("max_tokens", 4096, 1, _MAX_OUTPUT),
        Parameter("stop"),
        Parameter("enable_thinking", True),
        Parameter("thinking_budget", 32768, 1, _MAX_OUTPUT),
        Parameter("reasoning_effort", "medium", options=("none", "low", "medium", "high", "max")),
        Parameter("web_search_linkup", False),
        Parameter("disable_formatting", False),
    ),
    rates=Rates(
        input=Decimal("1.65"),
        output=Decimal("3.30"),
        web_search=Decimal("0.013"),
        list_input=Decimal("1.74"),
        list_output=Decimal("3.48"),
    ),
    thinks=True,
    # These are DeepSeek's own rules; whether the gateway enforces them is not documented. Keeping
    # them is right either way: reasoning that is not needed is ignored, and JSON mode is understood.
    needs_reasoning_back=True,
    refuses_forced_tools=True,
    json_object_only=True,
)
_V4_FLASH = replace(
    _V4_PRO,
    id="deepseek-v4-flash",
    name="DeepSeek V4 Flash",
    rates=Rates(input=Decimal("0.14"), output=Decimal("0.28"), web_search=Decimal("0.013")),
)


def _variant(of: ModelCard, number: int, region: str, rates: Rates) -> ModelCard:
    return replace(of, id=f"{of.id}:variant{number}", name=f"{of.name} :variant{number}", region=region, rates=rates)


CARDS: dict[str, ModelCard] = {
    card.id: card
    for card in (
        _V4_PRO,
        _variant(
            _V4_PRO,
            1,
            "Singapore",
            Rates(input=Decimal("2.40"), output=Decimal("4.80"), web_search=Decimal("0.02")),
        ),
        _variant(
            _V4_PRO,
            2,
            "China",
            Rates(
                input=Decimal("1.65"),
                output=Decimal("3.301"),
                cached_input=Decimal("0.138"),
                web_search=Decimal("0.01"),
                list_input=Decimal("1.74"),
                list_output=Decimal("3.48"),
            ),
        ),
        _V4_FLASH,
        _variant(
            _V4_FLASH,
            1,
            "Singapore",
            Rates(input=Decimal("0.20"), output=Decimal("0.40"), web_search=Decimal("0.02")),
        ),
        _variant(
            _V4_FLASH,
            2,
            "China",
            Rates(
                input=Decimal("0.138"),
                output=Decimal("0.275"),
                cached_input=Decimal("0.028"),
                web_search=Decimal("0.01"),
                list_input=Decimal("0.14"),
                list_output=Decimal("0.28"),
            ),
        ),
        ModelCard(
            id="text-embedding-v4",
            name="Text Embedding V4",
            provider="Alibaba",
            region="Singapore",
            endpoints=("POST /v1/embeddings",),
            output_modalities=("embedding",),
            rates=Rates(input=Decimal("0.07"), output=Decimal(0)),
        ),
    )
}
"""The cards known to this process, by model id."""


def card(model: str) -> ModelCard | None:
    """Return the card of a model id, or `None` for a model that has none."""
    return CARDS.get(model)


def may_have_searched(body: Mapping[str, Any]) -> bool:
    """Return whether a request may have the web searched: it says so, or its model has no card that tells."""
    return bool(body.get("web_search_linkup") or body.get("enable_search")) or card(body["model"]) is None


def fetch(base_url: str | None = None, *, timeout: float = 30.0) -> list[ModelCard]:
    """Read the gateway's catalogue (`GET /models`, public, no key), and let it replace the cards of this process.

    What a model insists on or refuses is not in the catalogue: it is kept from the built-in card, if there is one.

    Args:
        base_url: URL of the API. Default: the environment variable `EMPIRIOLABS_API_BASE`, or the public gateway.
        timeout: seconds.

    Raises:
        InvalidReplyError: the gateway answered with something else. An entry that cannot be read is no error: it is
            left out, with a warning that names it.
        openai.APIError: the gateway cannot be reached, or refuses.
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
        raise InvalidReplyError(f"The gateway's catalogue is no list of models: {excerpt(reply)}.")
    cards = []
    for entry in entries:
        try:
            cards.append(read_entry(entry))
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            name = entry.get("id") if isinstance(entry, Mapping) else None
            warnings.warn(f"The catalogue's entry {name or excerpt(entry)!r} is left out: {error}", stacklevel=3)
    CARDS.update({found.id: found for found in cards})
    return cards


def read_entry(entry: Mapping[str, Any]) -> ModelCard:
    """Return the card of a catalogue entry. Its field names were seen in clients of the gateway, not documented.

    Raises:
        TypeError, ValueError: the entry is no object, has no id, or a number that is none.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise TypeError("it is no object with an id")
    known = CARDS.get(entry["id"]) or ModelCard(id=entry["id"], name=entry["id"], input_modalities=None)
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
    # Keys are not documented, so one that is missing may just have another name: it takes nothing away.
    return replace(
        known,
        **{name: value for name, value in found.items() if value},
        thinks=known.thinks or bool(features & {"reasoning", "thinking"}),
        json_object_only=known.json_object_only if formats is None else formats == "json_object",
    )


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{excerpt(value)} is no text")
    return value


def _names(listed: Any) -> tuple[str, ...]:
    if isinstance(listed, str) or not all(isinstance(name, str) for name in listed or ()):
        raise TypeError(f"{excerpt(listed)} is no list of texts")
    return tuple(listed or ())


def _count(value: Any) -> int | None:
    if value is not None and int(value) < 0:
        raise ValueError(f"{value} is less than nothing")
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
    """Read prices per token. Of several tiers, the first counts: it is the one of short prompts.

    A price that is missing stays what it was: a fee for web search is not among the keys that were seen.
    """
    tier = pricing[0] if isinstance(pricing, list) and pricing else pricing
    if not isinstance(tier, Mapping) or tier.get("prompt") is None or tier.get("completion") is None:
        return None
    listed = {name: Decimal(str(price)) for name, price in tier.items() if name in _PRICES and price not in (None, "")}
    found = {_PRICES[name]: price if name == "web_search" else price * 1_000_000 for name, price in listed.items()}
    if not all(price.is_finite() and price >= 0 for price in found.values()):
        raise ValueError(f"{excerpt(tier)} holds a price that is none")
    return replace(known or Rates(Decimal(0), Decimal(0)), **found)


if __name__ == "__main__":
    from empiriolabs_core.catalog_table import main

    main()
