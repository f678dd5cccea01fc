"""Join characters that arrive as two surrogates, and replace unpaired surrogates.

UTF-8 cannot encode a single surrogate, so a text that contains one cannot be printed, saved or sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


class Halves:
    """Joins characters that are split between two fragments of a text.

    A first surrogate at the end of a fragment is held back until the next fragment. An unpaired surrogate becomes the
    replacement character, U+FFFD.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def join(self, piece: str) -> str:
        """Return the text to emit: what was held back before, and the fragment without a first surrogate at its end."""
        if not self._held and piece.isascii():
            return piece
        if not piece:
            return ""
        text, self._held = self._held + piece, ""
        if _HALF.search(text) is None:
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return _joined(text)

    def rest(self) -> str:
        """Return the end of the text: the replacement character if a surrogate was held back, or an empty string."""
        held, self._held = self._held, ""
        return held and "\ufffd"


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encodable(value: Any) -> Any:
    """Return a JSON value in which surrogate pairs are joined, and unpaired surrogates replaced by U+FFFD."""
    return _mended(value) if _has_surrogates(value) else value


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and _HALF.search(value) is not None
    if isinstance(value, Mapping):
        return any(_has_surrogates(name) or _has_surrogates(inner) for name, inner in value.items())
    return isinstance(value, list | tuple) and any(_has_surrogates(inner) for inner in value)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _joined(value)
    if isinstance(value, Mapping):
        return {_mended(name): _mended(inner) for name, inner in value.items()}
    return [_mended(inner) for inner in value] if isinstance(value, list | tuple) else value
