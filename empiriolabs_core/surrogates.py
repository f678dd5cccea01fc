"""Characters that arrive as two surrogate halves, and halves that stay alone.

UTF-8 has no form for half a character, so a text that holds one cannot be printed, saved or sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


class Halves:
    """Joins characters that are split over two pieces of one text.

    A first half at the end of a piece is held back until the next piece. A half that stays alone becomes the
    replacement character, U+FFFD.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def join(self, piece: str) -> str:
        """Return a piece with what was held back before it, and without the half that is held back now."""
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
        """Return what is left at the end of the text: the replacement character for a half, or an empty string."""
        held, self._held = self._held, ""
        return held and "\ufffd"


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encodable(value: Any) -> Any:
    """Return a JSON value with halves joined where they belong together, and U+FFFD for a half that is alone."""
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
