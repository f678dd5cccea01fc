"""Makes a value that fits a JSON schema, out of the words and numbers of a prompt. Deterministic.

`pattern`, `uniqueItems`, `not`, `if`, `dependent...` and an `allOf` of several are not looked at: a value need not fit
them.
"""

from __future__ import annotations

import json
import math
import operator
import re
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from empiriolabs_core.sandbox.refusals import shown

Schema = dict[str, Any]

_MOST_REPEATS = 3
"""How often a value may hold its own kind where the schema leaves no other way: no finite value fits it."""

_MOST_CHARACTERS = 200_000
"""How large a value may grow, so that no schema keeps the sandbox busy. Each value within it counts as 100."""

_MOST_OF_PROMPT = 100_000
"""How many characters of a prompt are looked at."""

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

# Those of JSON Schema, and the further ones of pydantic.
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H30M",
    "uri": "https://example.com/page",
    "uri-reference": "/page",
    "iri": "https://example.com/page",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "ipv4interface": "192.0.2.1/24",
    "ipv6interface": "2001:db8::1/32",
    "uuid4": "6f2b1c9e-3d47-4a58-9b60-7e1f5c2d8a34",
    "uuid": "6f2b1c9e-3d47-4a58-9b60-7e1f5c2d8a34",
    "email": "someone@example.com",
}

_BOUNDS = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}


class SchemaError(ValueError):
    """The schema is none, or no value of a sane size fits it."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KEYWORDS = {
    name: (told, holds)
    for told, holds, names in (
        ("an object", lambda value: isinstance(value, dict), ("properties",)),
        (
            "a list",
            lambda value: isinstance(value, list),
            ("required", "enum", "anyOf", "oneOf", "allOf", "prefixItems"),
        ),
        ("text", lambda value: isinstance(value, str), ("$ref", "format")),
        ("a number", _is_number, tuple(_BOUNDS)),
        ("a number above 0", lambda value: _is_number(value) and value > 0, ("multipleOf",)),
        (
            "a number from 0 up",
            lambda value: _is_number(value) and value >= 0,
            ("minItems", "maxItems", "minLength", "maxLength"),
        ),
    )
    for name in names
}
"""What the keywords that are looked at must hold, in words and as a test."""


class Words:
    """The words and numbers of a prompt, taken one after the other, and how much more may be made of them."""

    def __init__(self, prompt: str) -> None:
        prompt = prompt[:_MOST_OF_PROMPT]
        quoted = re.findall(r"""["'“「『]([^"'”」』]{1,80})["'”」』]""", prompt)
        # Capitals within a sentence are names; those at its start may not be.
        name = r"[A-Z][\w-]+(?: [A-Z][\w-]+)*"
        named = re.findall(rf"(?<=[\w,;:] )({name})|([\u3040-\u30ff\u4e00-\u9fff]+)", prompt)
        wanted: list[str] = [*quoted, *["".join(match) for match in named]] or re.findall(rf"\b{name}", prompt)
        self._words = wanted or re.findall(r"\w{4,}", prompt) or ["word"]
        # Longer rows of digits are keys or secrets rather than quantities, and no float holds them.
        self._numbers = re.findall(r"(?<!\d)-?\d{1,15}(?:\.\d{1,15})?(?!\d)", prompt) or ["1"]
        self._at = [0, 0]
        self._left: float = _MOST_CHARACTERS

    def word(self) -> str:
        """Return the next word, from the start again after the last."""
        self._at[0] += 1
        return self._words[(self._at[0] - 1) % len(self._words)]

    def number(self) -> Fraction:
        """Return the next number, from the start again after the last."""
        self._at[1] += 1
        return Fraction(self._numbers[(self._at[1] - 1) % len(self._numbers)])

    def spend(self, characters: float) -> None:
        """Count what is made.

        Raises:
            SchemaError: it is too much.
        """
        self._left -= characters
        if self._left < 0:
            raise SchemaError(
                f"a value that fits is larger than the sandbox makes them: over {_MOST_CHARACTERS} characters, or "
                f"{_MOST_CHARACTERS // 100} values. Lower its minItems or minLength."
            )


def fill(schema: Any, prompt: str) -> Any:
    """Return a value that fits a schema. Where a schema holds itself, the value ends one level further down.

    Raises:
        SchemaError: it is no schema, or no value of a sane size fits it. What is wrong in some odder way may raise
            anything else.
    """
    return _fill(schema, schema, Words(prompt), ())


def _fill(schema: Any, root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    """Return a value that fits a schema; `path` holds the references that led to it."""
    words.spend(100)
    schema, followed = _resolve(schema, root)
    path += followed
    if _repeats(path) > _MOST_REPEATS:
        return {}
    if "const" in schema or "enum" in schema:
        return _given(schema, words)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _one_of(schema[choice], root, words, path)
    match _type(schema):
        case "object":
            return _object(schema, root, words, path)
        case "array":
            return _list(schema, root, words, path)
        case "integer":
            return int(_number(words.number(), schema, Fraction(1)))
        case "number":
            return float(_number(words.number(), schema, None))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(schema, words)


def _repeats(path: tuple[str, ...]) -> int:
    return len(path) - len(set(path))


def _type(schema: Schema) -> str:
    named = schema.get("type", "object" if "properties" in schema else "string")
    kinds = named if isinstance(named, list) else [named]
    if not kinds or not all(kind in _TYPES for kind in kinds):
        raise SchemaError(f"type={shown(named)} must be one of {', '.join(_TYPES)}, or a list of them.")
    return next((str(kind) for kind in kinds if kind != "null"), "null")


def _given(schema: Schema, words: Words) -> Any:
    """Return the value, or the first of those, that a schema names."""
    if "const" not in schema and not schema["enum"]:
        raise SchemaError("enum=[] allows no value.")
    value = schema["const"] if "const" in schema else schema["enum"][0]
    words.spend(len(json.dumps(value)))
    return value


def _one_of(options: list[Any], root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    """Return a value that fits one of the options: null if it may, where a schema holds itself."""
    possible = [option for option in options if option is not False]
    if not possible:
        raise SchemaError(f"none of the options {shown(options)} allows a value.")
    repeats = _repeats(path)
    some = [option for option in possible if not isinstance(option, dict) or option.get("type") != "null"]
    if not some or (repeats and len(some) < len(possible)):
        return None
    simplest = min(some, key=lambda option: bool(repeats) and isinstance(option, dict) and "$ref" in option)
    return _fill(simplest, root, words, path)


def _object(schema: Schema, root: Schema, words: Words, path: tuple[str, ...]) -> Schema:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    left_out = [name for name in properties if name not in required and (_repeats(path) or properties[name] is False)]
    made = {}
    for name in dict.fromkeys([*properties, *required]):
        if name not in left_out:
            words.spend(len(name))
            made[name] = _fill(properties.get(name, True), root, words, path)
    return made


def _list(schema: Schema, root: Schema, words: Words, path: tuple[str, ...]) -> list[Any]:
    first, rest = schema.get("prefixItems", []), schema.get("items", True)
    if isinstance(rest, list):  # As drafts before 2020 have it.
        first, rest = rest, schema.get("additionalItems", True)
    wanted = 0 if _repeats(path) else len(first) or 1
    count = max(math.ceil(schema.get("minItems", 0)), wanted)
    most = len(first) if rest is False else count
    count = min(count, most, int(schema.get("maxItems", count)))
    return [_fill(first[n] if n < len(first) else rest, root, words, path) for n in range(count)]


def _text(schema: Schema, words: Words) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    word, least = words.word(), math.ceil(schema.get("minLength", 0))
    words.spend(max(len(word), least))
    return word.ljust(least, ".")[: int(schema.get("maxLength", max(len(word), least)))]


def _number(given: Fraction, schema: Schema, step: Fraction | None) -> Fraction:
    """Return a number that fits a schema: the given one if it does, else the nearest to it at or between the bounds."""
    if "multipleOf" in schema:
        multiple = _exact(schema["multipleOf"])
        step = Fraction(multiple.numerator) if step else multiple
    lows = [_exact(schema[name]) for name in ("minimum", "exclusiveMinimum") if name in schema]
    highs = [_exact(schema[name]) for name in ("maximum", "exclusiveMaximum") if name in schema]
    beyond = step or 1
    candidates = [given, *lows, *highs, *[low + beyond for low in lows], *[high - beyond for high in highs]]
    if lows and highs:
        candidates.append((max(lows) + min(highs)) / 2)
    if step:
        candidates = [step * whole(number / step) for number in candidates for whole in (math.floor, math.ceil)]
    bounds = [(holds, _exact(schema[name])) for name, holds in _BOUNDS.items() if name in schema]
    fitting = [number for number in candidates if all(holds(number, bound) for holds, bound in bounds)]
    if not fitting:
        told = {name: schema[name] for name in (*_BOUNDS, "multipleOf") if name in schema}
        raise SchemaError(f"no number fits {shown(told)}.")
    return min(fitting, key=lambda number: abs(number - given))


def _exact(number: float) -> Fraction:
    """Return a number as it was written: 0.1 is a tenth here."""
    return Fraction(number if isinstance(number, int) else str(number))


def _resolve(schema: Any, root: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Return what a schema refers to, and the references that were followed."""
    followed: tuple[str, ...] = ()
    for _ in range(8):
        schema = _checked(schema)
        if "$ref" in schema:
            followed += (schema["$ref"],)
            schema = _target(schema["$ref"], root)
        elif len(schema.get("allOf", [])) == 1:
            schema = schema["allOf"][0]
        else:
            return schema, followed
    return {}, followed


def _checked(schema: Any) -> Schema:
    """Return a schema if its keywords hold what they must. `true` is the schema that anything fits."""
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise SchemaError(f"{shown(schema)} is no schema that a value fits: it must be an object.")
    for name, value in schema.items():
        told, holds = _KEYWORDS.get(name, ("", lambda _: True))
        if not holds(value):
            raise SchemaError(f"{name}={shown(value)} must be {told}.")
    return schema


def _target(reference: str, root: Schema) -> Any:
    """Return what a JSON pointer leads to."""
    start, *names = unquote(reference).split("/")
    if start != "#":
        raise SchemaError(
            f"$ref={shown(reference)} must begin with '#/': it can only lead to a place in the same schema."
        )
    target: Any = root
    for name in (name.replace("~1", "/").replace("~0", "~") for name in names):
        try:
            target = target[int(name) if isinstance(target, list) else name]
        except (LookupError, TypeError, ValueError):
            raise SchemaError(f"$ref={shown(reference)} leads nowhere in the schema.") from None
    return target
