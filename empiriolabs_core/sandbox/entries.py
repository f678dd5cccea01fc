"""Build the entries of `GET /v1/models`. The field names come from existing clients of the gateway."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from empiriolabs_core.catalog import ModelCard, Parameter, Rates

FURTHER_MODELS = (
    "deepseek-v4-1-flash",
    "deepseek-v4-pro-0813",
    "deepseek-v4-flash-0731",
    "deepseek-v4-flash-0731:variant1",
    "deepseek-v4-flash:variant3",
    "deepseek-v4-pro:variant3",
)
"""Models that appear in public lists of the gateway but use the card of their family. The sandbox serves them without
listing them, because their limits and rates are not published."""

_MILLION = Decimal(1_000_000)


def entry(card: ModelCard) -> dict[str, Any]:
    """Return the entry of a model in the list of models."""
    return {
        "id": card.id,
        "object": "model",
        "display_name": card.name,
        "provider": card.provider,
        "category": "text",
        "context_length": card.context_window,
        "max_output_tokens": card.max_output_tokens,
        "pricing": _pricing(card.rates) if card.rates else None,
        "input_modalities": list(card.input_modalities or ()),
        "output_modalities": list(card.output_modalities),
        "features": ["reasoning"] if card.thinks else [],
        "supported_endpoints": list(card.endpoints),
        "supported_parameters": [_parameter(parameter) for parameter in card.parameters],
        "served_from": card.region,
        "structured_output": "json_object" if card.json_object_only else None,
    }


def _pricing(rates: Rates) -> dict[str, str]:
    per_token = {"prompt": rates.input, "completion": rates.output, "input_cache_read": rates.cached_input}
    pricing = {name: f"{rate / _MILLION:f}" for name, rate in per_token.items() if rate is not None}
    return {**pricing, "web_search": f"{rates.web_search:f}"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    listed: dict[str, Any] = {"name": parameter.name, "default": parameter.default}
    if parameter.options:
        listed["options"] = list(parameter.options)
    bounds = {"min": parameter.minimum, "max": parameter.maximum}
    return {**listed, **{name: bound for name, bound in bounds.items() if bound is not None}}
