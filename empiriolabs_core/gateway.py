"""The transport: a request body goes in, plain dictionaries come out.

Connections, TLS, retries, timeouts and status errors are the OpenAI client's. It is called below its typed layer
(`cast_to=object`). Server-sent events are decoded by `events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import ssl
import sys
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import openai

from empiriolabs_core import __version__
from empiriolabs_core.errors import (
    DEFAULT_API_BASE,
    JSON,
    ConnectionDroppedError,
    InvalidReplyError,
    NoAnswerInTimeError,
    NotFoundError,
    ReportedError,
    SettingsError,
    UsageError,
    excerpt,
    names_an_error,
    refine,
)
from empiriolabs_core.events import DONE, EventDecoder, parse
from empiriolabs_core.replies import StreamCheck, check_completion, check_error, check_object
from empiriolabs_core.surrogates import encodable

CHAT = "/chat/completions"
"""Path of chat, below the base URL."""
_MOST_KEPT = 10_000_000
"""Bytes of a body that are kept while no event has come."""
CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection. The rest of a timeout is for the answer."""


class Request(NamedTuple):
    """What one call sends.

    Attributes:
        body: the JSON body.
        options: the OpenAI client's options for this request, such as `timeout`.
    """

    body: JSON
    options: JSON


@dataclass(frozen=True, repr=False)
class Connection:
    """Where and how to connect. Two equal connections can share a client.

    Attributes:
        base_url: URL of the API.
        api_key: API key.
        timeout: seconds, or an `openai.Timeout`.
        max_retries: how often the OpenAI client repeats a request.
        headers: further HTTP headers, as names and values.
        http_client: HTTP client for synchronous calls; `None` for the OpenAI client's default.
        http_async_client: HTTP client for asynchronous calls; `None` for the OpenAI client's default.
    """

    base_url: str
    api_key: str
    timeout: Any
    max_retries: int
    headers: tuple[tuple[str, str], ...]
    http_client: Any
    http_async_client: Any

    # Reporters of errors print the members of a tuple one by one, and the key with them; of this, they print the repr.
    def __repr__(self) -> str:
        """Tell all but the secrets."""
        return f"Connection({self.base_url!r})"


class Bill(Protocol):
    """What a meter returns for one call. Either `settle` or `cancel` is called when the call is over."""

    def settle(self, usage: Mapping[str, Any] | None, /) -> None:
        """Count the call. `None`: it was served, perhaps, but its usage is unknown."""

    def lose(self) -> None:
        """Count an attempt of unknown cost that the client repeated."""

    def cancel(self) -> None:
        """Forget the call: it was not served."""


Meter = Callable[[Mapping[str, Any]], Bill]
"""Called with the body when a request is sent. Raises an error to block the request."""


class Call:
    """One call in progress.

    Attributes:
        usage: what the reply reported.
    """

    def __init__(self, bill: Bill) -> None:
        self.usage: Mapping[str, Any] | None = None
        self._bill = bill
        self._sent = False

    def attempt(self) -> None:
        """Note that the client makes an attempt. One before it that was sent and not answered is lost."""
        if self._sent:
            self._bill.lose()
        self._sent = False

    def trace(self, event: str, _: object) -> None:
        """Note what the HTTP library reports: whether bytes of the request went out."""
        self._sent = self._sent or event.endswith("send_request_headers.started")

    async def atrace(self, event: str, _: object) -> None:
        """Do what `trace` does, asynchronously."""
        self.trace(event, _)

    def answered(self, status: int) -> None:
        """Note the status of a reply. Only success is billed."""
        self._sent = self._sent and status < 300

    def end(self, error: BaseException | None, request: Request) -> None:
        """Settle the bill."""
        if error is not None and _was_not_served(error, request):
            self._bill.cancel()
        else:
            self._bill.settle(self.usage)


_in_progress: ContextVar[Call | None] = ContextVar("empiriolabs_call", default=None)


def _watch(http_request: Any) -> None:
    call = _in_progress.get()
    if call is not None:
        call.attempt()
        http_request.extensions = {**http_request.extensions, "trace": call.trace}


async def _awatch(http_request: Any) -> None:
    call = _in_progress.get()
    if call is not None:
        call.attempt()
        http_request.extensions = {**http_request.extensions, "trace": call.atrace}


def _note_status(response: Any) -> None:
    call = _in_progress.get()
    if call is not None:
        call.answered(response.status_code)


async def _anote_status(response: Any) -> None:
    _note_status(response)


_HOOKS: Any = {"request": [_watch], "response": [_note_status]}
_ASYNC_HOOKS: Any = {"request": [_awatch], "response": [_anote_status]}
"""The OpenAI client reports only the number of its retries, not the reasons. Some were billed, others were not."""

_NOT_CONNECTED = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError"}
)
"""What the HTTP library raises before a request is sent."""


def _was_not_served(error: BaseException, request: Request) -> bool:
    """Return whether connecting failed, an HTTP error status arrived, or the body could not be sent."""
    if isinstance(error, openai.APIStatusError):
        return True
    if isinstance(error, openai.APIConnectionError):
        return type(error.__cause__).__name__ in _NOT_CONNECTED
    if isinstance(error, TypeError | ValueError | RecursionError):
        try:
            _refuse_what_is_no_json(request)
        except SettingsError:
            return True
    return False


class Gateway:
    """The OpenAI client, pointed at one gateway. Clients are made when they are first needed.

    A copy of a gateway holds no client. Safe to use from many threads and event loops.
    """

    def __init__(self, connection: Connection, meter: Meter) -> None:
        self.connection = connection
        self._meter = meter
        self._limits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, asyncio.Semaphore]] = (
            weakref.WeakKeyDictionary()
        )
        _gateways.add(self)
        self._client: openai.OpenAI | None = None
        self._async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = (
            weakref.WeakKeyDictionary()
        )

    def forget(self) -> None:
        """Forget the clients without closing their connections, which may be another process's too."""
        self._client = None
        self._async_clients = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: object) -> Gateway:
        """Return a gateway to the same place that has no client yet."""
        return Gateway(self.connection, self._meter)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Refuse to be pickled: the connection holds the key."""
        raise UsageError("A Gateway holds an API key and cannot be pickled.")

    @property
    def client(self) -> openai.OpenAI:
        """The OpenAI client."""
        if self._client is None:
            http_client = self.connection.http_client
            if http_client is None:
                http_client = openai.DefaultHttpxClient(verify=_tls_context(), event_hooks=_HOOKS)
                weakref.finalize(self, http_client.close)
            client = openai.OpenAI(**_client_arguments(self.connection), http_client=http_client)
            self._client = _isolate(client, self.connection)
        return self._client

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        """The asynchronous OpenAI client of the running event loop. Connections cannot change loops."""
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            _drop_closed(self._async_clients)
            client = _isolate(
                openai.AsyncOpenAI(
                    **_client_arguments(self.connection),
                    http_client=self.connection.http_async_client
                    or openai.DefaultAsyncHttpxClient(verify=_tls_context(), event_hooks=_ASYNC_HOOKS),
                ),
                self.connection,
            )
            self._async_clients[loop] = client
        return client

    def async_limit(self, most: int) -> asyncio.Semaphore:
        """Return what holds the running event loop's requests of one kind to a number at a time."""
        loop = asyncio.get_running_loop()
        if loop not in self._limits:
            _drop_closed(self._limits)
        return self._limits.setdefault(loop, {}).setdefault(most, asyncio.Semaphore(most))

    def complete(self, request: Request) -> JSON:
        """Return one whole chat completion."""
        return self._post(CHAT, request, check_completion)

    async def acomplete(self, request: Request) -> JSON:
        """Return one whole chat completion."""
        return await self._apost(CHAT, request, check_completion)

    def send(self, path: str, request: Request) -> JSON:
        """Return the reply of a route other than chat."""
        return self._post(path, request, check_object)

    async def asend(self, path: str, request: Request) -> JSON:
        """Return the reply of a route other than chat."""
        return await self._apost(path, request, check_object)

    def _post(self, path: str, request: Request, check: Callable[[object], JSON]) -> JSON:
        with _typed_errors(self.connection, request), self._metered(request) as call:
            reply = _parsed(self.client.post(path, **_arguments(request)))
            call.usage = _usage(reply)
            return check(reply)

    async def _apost(self, path: str, request: Request, check: Callable[[object], JSON]) -> JSON:
        with _typed_errors(self.connection, request), self._metered(request) as call:
            reply = _parsed(await self.async_client.post(path, **_arguments(request)))
            call.usage = _usage(reply)
            return check(reply)

    def stream(self, request: Request) -> Generator[JSON, None, None]:
        """Yield the chunks of a streamed chat completion. Closing the iterator closes the connection."""
        check = StreamCheck()
        with (
            _typed_errors(self.connection, request, check),
            self._metered(request) as call,
            self.client.post(CHAT, **_arguments(request), stream=True, stream_cls=openai.Stream[object]) as stream,
        ):
            reader = _StreamReader(stream.response, check)
            try:
                with contextlib.closing(stream.response.iter_bytes()) as reads:
                    for read in reads:
                        yield from reader.chunks(read)
                        if reader.done:
                            break
                reader.end()
            finally:
                call.usage = check.usage

    async def astream(self, request: Request) -> AsyncGenerator[JSON, None]:
        """Yield the chunks of a streamed chat completion. Closing the iterator closes the connection."""
        check = StreamCheck()
        with _typed_errors(self.connection, request, check), self._metered(request) as call:
            async with await self.async_client.post(
                CHAT, **_arguments(request), stream=True, stream_cls=openai.AsyncStream[object]
            ) as stream:
                reader = _StreamReader(stream.response, check)
                try:
                    async with contextlib.aclosing(stream.response.aiter_bytes()) as reads:
                        async for read in reads:
                            for chunk in reader.chunks(read):
                                yield chunk
                            if reader.done:
                                break
                    reader.end()
                finally:
                    call.usage = check.usage

    @contextlib.contextmanager
    def _metered(self, request: Request) -> Iterator[Call]:
        """Count one call when it is over. Check budgets now: this is when the request is sent."""
        call, failed = Call(self._meter(request.body)), None
        _in_progress.set(call)
        try:
            yield call
        except BaseException as error:
            failed = error
            raise
        finally:
            # A token could not be reset where a stream is closed in another context.
            _in_progress.set(None)
            call.end(failed, request)

    def close(self) -> None:
        """Close the synchronous client's connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def aclose(self) -> None:
        """Close the connections of the running event loop's client."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()


def _usage(reply: object) -> Mapping[str, Any] | None:
    """Return the tokens that a reply reports. They count even if the rest of it is not what was asked for."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    return usage if isinstance(usage, Mapping) else None


def _parsed(reply: object) -> object:
    """Return the JSON of a reply that the client left as text, since its content type is missing or another."""
    if isinstance(reply, str):
        with contextlib.suppress(ValueError, RecursionError):
            return parse(reply.removeprefix("\ufeff").encode())
    return reply


def _drop_closed(of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any]) -> None:
    """Let go of what belongs to event loops that are over. It refers to its loop, so it would never be freed."""
    # The references are copied at once, since other threads add loops meanwhile.
    for reference in of_loops.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            of_loops.pop(loop, None)


_gateways: weakref.WeakSet[Gateway] = weakref.WeakSet()


def _forget_all() -> None:
    for gateway in list(_gateways):
        gateway.forget()


if hasattr(os, "register_at_fork"):
    # A connection that two processes write to mixes up their answers.
    os.register_at_fork(after_in_child=_forget_all)


def get(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. No key is sent."""
    connection = _public(base_url, timeout)
    with _typed_errors(connection), openai.DefaultHttpxClient(verify=_tls_context()) as http_client:
        client = _isolate(openai.OpenAI(**_client_arguments(connection), http_client=http_client), connection)
        options: Any = {"headers": {"Authorization": openai.Omit()}}
        return _parsed(client.get(path, cast_to=object, options=options))


async def get_async(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. No key is sent."""
    connection = _public(base_url, timeout)
    with _typed_errors(connection):
        async with openai.DefaultAsyncHttpxClient(verify=_tls_context()) as http_client:
            client = _isolate(openai.AsyncOpenAI(**_client_arguments(connection), http_client=http_client), connection)
            options: Any = {"headers": {"Authorization": openai.Omit()}}
            return _parsed(await client.get(path, cast_to=object, options=options))


def _public(base_url: str, timeout: float) -> Connection:
    return Connection(base_url, "none", timeout, 2, (), None, None)


def _client_arguments(connection: Connection) -> JSON:
    return {
        "api_key": connection.api_key,
        "base_url": connection.base_url,
        "timeout": _phases(connection.timeout),
        "max_retries": connection.max_retries,
    }


def _phases(timeout: Any) -> Any:
    """Return a time-out in seconds as one for each phase of a request."""
    return (
        openai.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)) if isinstance(timeout, int | float) else timeout
    )


def _isolate(client: Any, connection: Connection) -> Any:
    """Keep what OPENAI_* environment variables put into a client from the gateway.

    The organisation, project and admin key can be unset. The headers of OPENAI_CUSTOM_HEADERS, whose
    Authorization line would replace the key, are held in a private attribute only.
    """
    client.organization = client.project = client.admin_api_key = None
    client._custom_headers = {"User-Agent": f"empiriolabs-adapters/{__version__}", **dict(connection.headers)}
    return client


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """The one TLS context of the process: making one takes some 30 ms."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not os.environ.get("SSL_CERT_FILE"):
        # Some builds of Python come without root certificates. The frameworks install certifi.
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _arguments(request: Request) -> Any:
    """Return the arguments of the OpenAI client's `post`, without its typed layer."""
    options = request.options
    if "timeout" in options:
        options = {**options, "timeout": _phases(options["timeout"])}
    return {"body": encodable(request.body), "cast_to": object, "options": options}


def _refuse_what_is_no_json(request: Request | None) -> None:
    """Raise `SettingsError` if a field of the body is the reason that it could not be encoded."""
    for name, value in (request.body if request else {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            # Its value may hold a secret.
            raise SettingsError(f"{name} cannot be sent as JSON: {error}.") from None


class _StreamReader:
    """Reads one streamed answer: bytes go in, checked chunks come out.

    The content type is not looked at, since some servers send event streams under another one.

    Attributes:
        done: whether `[DONE]` has come. Nothing after it belongs to the answer.
    """

    def __init__(self, response: Any, check: StreamCheck) -> None:
        self.done = False
        self._response = response
        self._check = check
        self._decoder = EventDecoder()
        self._start = bytearray()
        """The body up to its first event, in case it is not an event stream."""

    def chunks(self, read: bytes) -> Iterator[JSON]:
        """Yield the chunks that end within the next bytes of the body."""
        decoder, see = self._decoder, self._check.see
        if not decoder.begun and len(self._start) < _MOST_KEPT:
            self._start += read
        for event in decoder.feed(read):
            if event is DONE:
                self.done = self._check.done = True
                return
            yield see(event)

    def end(self) -> None:
        """Raise an error if the body was not a whole answer."""
        if not self._decoder.begun:
            self._check_body(self._start.decode(errors="replace").strip())
        self._check.end()

    def _check_body(self, text: str) -> None:
        """Raise an error if a body without events is not an event stream. Note the usage that it reports."""
        found: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            found = parse(text.encode())
        if isinstance(found, dict):
            self._check.usage = found.get("usage")
            check_error(found)
        content_type = self._response.headers.get("content-type", "no content type")
        if found is None and content_type.lower().startswith("text/event-stream"):
            return
        got = repr(excerpt(text)) if text else "an empty body"
        raise InvalidReplyError(
            f"A stream was asked for, but the gateway answered 200 with {got} ({content_type}). "
            "Check that base_url ends with the API's path, such as /v1."
        )


@contextlib.contextmanager
def _typed_errors(
    connection: Connection, request: Request | None = None, check: StreamCheck | None = None
) -> Iterator[None]:
    """Turn what can go wrong on the way into typed errors that say where, with a note of what a report needs."""
    try:
        with _translated(connection, request, check):
            yield
    except openai.OpenAIError as error:
        if sys.version_info >= (3, 11):
            error.add_note(_facts(connection, request, error))
        raise


def _facts(connection: Connection, request: Request | None, error: openai.OpenAIError) -> str:
    facts = [f"empiriolabs-adapters {__version__}", f"openai {openai.__version__}", connection.base_url]
    if request is not None:
        facts += [f"{name}={request.body[name]!r}" for name in ("model", "stream") if name in request.body]
    request_id = getattr(error, "request_id", None)
    return f"If you report this, say: {', '.join(facts)}{', request id ' if request_id else ''}{request_id or ''}."


@contextlib.contextmanager
def _translated(connection: Connection, request: Request | None, check: StreamCheck | None) -> Iterator[None]:
    try:
        yield
    except openai.APIStatusError as error:
        of_the_path = isinstance(error, openai.NotFoundError) and error.code is None and not names_an_error(error)
        raise (_no_such_path(connection, error) if of_the_path else refine(error)) from error
    except openai.APIConnectionError as error:
        raise _failed(connection, request, check, error, error.request) from error
    except openai.APIError as error:
        raise ReportedError(f"The gateway reported an error in mid-stream: {error.message}", error.body) from error
    except ssl.SSLError as error:
        # A certificate error is a ValueError too.
        raise _failed(connection, request, check, error, None) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidReplyError(f"The reply cannot be read as JSON: {excerpt(str(error))}. Try again.") from error
    except (TypeError, ValueError, RecursionError) as error:
        _refuse_what_is_no_json(request)
        if isinstance(error, TypeError):
            raise
        # Nested too deeply, or with an integer of thousands of digits.
        raise InvalidReplyError(f"The reply cannot be read as JSON: {excerpt(str(error))}. Try again.") from error
    except Exception as error:
        # While a stream is read, the HTTP library raises its own errors. Which library it is depends on the version of
        # openai, so it is recognised by name.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise _failed(connection, request, check, error, None) from error


def _no_such_path(connection: Connection, error: openai.APIStatusError) -> NotFoundError:
    message = (
        f"{connection.base_url} has no such path (404). base_url ends with the API's path, such as "
        f"{DEFAULT_API_BASE}, and with nothing after it."
    )
    return NotFoundError(message, response=error.response, body=error.body)


def _failed(
    connection: Connection, request: Request | None, check: StreamCheck | None, error: BaseException, sent: Any
) -> openai.APIConnectionError:
    """Return the typed error for a connection that failed, with what the HTTP library says of it.

    Args:
        connection: where to.
        request: what was asked.
        check: the stream so far, if one was asked for.
        error: what the OpenAI client raised.
        sent: the HTTP request.
    """
    cause = error.__cause__ or error
    kind, told = type(cause).__name__, str(cause).rstrip(".")
    begun = check is not None and check.begun
    whole = "What had come stays valid, but is not a whole answer: ask again"
    if isinstance(error, openai.APITimeoutError) or kind.endswith("Timeout"):
        timeout = (request.options if request else {}).get("timeout", connection.timeout)
        late = "sent nothing more" if begun else "did not answer"
        advice = f"{whole}, or raise timeout." if begun else "Raise timeout, or ask for less."
        message = f"{connection.base_url} {late} in time: {kind}, timeout={timeout}. {advice}"
        return NoAnswerInTimeError(message, sent)
    what = "broke off in mid-answer" if begun else "failed"
    advice = f"{whole}." if begun else "Check base_url, or try again."
    message = f"The connection to {connection.base_url} {what}: {kind}{told and ': '}{told}. {advice}"
    return ConnectionDroppedError(message=message, request=sent)
