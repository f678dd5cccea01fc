"""Build a value that fits a JSON schema from the words and numbers of a prompt. Deterministic.

The keywords `pattern`, `uniqueItems`, `not`, `if`, `dependent...` and an `allOf` with several schemas are ignored, so
the value may violate them.
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
"""How often a value may contain its own kind if the schema requires it. No finite value fits such a schema."""

_MOST_CHARACTERS = 200_000
"""The largest value that is built, in characters, so that every schema stays cheap. Each nested value counts as 100."""

_MOST_OF_PROMPT = 100_000
"""How many characters of a prompt are read."""

_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

# The formats of JSON Schema, and pydantic's additional ones.
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
    """The schema is invalid, or no value of reasonable size fits it."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_KEYWORDS = {
    name: (wanted, holds)
    for wanted, holds, names in (
        ("an object", lambda value: isinstance(value, dict), ("properties",)),
        (
            "a list",
            lambda value: isinstance(value, list),
            ("required", "enum", "anyOf", "oneOf", "allOf", "prefixItems"),
        ),
        ("a string", lambda value: isinstance(value, str), ("$ref", "format")),
        ("a number", _is_number, tuple(_BOUNDS)),
        ("a number > 0", lambda value: _is_number(value) and value > 0, ("multipleOf",)),
        (
            "a number >= 0",
            lambda value: _is_number(value) and value >= 0,
            ("minItems", "maxItems", "minLength", "maxLength"),
        ),
    )
    for name in names
}
"""The allowed values of the supported keywords, in words and as a test."""


class Words:
    """Hands out the words and numbers of a prompt in order, and limits the size of the value built from them."""

    def __init__(self, prompt: str) -> None:
        prompt = prompt[:_MOST_OF_PROMPT]
        quoted = re.findall(r"""["'“「『]([^"'”」』]{1,80})["'”」』]""", prompt)
        # Capitalized words within a sentence are names; those at its start may not be.
        name = r"[A-Z][\w-]+(?: [A-Z][\w-]+)*"
        named = re.findall(rf"(?<=[\w,;:] )({name})|([\u3040-\u30ff\u4e00-\u9fff]+)", prompt)
        wanted: list[str] = [*quoted, *["".join(match) for match in named]] or re.findall(rf"\b{name}", prompt)
        self._words = wanted or re.findall(r"\w{4,}", prompt) or ["word"]
        # Longer rows of digits are keys or secrets rather than quantities, and do not fit into a float.
        self._numbers = re.findall(r"(?<!\d)-?\d{1,15}(?:\.\d{1,15})?(?!\d)", prompt) or ["1"]
        self._at = [0, 0]
        self._left: float = _MOST_CHARACTERS

    def word(self) -> str:
        """Return the next word, starting over after the last."""
        self._at[0] += 1
        return self._words[(self._at[0] - 1) % len(self._words)]

    def number(self) -> Fraction:
        """Return the next number, starting over after the last."""
        self._at[1] += 1
        return Fraction(self._numbers[(self._at[1] - 1) % len(self._numbers)])

    def spend(self, characters: float) -> None:
        """Count the characters of a new value.

        Raises:
            SchemaError: if the total exceeds the limit.
        """
        self._left -= characters
        if self._left < 0:
            raise SchemaError(
                f"a value that fits exceeds the sandbox's limit of {_MOST_CHARACTERS} characters or "
                f"{_MOST_CHARACTERS // 100} values. Lower minItems or minLength."
            )


def fill(schema: Any, prompt: str) -> Any:
    """Return a value that fits a schema. A recursive schema is followed one level down.

    Raises:
        SchemaError: if the schema is invalid, or no value of reasonable size fits it.
        Exception: of any class, if the schema is invalid in an unforeseen way.
    """
    return _fill(schema, schema, Words(prompt), ())


def _fill(schema: Any, root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    """Return a value that fits a schema. `path` lists the references that led to the schema."""
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
        raise SchemaError(f"type must be one of {', '.join(_TYPES)}, or a list of them, got {shown(named)}.")
    return next((str(kind) for kind in kinds if kind != "null"), "null")


def _given(schema: Schema, words: Words) -> Any:
    """Return the `const` of a schema, or the first value of its `enum`."""
    if "const" not in schema and not schema["enum"]:
        raise SchemaError("enum must have at least one value, got [].")
    value = schema["const"] if "const" in schema else schema["enum"][0]
    words.spend(len(json.dumps(value)))
    return value


def _one_of(options: list[Any], root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    """Return a value that fits one of the options. In a recursion, null is preferred if it is an option."""
    possible = [option for option in options if option is not False]
    if not possible:
        raise SchemaError(f"at least one option must allow a value, got {shown(options)}.")
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
    if isinstance(rest, list):  # The form of drafts before 2020.
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
    """Return the number nearest to `given` that fits a schema, chosen among `given` and the schema's bounds."""
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
        limits = {name: schema[name] for name in (*_BOUNDS, "multipleOf") if name in schema}
        raise SchemaError(f"no number fits the limits {shown(limits)}.")
    return min(fitting, key=lambda number: abs(number - given))


def _exact(number: float) -> Fraction:
    """Return a number exactly as it was written: 0.1 becomes one tenth."""
    return Fraction(number if isinstance(number, int) else str(number))


def _resolve(schema: Any, root: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Return the schema behind all references, and the references that were followed."""
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
    """Return a schema if its keywords have valid values. `true` is the schema that accepts any value."""
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise SchemaError(f"a schema must be an object or true, got {shown(schema)}.")
    for name, value in schema.items():
        wanted, holds = _KEYWORDS.get(name, ("", lambda _: True))
        if not holds(value):
            raise SchemaError(f"{name} must be {wanted}, got {shown(value)}.")
    return schema


def _target(reference: str, root: Schema) -> Any:
    """Return the value that a JSON pointer refers to."""
    start, *names = unquote(reference).split("/")
    if start != "#":
        raise SchemaError(
            f"$ref must begin with '#/', because only places in the same schema are supported, got {shown(reference)}."
        )
    target: Any = root
    for name in (name.replace("~1", "/").replace("~0", "~") for name in names):
        try:
            target = target[int(name) if isinstance(target, list) else name]
        except (LookupError, TypeError, ValueError):
            raise SchemaError(f"$ref must point to a place in the schema, got {shown(reference)}.") from None
    return target
