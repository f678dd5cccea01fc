"""Makes a value that fits a JSON schema, out of the words and numbers of a prompt. Deterministic."""

from __future__ import annotations

import re
from typing import Any

Schema = dict[str, Any]

_MOST_REPEATS = 3
"""How often a value may hold its own kind where the schema leaves no other way: no finite value fits it."""


class Words:
    """The words and numbers of a prompt, taken one after the other."""

    def __init__(self, prompt: str) -> None:
        quoted = re.findall(r"""["'“「『]([^"'”」』]{1,80})["'”」』]""", prompt)
        # Capitals within a sentence are names; those at its start may not be.
        name = r"[A-Z][\w-]+(?: [A-Z][\w-]+)*"
        named = re.findall(rf"(?<=[\w,;:] )({name})|([\u3040-\u30ff\u4e00-\u9fff]+)", prompt)
        wanted: list[str] = [*quoted, *["".join(match) for match in named]] or re.findall(rf"\b{name}", prompt)
        self._words = wanted or re.findall(r"\w{4,}", prompt) or ["word"]
        self._numbers = re.findall(r"-?\d+(?:\.\d+)?", prompt) or ["1"]
        self._at = [0, 0]

    def word(self) -> str:
        """Return the next word, from the start again after the last."""
        self._at[0] += 1
        return self._words[(self._at[0] - 1) % len(self._words)]

    def number(self) -> float:
        """Return the next number, from the start again after the last."""
        self._at[1] += 1
        return float(self._numbers[(self._at[1] - 1) % len(self._numbers)])


def fill(schema: Schema, prompt: str) -> Any:
    """Return a value that fits a schema. Where a schema holds itself, the value ends one level further down."""
    return _fill(schema, schema, Words(prompt), ())


def _fill(schema: Schema, root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    """Return a value that fits a schema; `path` holds the references that led to it."""
    schema, followed = _resolve(schema, root)
    path += followed
    repeats = len(path) - len(set(path))
    if repeats > _MOST_REPEATS:
        return {}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            options = [option for option in schema[choice] if option.get("type") != "null"]
            if not options or (repeats and len(options) < len(schema[choice])):
                return None
            simplest = min(options, key=lambda option: bool(repeats) and "$ref" in option)
            return _fill(simplest, root, words, path)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next((k for k in kind if k != "null"), "null") if isinstance(kind, list) else kind
    return _of_type(kind, schema, root, words, path)


def _of_type(kind: str, schema: Schema, root: Schema, words: Words, path: tuple[str, ...]) -> Any:
    is_brief = len(path) > len(set(path))
    match kind:
        case "object":
            properties = schema.get("properties", {})
            names = [name for name in properties if not is_brief or name in schema.get("required", ())]
            return {name: _fill(properties[name], root, words, path) for name in names}
        case "array":
            count = max(int(schema.get("minItems", 0)), 0 if is_brief else 1)
            return [_fill(schema.get("items", {}), root, words, path) for _ in range(count)]
        case "integer":
            return int(_within(words.number(), schema))
        case "number":
            return _within(words.number(), schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            word = words.word()
            return word.ljust(int(schema.get("minLength", 0)), ".")[: schema.get("maxLength")]


def _within(number: float, schema: Schema) -> float:
    low = schema.get(
        "minimum", schema.get("exclusiveMinimum", number - 1) + 1 if "exclusiveMinimum" in schema else None
    )
    high = schema.get("maximum", schema.get("exclusiveMaximum", 0) - 1 if "exclusiveMaximum" in schema else None)
    number = number if low is None else max(number, low)
    return number if high is None else min(number, high)


def _resolve(schema: Schema, root: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Return what a schema refers to, and the references that were followed."""
    followed: tuple[str, ...] = ()
    for _ in range(8):
        if "$ref" in schema:
            followed += (schema["$ref"],)
            target: Any = root
            for name in filter(None, schema["$ref"].lstrip("#/").split("/")):
                target = target[name]
            schema = target
        elif len(schema.get("allOf", [])) == 1:
            schema = schema["allOf"][0]
        else:
            return schema, followed
    return {}, followed
