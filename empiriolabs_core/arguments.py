"""What constructors and calls may be given: accepted spellings, unknown names, and the sentences that say so."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from empiriolabs_core.errors import DEFAULT_API_BASE, JSON, SettingsError, excerpt
from empiriolabs_core.suggestions import suggestion

DEFAULT_TIMEOUT = 900.0
"""Seconds: the gateway's own limit for one request is 15 minutes."""

OPTIONS = ("timeout", "request_timeout", "max_retries", "extra_headers")
"""Arguments of a call that are about the request, not its body."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LONGEST = 10**6
_PHASES = {"connect", "read", "write", "pool"}

_OURS = ("messages", "stream")
_HIDDEN = ("api_key", "default_headers", "extra_headers", "extra_body", "model_kwargs")


@functools.cache
def standard_fields() -> frozenset[str]:
    """Names of the standard Chat Completions fields. The OpenAI client's own parameter types list them."""
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Parameters

    return frozenset(Parameters.__required_keys__ | Parameters.__optional_keys__)


@functools.cache
def field_names(owner: type[BaseModel]) -> dict[str, str]:
    """Every accepted spelling of a model's fields, with the name of the field."""
    names: dict[str, str] = {}
    for name, field in owner.model_fields.items():
        names[name] = name
        if field.alias:
            names[field.alias] = name
        if isinstance(field.validation_alias, AliasChoices):
            names.update({str(choice): name for choice in field.validation_alias.choices})
    return names


def sort_arguments(data: Mapping[str, Any], owner: type[BaseModel], per_call: type[BaseModel]) -> dict[str, Any]:
    """Put each argument where it belongs: typed fields by name, standard fields in `model_kwargs`.

    Names that this package knows are taken out of `extra_body` and `model_kwargs` too, so that the rules
    see them wherever they were given. A field given by name wins.

    Args:
        data: the arguments.
        owner: the class whose arguments they are.
        per_call: the class whose fields a body may hold.

    Raises:
        SettingsError: a name is unknown, or given under two spellings.
    """
    names = field_names(owner)
    given = {
        name: value
        for name, value in _by_field_name(data, names, owner).items()
        if value is not None or name not in names or _takes_none(owner.model_fields[name])
    }
    extra, more = _mapping(given.pop("extra_body", None)), _mapping(given.pop("model_kwargs", None))
    # In LlamaIndex's OpenAILike, extra_body is a key of additional_kwargs.
    extra = {**_mapping(more.pop("extra_body", None)), **extra}
    standard, unknown = _sort_further(extra, more, given, field_names(per_call), owner)
    for name in [name for name in given if name not in names]:
        standard[name] = given.pop(name)
    if standard:
        given["model_kwargs"] = standard
    if unknown:
        given["extra_body"] = unknown
    return given


def _takes_none(field: FieldInfo) -> bool:
    """Tell whether `None` is a value of a field. Of others it means "not set"."""
    return field.default is None or NoneType in get_args(field.annotation)


def _mapping(source: object) -> dict[str, Any]:
    if source is not None and not isinstance(source, Mapping):
        raise SettingsError(f"extra_body and model_kwargs take a dict, not {type(source).__name__}.")
    return dict(source or {})


def _sort_further(
    extra: Mapping[str, Any],
    more: Mapping[str, Any],
    given: dict[str, Any],
    typed: dict[str, str],
    owner: type[BaseModel],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Move typed fields of `extra_body` and `model_kwargs` to `given`; return the standard and the unknown ones."""
    standard: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in [*extra.items(), *more.items()]:
        if name in _OURS:
            raise SettingsError(f"{name!r} is set by the adapter and cannot be given in extra_body or model_kwargs.")
        if name in typed:
            if given.get(typed[name]) is None:
                given[typed[name]] = value
        elif name in standard_fields():
            standard[name] = value
        elif name in extra:
            unknown[name] = value
        else:
            raise SettingsError(unknown_argument(name, owner))
    return standard, unknown


def _by_field_name(data: Mapping[str, Any], names: dict[str, str], owner: type[BaseModel]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for spelling, value in data.items():
        name = names.get(spelling, spelling)
        if name not in names and (name in _OURS or name not in standard_fields()):
            raise SettingsError(unknown_argument(name, owner))
        if given.get(name) is not None and value is not None:
            raise SettingsError(_given_twice(name, spelling))
        if value is not None or name not in given:
            given[name] = value
    return given


def _given_twice(name: str, spelling: str) -> str:
    return f"{name!r} was given twice, once as {spelling!r}. Give it once."


def request_options(call: Mapping[str, Any]) -> JSON:
    """Return the OpenAI client's options for one request that a call names.

    Raises:
        SettingsError: a value is not of the kind that the option takes.
    """
    options: JSON = {}
    for name, value in call.items():
        if name in ("timeout", "request_timeout") and value is not None:
            if "timeout" in options:
                raise SettingsError(_given_twice("timeout", name))
            options["timeout"] = check_timeout(value)
        elif name == "max_retries" and value is not None:
            options["max_retries"] = check_retries(value)
        elif name == "extra_headers" and value:
            options["headers"] = check_headers(value, name)
    return options


def check_timeout(value: Any) -> Any:
    """Return a usable timeout; `None` is the default, since waiting for ever is never wanted."""
    if value is None:
        return DEFAULT_TIMEOUT
    if all(hasattr(value, phase) for phase in _PHASES):
        if unlimited := sorted(phase for phase in _PHASES if getattr(value, phase) is None):
            raise SettingsError(
                f"timeout={value!r} sets no limit for {' and '.join(unlimited)}. Give each one seconds."
            )
        return value
    if isinstance(value, Mapping) and value.keys() == _PHASES:
        # What an openai.Timeout is in JSON.
        from openai import Timeout

        return Timeout(**value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise SettingsError(
            f"timeout={value!r} is no positive number of seconds up to {_LONGEST:,}, nor an openai.Timeout."
        )
    return value


def check_retries(value: Any) -> int:
    """Return a usable number of retries."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError(f"max_retries={value!r} is no whole number of 0 or more.")
    return value


def check_headers(headers: Any, what: str) -> dict[str, str]:
    """Return HTTP headers that can be sent. They may be secret, so no error shows more than the start of a name."""
    from openai import Omit

    if not isinstance(headers, Mapping):
        raise SettingsError(f"{what} takes a dict of header names and values, not {type(headers).__name__}.")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            start = re.match(_HEADER_NAME.pattern, str(name))
            shown = f", which begins with {start[0]!r}," if start else ""
            raise SettingsError(f"{what}: a name{shown} holds a character that no name of an HTTP header has.")
        if isinstance(value, Omit) and what == "extra_headers":
            continue
        if not isinstance(value, str) or not value.isascii() or not value.replace("\t", "").isprintable():
            raise SettingsError(f"{what}: the value of {name!r} must be a string of printable ASCII characters.")
    return dict(headers)


def check_url(value: str) -> str:
    """Return the URL of an API, without a slash at its end. A part that may be secret is in no error."""
    if not re.match(r"https?://[^/\s]\S*$", value):
        shown = "the value, which looks like a key," if value.startswith("sk-") else f"{value!r}"
        raise SettingsError(f"base_url: {shown} is no URL. Write it in full, such as {DEFAULT_API_BASE}.")
    if "@" in urlsplit(value).netloc:
        # Error messages name the URL.
        raise SettingsError("base_url holds a user name or password. Pass them in default_headers.")
    return value.rstrip("/")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top, dictionaries within them merged likewise."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def unknown_argument(name: str, owner: type[BaseModel]) -> str:
    """Say that there is no such argument, and which one may be meant."""
    known = field_names(owner)
    if name in known:
        return _given_twice(known[name], name)
    further = "extra_body" in known
    meant = suggestion(name, {*known, *(standard_fields() if further else ())}.difference(_OURS))
    hint = f" Did you mean {meant!r}?" if meant else ""
    goes_in = " A body field that it does not know goes in extra_body." if further else ""
    return f"{owner.__name__} knows no argument {name!r}.{hint}{goes_in}"


def sentences(error: ValidationError, owner: type[BaseModel]) -> str:
    """Say what is wrong with the arguments, a sentence each, without the values that may be secret."""
    return " ".join(_sentence(dict(detail), owner) for detail in error.errors())


def _sentence(detail: dict[str, Any], owner: type[BaseModel]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return unknown_argument(name, owner)
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    shown = type(detail["input"]).__name__ if name in _HIDDEN else excerpt(repr(detail["input"]))
    return f"{name}={shown} is refused: {detail['msg'][0].lower()}{detail['msg'][1:]}."
