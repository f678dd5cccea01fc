"""The transport: a request body goes in, plain dictionaries come out.

Connections, TLS, retries, timeouts and status errors are the OpenAI client's. It is called below its typed layer
(`cast_to=object`). Server-sent events are decoded by `events`.
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
"""Bytes of a body that are kept while no event has come."""


class Request(NamedTuple):
    """What one call sends.

    Attributes:
        body: the JSON body, in the internal form.
        options: the OpenAI client's options for this request, such as `timeout`.
        endpoint: the endpoint of a chat request.
        wire: the body as the endpoint has it; `None` if that is the internal form.
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

    def note(self, request: Request, reply: object) -> object:
        """Return a reply, and note its usage. No frame of an error shows it: it may repeat the key."""
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
"""The OpenAI client reports only the number of its retries, not the reasons. Some were billed, others were not."""

_NOT_CONNECTED = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError"}
)
"""What the HTTP library raises before a request is sent."""


def _was_not_served(error: BaseException, request: Request) -> bool:
    """Return whether connecting failed, an HTTP error status arrived, or the body could not be sent."""
    if isinstance(error, openai.APIStatusError | SettingsError):
        return True
    if isinstance(error, openai.APIConnectionError):
        return type(error.__cause__).__name__ in _NOT_CONNECTED
    return isinstance(error, TypeError | ValueError | RecursionError) and unsendable(request.body) is not None


class Gateway:
    """The OpenAI client, pointed at one gateway. Clients are made when they are first needed.

    A copy of a gateway holds no client. Safe to use from many threads and event loops.
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
        """The OpenAI client.

        Raises:
            UsageError: `http_client` is closed, or belongs to the process that this one was forked from.
            SettingsError: the proxy settings of the environment cannot be used.
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
            UsageError: `http_async_client` is closed, or belongs to the process that this one was forked from.
            SettingsError: the proxy settings of the environment cannot be used.
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
        """Return what holds the running event loop's requests of one kind to a number at a time."""
        loop = asyncio.get_running_loop()
        if loop not in self._limits:
            _drop_closed(self._limits)
        return self._limits.setdefault(loop, {}).setdefault(most, asyncio.Semaphore(most))

    def complete(self, request: Request) -> JSON:
        """Return one whole chat completion."""
        return self._post(request.endpoint.path, request, _completion_reader(request.endpoint))

    async def acomplete(self, request: Request) -> JSON:
        """Return one whole chat completion."""
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
                # An error must not show it: it may repeat the key.
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
            # The user's headers have precedence. The client puts those of a request over the model's.
            given = {name.lower() for name in (*dict(self.connection.headers), *options.get("headers", ()))}
            needed = {name: value for name, value in request.endpoint.headers.items() if name not in given}
            options["headers"] = Headers({**needed, **options.get("headers", {})})
        return {"body": encodable(request.sent), "cast_to": cast_to, "options": options}

    def _limit(self, request: Request) -> TimeLeft | None:
        """Return the time that is left of a call, if that is limited."""
        total = request.options.get("total_timeout", self.connection.total_timeout)
        return None if total is None else TimeLeft(request.options.get("timeout", self.connection.timeout), total)

    def _typed(
        self, request: Request, limit: TimeLeft | None, check: StreamCheck | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return typed_errors(self.connection, request.body, request.options, check, limit)

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
        """Close the synchronous client's connections. An `http_client` that was passed in stays open."""
        client, self._client = self._client, None
        if client is not None and self.connection.http_client is None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop's client. A passed `http_async_client` stays open."""
        client = self._async_clients.pop(asyncio.get_running_loop(), None)
        if client is not None and self.connection.http_async_client is None:
            await client.close()


def _completion_reader(endpoint: Endpoint) -> Callable[[object], JSON]:
    """Return the function that reads and checks a whole reply of an endpoint."""
    if endpoint is CHAT:
        return check_completion

    @readable
    def read(reply: object) -> JSON:
        return check_completion(endpoint.read_reply(check_object(reply)))

    return read


def _usage(request: Request, reply: object) -> Mapping[str, Any] | None:
    """Return the tokens that a reply reports. They count even if the rest of it is not what was asked for."""
    usage = request.endpoint.read_usage(reply.get("usage")) if isinstance(reply, Mapping) else None
    return usage if isinstance(usage, Mapping) else None


def _parsed(reply: object) -> object:
    """Return the JSON of a reply that the client left as text, since its content type is missing or another."""
    if isinstance(reply, str):
        with contextlib.suppress(ValueError, RecursionError):
            return parse(reply.removeprefix("\ufeff").encode())
    return reply


def _read(reply: openai.HttpxBinaryResponseContent) -> object:
    """Return the JSON of a whole reply, or its text if it is not JSON, a web page for instance.

    The content type is not looked at. Reading the bytes here takes a fifth of the client's time for embeddings.
    """
    return _read_content(reply.content, reply.response.status_code)


def _read_content(content: bytes, status: int) -> object:
    if not content.strip():
        raise InvalidReplyError(
            f"The gateway answered {status} with an empty body. Check that base_url ends with the API's path, such as "
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
    """Let go of what belongs to event loops that are over. It refers to its loop, so it would never be freed."""
    # The references are copied at once, since other threads add loops meanwhile.
    for reference in of_loops.keyrefs():
        loop = reference()
        if loop is not None and loop.is_closed():
            of_loops.pop(loop, None)


def _close(http_client: Any, process: int) -> None:
    """Close an HTTP client in the process that created it. In a fork, its lock may be held for ever."""
    if os.getpid() == process:
        http_client.close()


_gateways: weakref.WeakSet[Gateway] = weakref.WeakSet()
# Reentrant: while it is held, the garbage collector may run code that uses a gateway.
_creating = threading.RLock()


def one_at_a_time() -> threading.RLock:
    """Return the lock that is held while something is created of which there must be one for all threads."""
    return _creating


def _start_anew() -> None:
    """Let go of what a fork inherits: connections, which would mix up answers, and a lock that may be held."""
    global _creating
    _creating = threading.RLock()
    for gateway in list(_gateways):
        gateway.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def get(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. No key is sent."""
    connection = public_connection(base_url, timeout)
    with typed_errors(connection), own_http_client(openai.DefaultHttpxClient) as http_client:
        return _parsed(sync_client(connection, http_client).get(path, cast_to=object, options=_public_options()))


async def get_async(base_url: str, path: str, timeout: float) -> object:
    """Return the JSON of a public route. No key is sent."""
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
    """Import what the first asynchronous request needs, and make the TLS context."""
    with one_at_a_time():
        # What fails here fails again, and is reported, where it is needed.
        with contextlib.suppress(Exception):
            if not _loaded.is_set():
                own_http_client(openai.DefaultAsyncHttpxClient)
                # anyio imports its module for asyncio when an event loop first uses it.
                import anyio

                anyio.run(anyio.sleep, 0)
        _loaded.set()


async def _load_off_the_loop() -> None:
    """Do what takes a tenth of a second, once in a process, in a thread, so that the event loop goes on."""
    if not _loaded.is_set():
        await asyncio.to_thread(_load)


def _read_in_time(client: openai.OpenAI, path: str, arguments: Any, limit: TimeLeft) -> object:
    """Return the JSON of a whole reply. It is read in pieces, so that one that trickles in ends in time."""
    stream_cls = openai.Stream[object]
    with client.post(path, **arguments, stream=True, stream_cls=stream_cls) as stream:
        body = bytearray()
        for read in stream.response.iter_bytes():
            limit.check()
            body += read
    return _read_content(bytes(body), stream.response.status_code)


async def _in_time(awaited: Coroutine[Any, Any, _Result], limit: TimeLeft | None) -> _Result:
    """Return what a coroutine returns.

    Raises:
        NoAnswerInTimeError: it takes longer than is left.
    """
    if limit is None:
        return await awaited
    try:
        return await asyncio.wait_for(awaited, limit.left)
    except asyncio.TimeoutError:
        raise limit.error() from None


async def _reads(response: Any, limit: TimeLeft | None) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a response as they come, as long as there is time."""
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
    """Reads one streamed answer: bytes go in, checked chunks come out.

    The content type is not looked at, since some servers send event streams under another one.

    Attributes:
        done: whether `[DONE]` has come. Nothing after it belongs to the answer.
    """

    def __init__(self, response: Any, check: StreamCheck, endpoint: Endpoint) -> None:
        self.done = False
        self._response = response
        self._endpoint = endpoint
        self._translate = endpoint.reader().read if endpoint.reader else None
        self._check = check
        self._decoder = EventDecoder()
        self._start = bytearray()
        """The body up to its first event, in case it is not an event stream."""

    def chunks(self, read: bytes) -> Iterator[JSON]:
        """Yield the chunks that end within the next bytes of the body."""
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
            self._check.usage = self._endpoint.read_usage(found.get("usage"))
            check_error(found)
        content_type = self._response.headers.get("content-type", "no content type")
        if found is None and content_type.lower().startswith("text/event-stream"):
            return
        got = repr(excerpt(text)) if text else "an empty body"
        raise InvalidReplyError(
            f"A stream was asked for, but the gateway answered {self._response.status_code} with {got} "
            f"({content_type}). "
            "Check that base_url ends with the API's path, such as /v1."
        )
