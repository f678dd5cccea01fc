"""Convert failures of requests to typed errors that contain no secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import openai

from empiriolabs_core import __version__
from empiriolabs_core.clients import Connection, TimeLeft
from empiriolabs_core.errors import (
    DEFAULT_API_BASE,
    JSON,
    ConnectionDroppedError,
    EmpirioLabsError,
    InvalidReplyError,
    NoAnswerInTimeError,
    NotFoundError,
    RedirectError,
    ReportedError,
    SettingsError,
    UsageError,
    described,
    excerpt,
    names_an_error,
    refine,
)

_HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "anyio", "h11", "h2", "socksio")
_PUBLIC_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "connection", "content-type", "user-agent"}
)
_ALMOST = 0.01
"""Tolerance in seconds. A read whose timeout is the time that is left may end slightly earlier."""
_SHORTEST_SECRET = 8
"""Minimum length in characters of a value to replace. Replacing a header's `7`, for example, would garble messages."""


class typed_errors:
    """Context manager that converts exceptions to typed errors, with a note for bug reports.

    The error has no cause, no context and no inner frames. Frames of the OpenAI client and the HTTP library contain the
    key, and frames that read a reply may contain a copy that the gateway sent back.

    Args:
        connection: the connection of the request.
        body: the JSON body.
        options: the options of the request.
        check: the `StreamCheck` of a stream.
        limit: the time that is left of the call.
    """

    def __init__(
        self,
        connection: Connection,
        body: JSON | None = None,
        options: JSON | None = None,
        check: Any = None,
        limit: TimeLeft | None = None,
    ) -> None:
        self._connection = connection
        self._body, self._options = body or {}, options or {}
        self._check, self._limit = check, limit

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the typed error, if there is one."""
        typed = self._typed(error) if isinstance(error, Exception) else None
        if typed is None:
            return
        del kind, error, trace
        try:
            raise typed.with_traceback(None) from None
        finally:
            typed.__context__ = None

    def _typed(self, error: Exception) -> Exception | None:
        typed = _typed(error, self._connection, self._body, self._options, self._check)
        if typed is None:
            return None
        if isinstance(typed, openai.APITimeoutError) and self._limit is not None and self._limit.left < _ALMOST:
            typed = self._limit.error()
        _scrub(typed, _secrets(self._connection, self._options))
        if isinstance(typed, openai.OpenAIError) and sys.version_info >= (3, 11):
            typed.add_note(_facts(self._connection, self._body, typed))
        return typed


def _facts(connection: Connection, body: JSON, error: Exception) -> str:
    facts = [f"empiriolabs-adapters {__version__}", f"openai {openai.__version__}", connection.base_url]
    facts += [f"{name}={body[name]!r}" for name in ("model", "stream") if name in body]
    request_id = getattr(error, "request_id", None)
    return f"If you report this, include: {', '.join(facts)}{', request id ' if request_id else ''}{request_id or ''}."


def _typed(error: Exception, connection: Connection, body: JSON, options: JSON, check: Any) -> Exception | None:
    """Return the typed error for an exception; `None` if the exception is not about the request."""
    if isinstance(error, EmpirioLabsError):
        return error
    if isinstance(error, openai.APIStatusError):
        return _status(connection, error)
    if isinstance(error, openai.APIConnectionError):
        return _failed(connection, options, check, error, error.request)
    if isinstance(error, openai.APIError):
        return ReportedError(f"The gateway reported an error during the stream: {described(error.body)}", error.body)
    if isinstance(error, OSError):
        # A certificate error is also a ValueError.
        return _failed(connection, options, check, error, None)
    if isinstance(error, UnicodeDecodeError | TypeError | ValueError | RecursionError):
        refused = unsendable(body)
        if refused is not None:
            return refused
        if isinstance(error, UnicodeDecodeError | json.JSONDecodeError) or _in_json(error):
            return InvalidReplyError(f"The reply cannot be read as JSON: {excerpt(str(error))}. Retry.")
    if isinstance(error, RuntimeError) and (connection.http_client or connection.http_async_client) is not None:
        return UsageError(f"The http_client or http_async_client cannot be used: {excerpt(str(error))}.")
    # openai 2 lets errors of its HTTP library through while a stream is read. Which library it is depends on the
    # version of openai, so it is recognised by name.
    library = type(error).__module__.partition(".")[0] in _HTTP_LIBRARIES
    if library or isinstance(error, OverflowError | ValueError) or type(error).__name__ == "ExceptionGroup":
        return _failed(connection, options, check, error, None)
    return None


def _in_json(error: BaseException) -> bool:
    """Return whether the JSON decoder raised an error, because of deep nesting or a very long integer."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == Path(json.__file__).parent


def unsendable(body: JSON) -> SettingsError | None:
    """Return the error for the first field of a body that cannot be encoded, if any. Its value is not shown."""
    for name, value in body.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            return SettingsError(f"{name} cannot be sent as JSON: {error}.")
    return None


def _status(connection: Connection, error: openai.APIStatusError) -> Exception:
    location = error.response.headers.get("location")
    if 300 <= error.status_code < 400 and location:
        message = (
            f"{connection.base_url} redirected the request to {_place(connection.base_url, location)} "
            f"({error.status_code}). Redirects are not followed, since the key and the prompt would go there. If the "
            "API has moved, set base_url to its new URL."
        )
        return RedirectError(message, response=error.response, body=error.body)
    if isinstance(error, openai.NotFoundError) and error.code is None and not names_an_error(error):
        message = (
            f"{connection.base_url} does not serve this path (404). base_url must end with the API's path, such as "
            f"{DEFAULT_API_BASE}, without anything after it."
        )
        return NotFoundError(message, response=error.response, body=error.body)
    return refine(error)


def _place(base_url: str, location: str) -> str:
    """Return the target of a redirect without user name, password and query, which may be secret."""
    try:
        parts = urlsplit(urljoin(base_url, location))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid URL"
    return excerpt(f"{parts.scheme}://{parts.hostname}{port}{parts.path}")


def _failed(connection: Connection, options: JSON, check: Any, error: BaseException, sent: Any) -> Exception:
    """Return the typed error for a failed connection, with the HTTP library's message.

    Args:
        connection: the connection of the request.
        options: the options of the request.
        check: the state of the stream; `None` if the request is not streamed.
        error: the error that the OpenAI client raised.
        sent: the HTTP request.
    """
    cause = error.__cause__ or error
    kind, told = type(cause).__name__, str(cause).rstrip(".")
    if kind == "LocalProtocolError":
        # The library's message contains the header.
        told = "a header of the HTTP client cannot be sent"
    begun = check is not None and check.begun
    whole = "The answer is incomplete; chunks that were received stay valid. Retry"
    if isinstance(error, openai.APITimeoutError) or kind.endswith(("Timeout", "TimeoutError")):
        timeout = options.get("timeout", connection.timeout)
        late = "sent nothing more" if begun else "did not answer"
        advice = f"{whole}, or raise timeout." if begun else "Raise timeout, or request a shorter answer."
        message = f"{connection.base_url} {late} in time: {kind}, timeout={timeout}. {advice}"
        return NoAnswerInTimeError(message, sent)
    what = "was lost during the answer" if begun else "failed"
    advice = f"{whole}." if begun else "Check base_url, or retry."
    message = f"The connection to {connection.base_url} {what}: {kind}{told and ': '}{told}. {advice}"
    return ConnectionDroppedError(message=message, request=sent)


def _secrets(connection: Connection, options: JSON) -> list[str]:
    """Return the key and the header values that a reply may repeat, longest first."""
    headers = [*connection.headers.items(), *(options.get("headers") or {}).items()]
    for http_client in (connection.http_client, connection.http_async_client):
        headers += dict(getattr(http_client, "headers", None) or {}).items()
    values = [value for name, value in headers if isinstance(value, str) and name.lower() not in _PUBLIC_HEADERS]
    values = [connection.api_key.get_secret_value(), *values, *(part for value in values for part in value.split())]
    return sorted({value for value in values if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True)


def _scrub(error: Exception, secrets: list[str]) -> None:
    """Remove secrets that the gateway repeated from an error, and the headers from its request."""
    error.args = tuple(_scrubbed(argument, secrets) for argument in error.args)
    for name, value in vars(error).items():
        if name == "request":
            vars(error)[name] = _bare_request(value)
        elif name == "response":
            vars(error)[name] = _bare_response(value, secrets)
        elif name != "__notes__":
            vars(error)[name] = _scrubbed(value, secrets)


def _scrubbed(value: Any, secrets: list[str]) -> Any:
    """Return a JSON value with `***` in place of secrets."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return value
    escaped = [json.dumps(secret)[1:-1] for secret in secrets]
    if not any(secret in text for secret in escaped):
        return value
    for secret in escaped:
        text = text.replace(secret, "***")
    return json.loads(text)


def _bare_request(request: Any) -> Any:
    """Return an HTTP request without headers and body."""
    return None if request is None else type(request)(request.method, request.url)


def _bare_response(response: Any, secrets: list[str]) -> Any:
    """Return an HTTP response without repeated secrets, whose request has no headers."""
    try:
        content = response.content
    except RuntimeError:
        # The response was closed before it was read.
        content = b""
    for secret in secrets:
        content = content.replace(secret.encode(), b"***")
    # The content is decoded, so its length may differ. The target of a redirect may contain a password.
    dropped = ("content-encoding", "content-length", "transfer-encoding", "set-cookie", "location")
    headers = [(name, _scrubbed(value, secrets)) for name, value in response.headers.items() if name not in dropped]
    return type(response)(
        response.status_code, headers=headers, content=content, request=_bare_request(response.request)
    )
