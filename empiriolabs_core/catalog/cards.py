"""Model cards: static information about models.

A card contains a model's limits, regions, prices and rules: what it requires and what it rejects. The
request rules in `empiriolabs_core.settings` depend only on cards. For a model without a card, requests
contain exactly what the user set.

The built-in cards contain the values of the gateway's model pages, read on `READ_ON`. To add a model,
add an entry to `CARDS`. A model without an entry gets the rules of its family from `FAMILIES`, if it
has a family. `empiriolabs_core.catalog.live` reads the gateway's own catalogue.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

READ_ON = datetime.date(2026, 11, 21)
"""The date on which the values of the built-in cards were read from the model pages."""


@dataclass(frozen=True)
class Parameter:
    """A request parameter that a model lists.

    Attributes:
        name: its key in the body.
        default: the gateway default, if listed.
        minimum: the minimum value, if listed.
        maximum: the maximum value, if listed.
        options: the accepted values, if listed.
    """

    name: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rates:
    """Prices in US dollars. `list_input` and `list_output` are the prices before a discount."""

    input: Decimal
    """Per million prompt tokens."""
    output: Decimal
    """Per million generated tokens, including reasoning."""
    cached_input: Decimal | None = None
    """Per million prompt tokens read from the cache. `None`: billed like any other prompt token."""
    web_search: Decimal = Decimal(0)
    """Per request with web search."""
    list_input: Decimal | None = None
    list_output: Decimal | None = None


@dataclass(frozen=True)
class ModelCard:
    """The card of a model id.

    Attributes:
        id: value of `model` in requests.
        name: display name.
        provider: company that made the model.
        input_modalities: content types that messages may contain, such as `"text"` and `"image"`; `None` if unknown.
        output_modalities: content types of answers.
        region: region in which the model is served.
        endpoints: method and path of the routes that serve the model.
        parameters: the request parameters that it lists.
        rates: its prices; `None` if unknown.
    """

    id: str
    name: str
    provider: str | None = None
    context_window: int | None = None
    """Tokens of prompt and answer together."""
    max_output_tokens: int | None = None
    """Maximum number of tokens of an answer, and of the reasoning before it."""
    input_modalities: tuple[str, ...] | None = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    region: str | None = None
    endpoints: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    rates: Rates | None = None
    thinks: bool = False
    """Whether thinking is on by default."""
    needs_reasoning_back: bool = False
    """Whether an assistant turn with tool calls must have `reasoning_content`, even if it is empty."""
    refuses_forced_tools: bool = False
    """Whether the model rejects a required or named `tool_choice` while it thinks."""
    json_object_only: bool = False
    """Whether JSON mode is the only `response_format` that the model supports. Schemas are then rejected."""


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
    # These are DeepSeek's own rules; it is undocumented whether the gateway enforces them. Following them is
    # safe in both cases: reasoning that is not needed is ignored, and JSON mode is supported.
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


_V4_RULES = ModelCard(
    id="deepseek-v4",
    name="DeepSeek V4",
    provider="DeepSeek",
    input_modalities=None,
    thinks=True,
    needs_reasoning_back=_V4_PRO.needs_reasoning_back,
    refuses_forced_tools=_V4_PRO.refuses_forced_tools,
    json_object_only=_V4_PRO.json_object_only,
)

FAMILIES: dict[str, ModelCard] = {
    family.id: family
    for family in (
        _V4_RULES,
        # DeepSeek's documentation: the pro models have no vision. Recorded in August 2026: the flash models reject
        # images.
        replace(_V4_RULES, id="deepseek-v4-pro", input_modalities=("text",)),
        replace(_V4_RULES, id="deepseek-v4-flash", input_modalities=("text",)),
        # Recorded in September 2026: V4.1 Flash, which DeepSeek calls deepseek-flash, accepts images.
        replace(_V4_RULES, id="deepseek-v4-1-flash", input_modalities=("text", "image")),
        replace(_V4_RULES, id="deepseek-flash", input_modalities=("text", "image")),
    )
}
"""Rules of model families, by prefix of the model id. The longest matching prefix applies.

They contain what DeepSeek's models require and reject, but no limits, regions or prices, which differ between models.
"""

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
"""The cards of this process, by model id."""


def card(model: str) -> ModelCard | None:
    """Return the card of a model id.

    A model without its own card, such as `"deepseek-v4-pro-0813"`, gets a card with the rules of its family.

    Returns:
        The card, or `None` for a model that has neither a card nor a family.
    """
    known = CARDS.get(model)
    return known if known is not None else _family_card(model)


@functools.lru_cache(maxsize=256)
def _family_card(model: str) -> ModelCard | None:
    """Return the card of the family with the longest matching prefix. `deepseek-v40` does not match `deepseek-v4`."""
    prefixes = [prefix for prefix in FAMILIES if model.startswith(prefix) and not model[len(prefix) :][:1].isalnum()]
    return replace(FAMILIES[max(prefixes, key=len)], id=model, name=model) if prefixes else None


def may_have_searched(body: Mapping[str, Any]) -> bool:
    """Return whether a request may search the web: it enables search, or the model's card does not say."""
    return bool(body.get("web_search_linkup") or body.get("enable_search")) or card(body["model"]) is None
