"""Check the arguments of constructors and calls: accepted names, valid values, and the error messages."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from empiriolabs_core.clients import Headers
from empiriolabs_core.errors import DEFAULT_API_BASE, JSON, KEY_VARIABLE, SettingsError, excerpt
from empiriolabs_core.suggestions import suggestion

DEFAULT_TIMEOUT = 900.0
"""Seconds. The gateway's own limit for one request is 15 minutes."""

OPTIONS = ("timeout", "request_timeout", "total_timeout", "max_retries", "extra_headers")
"""Arguments of a call that configure the request and are not part of its body."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LONGEST = 10**6
_PHASES = {"connect", "read", "write", "pool"}

_OURS = ("messages", "stream")
_HIDDEN = (
    "api_key",
    "base_url",
    "http_client",
    "http_async_client",
    "default_headers",
    "extra_headers",
    "extra_body",
    "model_kwargs",
)


@functools.cache
def standard_fields() -> frozenset[str]:
    """Return the names of the standard Chat Completions fields, from the OpenAI client's own parameter types."""
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Parameters

    return frozenset(Parameters.__required_keys__ | Parameters.__optional_keys__)


@functools.cache
def field_names(owner: type[BaseModel]) -> dict[str, str]:
    """Return a dictionary from every accepted name of a model's fields, including aliases, to the field's name."""
    names: dict[str, str] = {}
    for name, field in owner.model_fields.items():
        names[name] = name
        if field.alias:
            names[field.alias] = name
        if isinstance(field.validation_alias, AliasChoices):
            names.update({str(choice): name for choice in field.validation_alias.choices})
    return names


def sort_arguments(data: Mapping[str, Any], owner: type[BaseModel], per_call: type[BaseModel]) -> dict[str, Any]:
    """Sort arguments by kind: typed fields by name, standard fields in `model_kwargs`, other fields in `extra_body`.

    Typed fields are also moved out of `extra_body` and `model_kwargs`, so that the same rules apply to them. A field
    that is passed by name takes precedence.

    Args:
        data: the arguments.
        owner: the class that receives the arguments.
        per_call: the class with the fields that a body may contain.

    Raises:
        SettingsError: if a name is unknown, or an argument was passed under two names.
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
    """Return whether a field accepts `None` as a value. For other fields, `None` means "not set"."""
    return field.default is None or NoneType in get_args(field.annotation)


def _mapping(source: object) -> dict[str, Any]:
    if source is not None and not isinstance(source, Mapping):
        raise SettingsError(f"extra_body and model_kwargs must be a dict, got {type(source).__name__}.")
    return dict(source or {})


def _sort_further(
    extra: Mapping[str, Any],
    more: Mapping[str, Any],
    given: dict[str, Any],
    typed: dict[str, str],
    owner: type[BaseModel],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Move typed fields of `extra_body` and `model_kwargs` to `given`. Returns the standard and the other fields."""
    standard: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in [*extra.items(), *more.items()]:
        if name in _OURS:
            raise SettingsError(f"{name!r} is set by the adapter. Remove it from extra_body or model_kwargs.")
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
    return f"{name!r} was given twice, once as {spelling!r}. Pass it once."


def request_options(call: Mapping[str, Any]) -> JSON:
    """Return the request options of the OpenAI client that a call sets.

    Raises:
        SettingsError: if an option has an invalid value.
    """
    options: JSON = {}
    for name, value in call.items():
        if name in ("timeout", "request_timeout") and value is not None:
            if "timeout" in options:
                raise SettingsError(_given_twice("timeout", name))
            options["timeout"] = check_timeout(value)
        elif name == "total_timeout" and value is not None:
            options["total_timeout"] = check_total_timeout(value)
        elif name == "max_retries" and value is not None:
            options["max_retries"] = check_retries(value)
        elif name == "extra_headers" and value is not None:
            options["headers"] = check_headers(value, name)
    return options


def check_timeout(value: Any) -> Any:
    """Check a timeout and return it. `None` means the default: a timeout cannot be disabled.

    Raises:
        SettingsError: if the value is neither a number of seconds, more than 0 and at most 1,000,000, nor an
            `openai.Timeout` of such numbers.
    """
    if value is None:
        return DEFAULT_TIMEOUT
    if isinstance(value, Mapping) and value.keys() == _PHASES:
        # The JSON representation of an openai.Timeout.
        from openai import Timeout

        value = Timeout(**value)
    if all(hasattr(value, phase) for phase in _PHASES):
        wrong = sorted(phase for phase in _PHASES if not _is_seconds(getattr(value, phase)))
        if wrong:
            raise SettingsError(
                f"timeout: {' and '.join(wrong)} must be a number of seconds, more than 0 and at most {_LONGEST:,}, "
                f"got {value!r}."
            )
        return value
    if not _is_seconds(value):
        raise SettingsError(
            f"timeout must be a number of seconds, more than 0 and at most {_LONGEST:,}, or an openai.Timeout, got "
            f"{value!r}."
        )
    return value


def check_total_timeout(value: Any) -> float | None:
    """Check a limit for a whole call and return it; `None` for no limit.

    Raises:
        SettingsError: if the value is not a number of seconds, more than 0 and at most 1,000,000.
    """
    if value is not None and not _is_seconds(value):
        raise SettingsError(
            f"total_timeout must be a number of seconds, more than 0 and at most {_LONGEST:,}, got {value!r}."
        )
    return None if value is None else float(value)


def _is_seconds(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= _LONGEST


def check_retries(value: Any) -> int:
    """Check a number of retries and return it.

    Raises:
        SettingsError: if the value is not an integer >= 0.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError(f"max_retries must be an integer >= 0, got {value!r}.")
    return value


def hidden_headers(headers: Any, what: str) -> Headers:
    """Return headers as an object whose repr hides the values, so that tracebacks do not show them.

    Raises:
        SettingsError: if the headers are not a dict.
    """
    if isinstance(headers, Mapping):
        return headers if isinstance(headers, Headers) else Headers(headers)
    error = _not_a_dict(headers, what)
    # Keep them out of the error's frames.
    del headers
    raise error


def _not_a_dict(headers: Any, what: str) -> SettingsError:
    return SettingsError(f"{what} must be a dict of header names and values, got {type(headers).__name__}.")


def hide_headers(call: dict[str, Any]) -> None:
    """Replace a call's `extra_headers` by an object whose repr hides the values."""
    if call.get("extra_headers") is not None:
        call["extra_headers"] = hidden_headers(call.pop("extra_headers"), "extra_headers")


def check_headers(headers: Any, what: str) -> Headers:
    """Check HTTP headers and return them. They may be secret, so errors show at most the start of a name.

    Raises:
        SettingsError: if the headers are not a dict, or a name or value cannot be sent.
    """
    error = None if isinstance(headers, Mapping) else _not_a_dict(headers, what)
    checked = Headers() if error else hidden_headers(headers, what)
    del headers
    if error:
        raise error
    wrong = next(filter(None, (_wrong_with_header(name, value, what) for name, value in checked.items())), None)
    if wrong:
        raise SettingsError(f"{what}: {wrong}.")
    return checked


def _wrong_with_header(name: Any, value: Any, what: str) -> str | None:
    from openai import Omit

    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        start = re.match(_HEADER_NAME.pattern, str(name))
        return f"a name{f', which begins with {start[0]!r},' if start else ''} contains a character that is not allowed"
    if isinstance(value, Omit) and what == "extra_headers":
        return None
    printable = isinstance(value, str) and value.isascii() and value.replace("\t", "").isprintable()
    if not printable or value != value.strip():
        return f"the value of {name!r} must be a string of printable ASCII characters without spaces at its ends"
    return None


def check_key(key: SecretStr) -> SecretStr:
    """Check an API key and return it.

    Raises:
        SettingsError: if the key is empty, or contains a character that is not allowed in a header. The error does not
            show the key.
    """
    wrong = _wrong_with_key(key.get_secret_value())
    if wrong:
        raise SettingsError(f"The API key {wrong}. Check api_key or {KEY_VARIABLE}.")
    return key


def _wrong_with_key(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"must be a string, got {type(key).__name__}"
    if not key:
        return "is empty"
    if not key.isascii() or not key.isprintable() or " " in key:
        return f"({len(key)} characters) contains a space, a line break or a character outside ASCII"
    return None


def check_url(value: Any) -> str:
    """Check the URL of an API and return it without a trailing slash. Errors do not show parts that may be secret.

    Raises:
        SettingsError: if the value is not a full URL, or contains a user name, password, query or fragment.
    """
    wrong = _wrong_with_url(value)
    if wrong:
        # The value may contain a password.
        del value
        raise SettingsError(f"base_url {wrong}.")
    return str(value).rstrip("/")


def _wrong_with_url(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be a string such as {DEFAULT_API_BASE}, got {type(value).__name__}"
    if "@" in value:
        # Error messages name the URL.
        return "must not contain a user name or password. Pass them in default_headers"
    shown = "a value that looks like a key" if value.startswith("sk-") else excerpt(repr(value))
    full = f"must be a full URL such as {DEFAULT_API_BASE}, got {shown}"
    if not re.fullmatch(r"(?i)https?://[^/\s]\S*", value):
        return full
    if "?" in value or "#" in value:
        return "must end with the API's path, such as /v1, without a query or fragment. Pass keys in default_headers"
    try:
        parts = urlsplit(value)
        return None if parts.hostname and parts.port != 0 else full
    except ValueError:
        return f"must be a URL with a port from 1 to 65535, got {shown}"


def check_http_client(value: Any, name: str) -> Any:
    """Check an HTTP client and return it; `None` is allowed.

    Raises:
        SettingsError: if the value is not an HTTP client, or is sync where an async client is required or vice versa.
    """
    send, asynchronous = getattr(value, "send", None), name == "http_async_client"
    if value is not None and not (callable(send) and inspect.iscoroutinefunction(send) == asynchronous):
        wanted = "DefaultAsyncHttpxClient" if asynchronous else "DefaultHttpxClient"
        raise SettingsError(f"{name} must be an openai.{wanted}, got {type(value).__name__}.")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `over`. Nested dictionaries are merged the same way."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def unknown_argument(name: str, owner: type[BaseModel]) -> str:
    """Return the error message for an unknown argument, with a suggestion if there is one."""
    known = field_names(owner)
    if name in known:
        return _given_twice(known[name], name)
    further = "extra_body" in known
    meant = suggestion(name, {*known, *(standard_fields() if further else ())}.difference(_OURS))
    hint = f" Did you mean {meant!r}?" if meant else ""
    goes_in = " Pass other request fields in extra_body." if further else ""
    return f"{owner.__name__} has no argument {name!r}.{hint}{goes_in}"


def sentences(error: ValidationError, owner: type[BaseModel]) -> str:
    """Return one sentence per invalid argument, without values that may be secret."""
    return " ".join(_sentence(dict(detail), owner) for detail in error.errors())


def _sentence(detail: dict[str, Any], owner: type[BaseModel]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return unknown_argument(name, owner)
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    shown = type(detail["input"]).__name__ if name in _HIDDEN else excerpt(repr(detail["input"]))
    wrong = re.sub(r"^\w+ should ", "must ", str(detail["msg"]))
    if wrong.startswith("must "):
        return f"{name} {wrong}, got {shown}."
    return f"{name}={shown} is not valid: {wrong[0].lower()}{wrong[1:]}."
