"""What constructors and calls may be given: accepted spellings, unknown names, and the sentences that say so."""

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
"""Seconds: the gateway's own limit for one request is 15 minutes."""

OPTIONS = ("timeout", "request_timeout", "total_timeout", "max_retries", "extra_headers")
"""Arguments of a call that are about the request, not its body."""

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
        elif name == "total_timeout" and value is not None:
            options["total_timeout"] = check_total_timeout(value)
        elif name == "max_retries" and value is not None:
            options["max_retries"] = check_retries(value)
        elif name == "extra_headers" and value is not None:
            options["headers"] = check_headers(value, name)
    return options


def check_timeout(value: Any) -> Any:
    """Return a usable timeout; `None` is the default, since waiting for ever is never wanted.

    Raises:
        SettingsError: it is neither a number of seconds, more than 0 and at most 1,000,000, nor an `openai.Timeout` of
            such numbers.
    """
    if value is None:
        return DEFAULT_TIMEOUT
    if isinstance(value, Mapping) and value.keys() == _PHASES:
        # What an openai.Timeout is in JSON.
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
    """Return a usable limit for a whole call; `None` for no limit.

    Raises:
        SettingsError: it is not a number of seconds, more than 0 and at most 1,000,000.
    """
    if value is not None and not _is_seconds(value):
        raise SettingsError(
            f"total_timeout must be a number of seconds, more than 0 and at most {_LONGEST:,}, got {value!r}."
        )
    return None if value is None else float(value)


def _is_seconds(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= _LONGEST


def check_retries(value: Any) -> int:
    """Return a usable number of retries."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingsError(f"max_retries={value!r} is no whole number of 0 or more.")
    return value


def hidden_headers(headers: Any, what: str) -> Headers:
    """Return headers as an object that shows no value, for the frames that an error passes through.

    Raises:
        SettingsError: they are not a dict.
    """
    if isinstance(headers, Mapping):
        return headers if isinstance(headers, Headers) else Headers(headers)
    error = _not_a_dict(headers, what)
    # No frame of the error shows them.
    del headers
    raise error


def _not_a_dict(headers: Any, what: str) -> SettingsError:
    return SettingsError(f"{what} must be a dict of header names and values, got {type(headers).__name__}.")


def hide_headers(call: dict[str, Any]) -> None:
    """Put headers in place of a call's `extra_headers` that show no value."""
    if call.get("extra_headers") is not None:
        call["extra_headers"] = hidden_headers(call.pop("extra_headers"), "extra_headers")


def check_headers(headers: Any, what: str) -> Headers:
    """Return HTTP headers that can be sent. They may be secret, so no error shows more than the start of a name.

    Raises:
        SettingsError: they are not a dict, or a name or value cannot be sent.
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
        return f"a name{f', which begins with {start[0]!r},' if start else ''} has a character that is not allowed"
    if isinstance(value, Omit) and what == "extra_headers":
        return None
    printable = isinstance(value, str) and value.isascii() and value.replace("\t", "").isprintable()
    if not printable or value != value.strip():
        return f"the value of {name!r} must be a string of printable ASCII characters without spaces at its ends"
    return None


def check_key(key: SecretStr) -> SecretStr:
    """Return an API key that can be sent.

    Raises:
        SettingsError: it is empty, or contains a character that a header cannot hold. The key is not shown.
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
    """Return the URL of an API, without a slash at its end. A part that may be secret is in no error.

    Raises:
        SettingsError: it is not a full URL, or has a user name, password, query or fragment.
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
    """Return an HTTP client, or `None`.

    Raises:
        SettingsError: it is something else, or a client of the other kind.
    """
    send, asynchronous = getattr(value, "send", None), name == "http_async_client"
    if value is not None and not (callable(send) and inspect.iscoroutinefunction(send) == asynchronous):
        wanted = "DefaultAsyncHttpxClient" if asynchronous else "DefaultHttpxClient"
        raise SettingsError(f"{name} must be an openai.{wanted}, got {type(value).__name__}.")
    return value


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
