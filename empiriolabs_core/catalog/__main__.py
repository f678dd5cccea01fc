"""Print model cards: python -m empiriolabs_core.catalog [--live] [--json] [MODEL]."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import openai

from empiriolabs_core.catalog import CARDS, READ_ON, ModelCard, live
from empiriolabs_core.costs import cost_of
from empiriolabs_core.replies import Usage

EXAMPLE = Usage(1_000_000, 100_000, 1_100_000)
"""The call whose cost the last column shows: 1 million tokens of prompt and 100,000 of answer."""

_HEADS = ("model", "region", "window", "input", "cached", "output", "search", "1M in + 100k out")


def table(cards: Iterable[ModelCard]) -> str:
    """Return cards as a table. Prices are in US dollars per million tokens, and per search."""
    rows = [_HEADS, *(_row(card) for card in cards)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(card: ModelCard) -> tuple[str, ...]:
    rates = card.rates
    prices = (rates.input, rates.cached_input, rates.output, rates.web_search) if rates else (None,) * 4
    cost = cost_of(card.id, EXAMPLE)
    window = f"{card.context_window:,}" if card.context_window else "-"
    return (card.id, card.region or "-", window, *map(_usd, prices), _usd(cost.total if cost else None))


def _usd(amount: Decimal | None) -> str:
    return "-" if amount is None else f"${amount.normalize():f}"


def as_json(cards: Iterable[ModelCard]) -> str:
    """Return cards as JSON. Amounts are strings, to keep them exact."""
    return json.dumps(
        [{**dataclasses.asdict(card), "example_usd": _example(card)} for card in cards], default=str, indent=1
    )


def _example(card: ModelCard) -> Any:
    cost = cost_of(card.id, EXAMPLE)
    return None if cost is None else cost.total


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m empiriolabs_core.catalog", description="Model cards.")
    parser.add_argument("model", nargs="?", help="a model id (default: all models)")
    parser.add_argument(
        "--live", action="store_true", help="read the gateway's catalogue instead of the built-in cards"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    try:
        cards = live.fetch() if chosen.live else list(CARDS.values())
    except openai.OpenAIError as error:
        sys.exit(f"Could not read the catalogue: {error}")
    cards = [card for card in cards if chosen.model in (None, card.id)]
    if not cards:
        sys.exit(f"No card for model {chosen.model!r}. Models with a card: {', '.join(CARDS)}.")
    print(as_json(cards) if chosen.json else table(cards))
    if not chosen.live and not chosen.json:
        print(f"US dollars per million tokens and per search, as read on {READ_ON}.")


if __name__ == "__main__":
    main()
