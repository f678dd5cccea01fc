"""Create the OpenAI clients, isolated from other processes and from OpenAI's own settings."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import ssl
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import openai
from pydantic import SecretStr

from empiriolabs_core import __version__
from empiriolabs_core.errors import JSON, NoAnswerInTimeError, SettingsError, UsageError

CONNECT_TIMEOUT = 10.0
"""Maximum number of seconds to wait for a connection. The rest of a timeout is for the answer."""

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_HttpClient = TypeVar("_HttpClient")
_OpenAI = TypeVar("_OpenAI", openai.OpenAI, openai.AsyncOpenAI)


class Headers(dict[str, str]):
    """HTTP headers whose repr hides the values, since they may contain credentials."""

    def __repr__(self) -> str:
        """Return only the number of headers."""
        return f"<{len(self)} headers>"


@dataclass(frozen=True, repr=False)
class Connection:
    """The settings of a connection. Two equal connections can share a client.

    Attributes:
        base_url: URL of the API.
        api_key: API key.
        timeout: seconds, or an `openai.Timeout`.
        total_timeout: seconds for a complete call, including retries; `None` for no limit.
        max_retries: maximum number of retries of the OpenAI client.
        headers: additional HTTP headers, as names and values.
        http_client: HTTP client for synchronous calls; `None` for the OpenAI client's default.
        http_async_client: HTTP client for asynchronous calls; `None` for the OpenAI client's default.
    """

    base_url: str
    api_key: SecretStr
    timeout: Any
    total_timeout: float | None
    max_retries: int
    headers: Headers
    http_client: Any
    http_async_client: Any

    # Not a tuple: error reporters print all members of a tuple, including the key, but only the repr of other objects.
    def __repr__(self) -> str:
        """Return only the URL."""
        return f"Connection({self.base_url!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Prevent pickling, because the pickle would contain the key in plain text."""
        raise UsageError("A Connection contains an API key and cannot be pickled. Pickle the model instead.")


class TimeLeft(openai.Timeout):
    """The timeouts of a request's phases, at most the time that is left for the call.

    The OpenAI client reads them again for each attempt. They matter only for sync calls: async calls have their own
    limit.

    Args:
        timeout: timeouts by phase, or seconds for every phase.
        total: seconds for the complete call, from now on.
    """

    def __init__(self, timeout: Any, total: float) -> None:
        limits = phases(timeout)
        self._limits = {phase: getattr(limits, phase) for phase in ("connect", "read", "write", "pool")}
        self._end = time.monotonic() + total
        self.total = total

    @property
    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Raise `NoAnswerInTimeError` if no time is left."""
        if not self.left:
            raise self.error()

    def error(self) -> NoAnswerInTimeError:
        """Return the error for a call that took too long."""
        return NoAnswerInTimeError(
            f"The answer was not complete after total_timeout={self.total:g} seconds, retries included. Raise "
            "total_timeout, or request a shorter answer. Chunks that were received stay valid.",
            None,
        )

    def __getattr__(self, phase: str) -> float:
        """Return the timeout of a phase."""
        if phase not in self.__dict__.get("_limits", ()):
            raise AttributeError(phase)
        self.check()
        return min(float(self._limits[phase]), self.left)

    def __repr__(self) -> str:
        """Return the limit of the call."""
        return f"TimeLeft(total={self.total:g})"


class _Client(openai.OpenAI):
    """The OpenAI client, with waits between attempts limited to the time that is left for the call."""

    # A private method, since there is no public alternative. Without it, a call may end late by one wait.
    def _calculate_retry_timeout(self, remaining_retries: int, options: Any, response_headers: Any = None) -> float:
        seconds = super()._calculate_retry_timeout(remaining_retries, options, response_headers)
        return min(seconds, options.timeout.left) if isinstance(options.timeout, TimeLeft) else seconds


def public_connection(base_url: str, timeout: float) -> Connection:
    """Return a connection for a route that requires no key."""
    return Connection(base_url, SecretStr("none"), timeout, None, 2, Headers(), None, None)


def sync_client(connection: Connection, http_client: Any) -> openai.OpenAI:
    """Return an OpenAI client that uses an HTTP client."""
    return _isolated(_Client(**_client_arguments(connection), http_client=http_client), connection)


def async_client(connection: Connection, http_client: Any) -> openai.AsyncOpenAI:
    """Return an async OpenAI client that uses an HTTP client."""
    return _isolated(openai.AsyncOpenAI(**_client_arguments(connection), http_client=http_client), connection)


def own_http_client(kind: Callable[..., _HttpClient], event_hooks: Any = None) -> _HttpClient:
    """Return a new HTTP client of one of the OpenAI client's classes, with the process's TLS context.

    Args:
        kind: the class.
        event_hooks: functions that are called with each HTTP request and response.

    Raises:
        SettingsError: if the proxy settings of the environment are invalid.
    """
    _check_proxies()
    try:
        return kind(verify=_tls_context(), event_hooks=event_hooks)
    except Exception as error:
        # The error's text may contain the password of a proxy.
        told = type(error).__name__
    raise SettingsError(
        f"The HTTP client cannot be created ({told}). Check the environment variables HTTP_PROXY, HTTPS_PROXY, "
        "ALL_PROXY and NO_PROXY, or pass http_client and http_async_client."
    )


def phases(timeout: Any) -> Any:
    """Convert a timeout in seconds to timeouts of all phases of a request."""
    return (
        openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)) if isinstance(timeout, int | float) else timeout
    )


_owners: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def adopt(http_client: Any) -> None:
    """Record the process that a user's HTTP client belongs to: the first process in which it is used."""
    if http_client is not None:
        _owners.setdefault(http_client, os.getpid())


def check_usable(http_client: Any, name: str) -> None:
    """Raise `UsageError` if a user's HTTP client is closed, or was inherited from another process.

    Two processes that write to one connection receive each other's answers.
    """
    if http_client is None:
        return
    adopt(http_client)
    if _owners.get(http_client) != os.getpid():
        raise UsageError(
            f"{name} belongs to the process from which this one was forked, and would receive its answers. Create "
            f"{name} and the model in each process, after the fork, or leave {name} out."
        )
    if getattr(http_client, "is_closed", False):
        raise UsageError(f"{name} is closed. Pass an open client, or leave {name} out.")


def _client_arguments(connection: Connection) -> JSON:
    return {
        "api_key": connection.api_key.get_secret_value(),
        "base_url": connection.base_url,
        "timeout": phases(connection.timeout),
        "max_retries": connection.max_retries,
    }


def _isolated(client: _OpenAI, connection: Connection) -> _OpenAI:
    """Remove values of OPENAI_* environment variables from a client, so that they are not sent to the gateway.

    The organisation, project and admin key can be unset. The headers of OPENAI_CUSTOM_HEADERS, whose
    Authorization line would replace the key, are stored only in a private attribute.
    """
    client.organization = client.project = client.admin_api_key = None
    client._custom_headers = Headers({"User-Agent": f"empiriolabs-adapters/{__version__}", **connection.headers})
    return client


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Return the process's shared TLS context. Creating a context needs about 30 ms."""
    context = ssl.create_default_context()
    if _has_no_roots(context) and not os.environ.get("SSL_CERT_FILE"):
        # Some Python builds have no root certificates. The frameworks install certifi.
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _has_no_roots(context: ssl.SSLContext) -> bool:
    try:
        return not context.cert_store_stats()["x509_ca"]
    except NotImplementedError:
        # After truststore.inject_into_ssl(), the operating system verifies certificates, and they cannot be counted.
        return False


def _check_proxies() -> None:
    """Raise `SettingsError` if a proxy setting of the environment is invalid. The error does not show its value."""
    wrong = [f"{name.upper()}_PROXY {why}" for name, why in _wrong_proxies().items()]
    if wrong:
        raise SettingsError(f"{'; '.join(wrong)}. Correct or unset it, or pass http_client and http_async_client.")


def _wrong_proxies() -> dict[str, str]:
    found = getproxies()
    if "*" in [host.strip() for host in found.get("no", "").split(",")]:
        return {}
    reasons = {name: _wrong_with(found[name]) for name in ("http", "https", "all") if found.get(name)}
    return {name: why for name, why in reasons.items() if why}


def _wrong_with(proxy: str) -> str | None:
    """Return what is wrong with the URL of a proxy."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return "must be a URL with a host and a port from 1 to 65535"
    if parts.scheme not in _PROXY_SCHEMES:
        return f"must be a URL with the scheme {', '.join(_PROXY_SCHEMES[:-1])} or {_PROXY_SCHEMES[-1]}"
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "is a SOCKS proxy, which requires the package socksio: pip install socksio"
    return None
