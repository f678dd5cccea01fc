"""The transport: it sends request bodies and returns plain dictionaries.

The OpenAI client handles connections, TLS, retries, timeouts and status errors. It is called below its typed layer
(`cast_to=object`). The module `events` decodes server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar

import openai

from empiriolabs_core import drain
from empiriolabs_core.clients import (
    Connection,
    Headers,
    TimeLeft,
    adopt,
    async_client,
    check_usable,
    own_http_client,
    phases,
    public_connection,
    sync_client,
)
from empiriolabs_core.endpoints import CHAT, Endpoint
from empiriolabs_core.errors import JSON, InvalidReplyError, SettingsError, UsageError, excerpt, readable
from empiriolabs_core.events import DONE, EventDecoder, parse
from empiriolabs_core.failures import typed_errors, unsendable
from empiriolabs_core.replies import StreamCheck, check_completion, check_error, check_object
from empiriolabs_core.surrogates import encodable

_Result = TypeVar("_Result")
_MOST_KEPT = 10_000_000
"""Maximum number of bytes of a body that are kept before the first event."""


class Request(NamedTuple):
    """The request of one call.

    Attributes:
        body: the JSON body, in the internal form.
        options: the OpenAI client's options for this request, such as `timeout`.
        endpoint: the endpoint of a chat request.
        wire: the body in the endpoint's format; `None` if that is the internal form.
    """

    body: JSON
    options: JSON
    endpoint: Endpoint = CHAT
    wire: JSON | None = None

    @property
    def sent(self) -> JSON:
        """The body to send."""
        return self.body if self.wire is None else self.wire


class Bill(Protocol):
    """The object that a meter returns for one call. `settle` or `cancel` is called when the call ends."""

    def settle(self, usage: Mapping[str, Any] | None, /) -> None:
        """Count the call. `None` means that the call may have been served but its usage is unknown."""

    def lose(self) -> None:
        """Count an attempt of unknown cost that the client retried."""

    def cancel(self) -> None:
        """Discard the call, because it was not served."""


Meter = Callable[[Mapping[str, Any]], Bill]
"""Callable that receives the body before a request is sent. It raises an error to block the request."""


class Call:
    """One call in progress.

    Attributes:
        usage: the usage that the reply reported.
    """

    def __init__(self, bill: Bill) -> None:
        self.usage: Mapping[str, Any] | None = None
        self._bill = bill
        self._sent = False

    def attempt(self) -> None:
        """Record that the client starts an attempt. An earlier attempt that was sent but not answered is lost."""
        if self._sent:
            self._bill.lose()
        self._sent = False

    def trace(self, event: str, _: object) -> None:
        """Record from the HTTP library's trace whether bytes of the request were sent."""
        self._sent = self._sent or event.endswith("send_request_headers.started")

    async def atrace(self, event: str, _: object) -> None:
        """Do what `trace` does, asynchronously."""
        self.trace(event, _)

    def answered(self, status: int) -> None:
        """Record the status of a reply. Only successful calls are billed."""
        self._sent = self._sent and status < 300

    def note(self, request: Request, reply: object) -> object:
        """Return a reply, and record its usage. Error frames do not contain the reply, since it may repeat the key."""
        self.usage = _usage(request, reply)
        return reply

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
"""The OpenAI client reports only the number of its retries, not their reasons. Some attempts were billed."""

_NOT_CONNECTED = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError"}
)
"""Errors that the HTTP library raises before a request is sent."""


def _was_not_served(error: BaseException, request: Request) -> bool:
    """Return whether connecting failed, an HTTP error status arrived, or the body could not be sent."""
    if isinstance(error, openai.APIStatusError | SettingsError):
        return True
    if isinstance(error, openai.APIConnectionError):
        return type(error.__cause__).__name__ in _NOT_CONNECTED
    return isinstance(error, TypeError | ValueError | RecursionError) and unsendable(request.body) is not None


class Gateway:
    """OpenAI clients for one gateway. Clients are created when they are first needed.

    A copy of a gateway contains no clients. Safe to use from several threads and event loops.
    """

    def __init__(self, connection: Connection, meter: Meter) -> None:
        self.connection = connection
        self._meter = meter
        for http_client in (connection.http_client, connection.http_async_client):
            adopt(http_client)
        self._limits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, asyncio.Semaphore]] = (
            weakref.WeakKeyDictionary()
        )
        _gateways.add(self)
        self._client: openai.OpenAI | None = None
        self._async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = (
            weakref.WeakKeyDictionary()
        )

    def forget(self) -> None:
        """Discard the clients without closing their connections, which another process may share."""
        self._client = None
        self._async_clients = weakref.WeakKeyDictionary()

    def __deepcopy__(self, memo: object) -> Gateway:
        """Return a gateway with the same connection and without clients."""
        return Gateway(self.connection, self._meter)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Prevent pickling, because the connection contains the key."""
        raise UsageError("A Gateway contains an API key and cannot be pickled.")

    @property
    def client(self) -> openai.OpenAI:
        """The OpenAI client.

        Raises:
            UsageError: if `http_client` is closed, or belongs to the process from which this one was forked.
            SettingsError: if the proxy settings of the environment are invalid.
        """
        check_usable(self.connection.http_client, "http_client")
        client = self._client
        if client is None or client.is_closed():
            with one_at_a_time():
                client = self._client
                if client is None or client.is_closed():
                    client = self._client = self._new_client()
        return client

    def _new_client(self) -> openai.OpenAI:
        http_client = self.connection.http_client
        if http_client is None:
            http_client = own_http_client(openai.DefaultHttpxClient, _HOOKS)
            weakref.finalize(self, _close, http_client, os.getpid())
        return sync_client(self.connection, http_client)

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        """The asynchronous OpenAI client of the running event loop. Connections cannot change loops.

        Raises:
            UsageError: if `http_async_client` is closed, or belongs to the process from which this one was forked.
            SettingsError: if the proxy settings of the environment are invalid.
        """
        check_usable(self.connection.http_async_client, "http_async_client")
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None or client.is_closed():
            _drop_closed(self._async_clients)
            http_client = self.connection.http_async_client or own_http_client(
                openai.DefaultAsyncHttpxClient, _ASYNC_HOOKS
            )
            client = self._async_clients[loop] = async_client(self.connection, http_client)
        return client

    def async_limit(self, most: int) -> asyncio.Semaphore:
        """Return the semaphore that limits concurrent requests of one kind in the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._limits:
            _drop_closed(self._limits)
        return self._limits.setdefault(loop, {}).setdefault(most, asyncio.Semaphore(most))

    def complete(self, request: Request) -> JSON:
        """Return a chat completion that is not streamed."""
        return self._post(request.endpoint.path, request, _completion_reader(request.endpoint))

    async def acomplete(self, request: Request) -> JSON:
        """Return a chat completion that is not streamed."""
        return await self._apost(request.endpoint.path, request, _completion_reader(request.endpoint))

    def send(self, path: str, request: Request) -> JSON:
        """Return the reply of a route other than chat."""
        return self._post(path, request, check_object)

    async def asend(self, path: str, request: Request) -> JSON:
        """Return the reply of a route other than chat."""
        return await self._apost(path, request, check_object)

    def _post(self, path: str, request: Request, check: Callable[[object], JSON]) -> JSON:
        limit = self._limit(request)
        with self._typed(request, limit), self._metered(request) as call:
            if limit is not None:
                return check(
                    call.note(request, _read_in_time(self.client, path, self._arguments(request, limit), limit))
                )
            reply = self.client.post(path, **self._arguments(request, None, openai.HttpxBinaryResponseContent))
            return check(call.note(request, _read(reply)))

    async def _apost(self, path: str, request: Request, check: Callable[[object], JSON]) -> JSON:
        await _load_off_the_loop()
        limit = self._limit(request)
        with self._typed(request, limit), self._metered(request) as call:
            sent = self.async_client.post(path, **self._arguments(request, limit, openai.HttpxBinaryResponseContent))
            return check(call.note(request, _read(await _in_time(sent, limit))))

    def stream(self, request: Request) -> Generator[JSON, None, None]:
        """Yield the chunks of a streamed chat completion. Closing the iterator closes the connection."""
        check, limit = StreamCheck(), self._limit(request)
        with (
            self._typed(request, limit, check),
            self._metered(request) as call,
            self.client.post(
                request.endpoint.path, **self._arguments(request, limit), stream=True, stream_cls=openai.Stream[object]
            ) as stream,
        ):
            reader = _StreamReader(stream.response, check, request.endpoint)
            try:
                with contextlib.closing(stream.response.iter_bytes()) as reads:
                    for read in reads:
                        if limit is not None:
                            limit.check()
                        yield from reader.chunks(read)
                        if reader.done:
                            break
                    reader.end()
                    if reader.done and drain.is_possible(stream.response):
                        with drain.limited(stream.response) as spend:
                            for read in reads:
                                spend(read)
            finally:
                # Keep it out of the error's frames: it may repeat the key.
                read = b""
                call.usage = check.usage

    async def astream(self, request: Request) -> AsyncGenerator[JSON, None]:
        """Yield the chunks of a streamed chat completion. Closing the iterator closes the connection."""
        await _load_off_the_loop()
        check, limit = StreamCheck(), self._limit(request)
        with self._typed(request, limit, check), self._metered(request) as call:
            sent = self.async_client.post(
                request.endpoint.path,
                **self._arguments(request, limit),
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            async with await _in_time(sent, limit) as stream:
                reader = _StreamReader(stream.response, check, request.endpoint)
                try:
                    async with contextlib.aclosing(_reads(stream.response, limit)) as reads:
                        async for read in reads:
                            for chunk in reader.chunks(read):
                                yield chunk
                            if reader.done:
                                break
                        reader.end()
                        if reader.done and drain.is_possible(stream.response):
                            with drain.limited(stream.response) as spend:
                                async for read in reads:
                                    spend(read)
                finally:
                    read, chunk = b"", {}
                    call.usage = check.usage

    def _arguments(self, request: Request, limit: TimeLeft | None, cast_to: type = object) -> Any:
        """Return the arguments of the OpenAI client's `post`, without its typed layer."""
        options = {**request.options, "follow_redirects": False}
        options.pop("total_timeout", None)
        if limit is not None:
            options["timeout"] = limit
        elif "timeout" in options:
            options["timeout"] = phases(options["timeout"])
        if request.endpoint.headers:
            # The user's headers take precedence. The client lets headers of a request override the model's headers.
            given = {name.lower() for name in (*dict(self.connection.headers), *options.get("headers", ()))}
            needed = {name: value for name, value in request.endpoint.headers.items() if name not in given}
            options["headers"] = Headers({**needed, **options.get("headers", {})})
        return {"body": encodable(request.sent), "cast_to": cast_to, "options": options}

    def _limit(self, request: Request) -> TimeLeft | None:
        """Return the time that is left for a call; `None` without a limit."""
        total = request.options.get("total_timeout", self.connection.total_timeout)
        return None if total is None else TimeLeft(request.options.get("timeout", self.connection.timeout), total)

    def _typed(
        self, request: Request, limit: TimeLeft | None, check: StreamCheck | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return typed_errors(self.connection, request.body, request.options, check, limit)

    @contextlib.contextmanager
    def _metered(self, request: Request) -> Iterator[Call]:
        """Check budgets now, when the request is sent, and count the call when it ends."""
        call, failed = Call(self._meter(request.body)), None
        _in_progress.set(call)
        try:
            yield call
        except BaseException as error:
            failed = error
            raise
        finally:
            # No token is used: a stream may be closed in another context, where a token cannot be reset.
            _in_progress.set(None)
            call.end(failed, request)

    def close(self) -> None:
        """Close the synchronous client's connections. An `http_client` that was passed in stays open."""
        client, self._client = self._client, None
        if client is not None and self.connection.http_client is None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop's client. A passed-in `http_async_client` stays open."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None and self.connection.http_async_client is None:
            await client.close()


def _completion_reader(endpoint: Endpoint) -> Callable[[object], JSON]:
    """Return the function that reads and checks a complete reply of an endpoint."""
    if endpoint is CHAT:
        return check_completion

    @readable
    def read(reply: object) -> JSON:
        return check_completion(endpoint.read_reply(check_object(reply)))

    return read


def _usage(request: Request, reply: object) -> Mapping[str, Any] | None:
    """Return the tokens that a reply reports. They count even if the rest of the reply is invalid."""
    usage = request.endpoint.read_usage(reply.get("usage")) if isinstance(reply, Mapping) else None
    return usage if isinstance(usage, Mapping) else None


def _parsed(reply: object) -> object:
    """Parse a reply that the client returned as text because its content type is missing or not JSON."""
    if isinstance(reply, str):
        with contextlib.suppress(ValueError, RecursionError):
            return parse(reply.removeprefix("\ufeff").encode())
    return reply


def _read(reply: openai.HttpxBinaryResponseContent) -> object:
    """Return the JSON of a complete reply, or its text if it is not JSON, such as a web page.

    The content type is ignored. Parsing the bytes here needs a fifth of the client's time for embeddings.
    """
    return _read_content(reply.content, reply.response.status_code)


def _read_content(content: bytes, status: int) -> object:
    if not content.strip():
        raise InvalidReplyError(
            f"The gateway returned {status} with an empty body. Check that base_url ends with the API's path, such as "
            "/v1."
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return parse(content)
    except json.JSONDecodeError:
        if content.lstrip()[:1] in (b"{", b"["):
            raise
        return content.decode()


def _drop_closed(of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any]) -> None:
    """Discard objects of closed event loops. They refer to their loop, so they would never be freed."""
    # Copy the references first, since other threads may add loops.
    for reference in of_loops.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            of_loops.pop(loop, None)


def _close(http_client: Any, process: int) -> None:
    """Close an HTTP client, only in the process that created it. In a fork, its lock may be held forever."""
    if os.getpid() == process:
        http_client.close()


_gateways: weakref.WeakSet[Gateway] = weakref.WeakSet()
# Reentrant: while the lock is held, the garbage collector may run code that uses a gateway.
_creating = threading.RLock()


def one_at_a_time() -> threading.RLock:
    """Return the lock for creating objects that all threads share."""
    return _creating


def _start_anew() -> None:
    """Discard inherited state after a fork: connections, which would mix up answers, and a lock that may be held."""
    global _creating
    _creating = threading.RLock()
    for gateway in list(_gateways):
        gateway.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def get(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. The key is not sent."""
    connection = public_connection(base_url, timeout)
    with typed_errors(connection), own_http_client(openai.DefaultHttpxClient) as http_client:
        return _parsed(sync_client(connection, http_client).get(path, cast_to=object, options=_public_options()))


async def get_async(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. The key is not sent."""
    connection = public_connection(base_url, timeout)
    await _load_off_the_loop()
    with typed_errors(connection):
        async with own_http_client(openai.DefaultAsyncHttpxClient) as http_client:
            client = async_client(connection, http_client)
            return _parsed(await client.get(path, cast_to=object, options=_public_options()))


def _public_options() -> Any:
    return {"headers": {"Authorization": openai.Omit()}, "follow_redirects": False}


_loaded = threading.Event()


def _load() -> None:
    """Import the modules that the first async request needs, and create the TLS context."""
    with one_at_a_time():
        # An error here is raised again, and reported, where the object is needed.
        with contextlib.suppress(Exception):
            if not _loaded.is_set():
                own_http_client(openai.DefaultAsyncHttpxClient)
                # anyio imports its asyncio backend at its first use in an event loop.
                import anyio

                anyio.run(anyio.sleep, 0)
        _loaded.set()


async def _load_off_the_loop() -> None:
    """Run preparations that need a tenth of a second, once per process, in a thread to keep the event loop running."""
    if not _loaded.is_set():
        await asyncio.to_thread(_load)


def _read_in_time(client: openai.OpenAI, path: str, arguments: Any, limit: TimeLeft) -> object:
    """Return the JSON of a complete reply. It is read in chunks, so that the time limit also ends a slow reply."""
    stream_cls = openai.Stream[object]
    with client.post(path, **arguments, stream=True, stream_cls=stream_cls) as stream:
        body = bytearray()
        for read in stream.response.iter_bytes():
            limit.check()
            body += read
    return _read_content(bytes(body), stream.response.status_code)


async def _in_time(awaited: Coroutine[Any, Any, _Result], limit: TimeLeft | None) -> _Result:
    """Return the result of a coroutine.

    Raises:
        NoAnswerInTimeError: if it needs longer than the time that is left.
    """
    if limit is None:
        return await awaited
    try:
        return await asyncio.wait_for(awaited, limit.left)
    except asyncio.TimeoutError:
        raise limit.error() from None


async def _reads(response: Any, limit: TimeLeft | None) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a response as they arrive, until the time limit."""
    async with contextlib.aclosing(response.aiter_bytes()) as reads:
        if limit is None:
            async for read in reads:
                yield read
            return
        while (read := await _in_time(_next(reads), limit)) is not None:
            yield read


async def _next(reads: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(reads, None)


class _StreamReader:
    """Converts the bytes of one streamed answer to checked chunks.

    The content type is ignored, since some servers send event streams with another content type.

    Attributes:
        done: whether `[DONE]` was received. The answer ends there.
    """

    def __init__(self, response: Any, check: StreamCheck, endpoint: Endpoint) -> None:
        self.done = False
        self._response = response
        self._endpoint = endpoint
        self._translate = endpoint.reader().read if endpoint.reader else None
        self._check = check
        self._decoder = EventDecoder()
        self._start = bytearray()
        """The body before its first event, in case it is not an event stream."""

    def chunks(self, read: bytes) -> Iterator[JSON]:
        """Yield the chunks that end in the next bytes of the body."""
        decoder, see, translate = self._decoder, self._check.see, self._translate
        if not decoder.begun and len(self._start) < _MOST_KEPT:
            self._start += read
        for event in decoder.feed(read):
            if event is DONE:
                self.done = self._check.done = True
                return
            if translate is None:
                yield see(event)
            elif (chunk := translate(event)) is not None:
                yield see(chunk)

    def end(self) -> None:
        """Raise an error if the body was not a complete answer."""
        if not self._decoder.begun:
            self._check_body(self._start.decode(errors="replace").strip())
        self._check.end()

    def _check_body(self, text: str) -> None:
        """Raise an error if a body without events is not an event stream. Records the usage that the body reports."""
        found: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            found = parse(text.encode())
        if isinstance(found, dict):
            self._check.usage = self._endpoint.read_usage(found.get("usage"))
            check_error(found)
        content_type = self._response.headers.get("content-type", "no content type")
        if found is None and content_type.lower().startswith("text/event-stream"):
            return
        got = repr(excerpt(text)) if text else "an empty body"
        raise InvalidReplyError(
            f"A stream was requested, but the gateway returned {self._response.status_code} with {got} "
            f"({content_type}). "
            "Check that base_url ends with the API's path, such as /v1."
        )
