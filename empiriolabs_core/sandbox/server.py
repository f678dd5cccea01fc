"""`Sandbox`: serve the gateway's routes on a local port."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from empiriolabs_core.catalog import CARDS, ModelCard, card
from empiriolabs_core.sandbox import rules, vectors
from empiriolabs_core.sandbox.answers import JSON, Answer, generate
from empiriolabs_core.sandbox.endpoints import CHAT, ENDPOINTS, Endpoint, Head
from empiriolabs_core.sandbox.endpoints.base import head_of
from empiriolabs_core.sandbox.entries import FURTHER_MODELS, entry
from empiriolabs_core.sandbox.faults import JSON_TYPE, STREAM_TYPE, DropConnection, Fault, before_answer, respond
from empiriolabs_core.sandbox.local_model import LocalModel
from empiriolabs_core.sandbox.messages import check_messages
from empiriolabs_core.sandbox.refusals import Refusal
from empiriolabs_core.sandbox.request_log import MODEL, RequestLog
from empiriolabs_core.sandbox.wire import PrefixCache, Turn, chunks, shorten, stop_sequence, usage_of

API_KEY = "sk-empiriolabs-sandbox"


@dataclass(frozen=True)
class Received:
    """One request as it was received."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class LedgerEntry:
    """One answer that was sent completely, and that the gateway would bill."""

    path: str
    model: str
    prompt_tokens: int
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    web_search: bool = False
    stream: bool = False


_Entry = TypeVar("_Entry")


class _Recent(list[_Entry]):
    """A list that keeps only the most recent entries."""

    def __init__(self, keep: int | None) -> None:
        super().__init__()
        self._keep = keep

    def append(self, entry: _Entry) -> None:
        super().append(entry)
        if self._keep is not None:
            del self[: -self._keep]


class Sandbox:
    """An offline copy of the gateway, served on this machine.

    Args:
        strict: reject requests that DeepSeek rejects, such as a tool loop without its reasoning. Default: `True`.
        strict_reasoning: with `strict`, also require the reasoning of earlier answers without tool calls, in
            conversations with tools. Applies to answers that this sandbox gave. DeepSeek's documents require it, but
            recordings show no such error. Default: `False`.
        faults: one fault per POST request, in order; `None` for a request without a fault.
        local_model: answer with a small language model instead of scripted answers. Default: `False`.
        host: address to listen on. Default: `"127.0.0.1"`.
        port: port to listen on, from 1 to 65535, or 0 for a free port. Default: 0.
        catalogue: the entries of `GET /v1/models`. Default: the model cards of this process.
        delay: seconds between the chunks of a stream, or before embeddings and rankings. Default: 0.
        rate_limit: number of requests to accept before answering 429. Default: `None`, no limit.
        credits: number of requests to answer before answering 402. Rejected requests do not count. Default: `None`, no
            limit.
        models: ids to serve in addition to the models with a card.
        keep: how many of the most recent entries `requests` and `ledger` keep, 1 or more; `None` for all. Default:
            10,000.
        usage_on_finish: for streams of chat completions, always send the usage in the chunk with the finish reason, as
            DeepSeek does. Default: `False`, a separate chunk with the usage, if the request asks for it.
        verbose: print a line for each request to standard error: method, path, model, status and seconds. Default:
            `False`.

    Attributes:
        requests: the received requests, in order.
        ledger: the answers that were sent completely, in order.
        most_at_once: the highest number of POST requests that were being processed at the same time.

    Raises:
        ValueError: if `port` is not from 0 to 65535, or `keep` is below 1.
        TypeError: if an item of `faults` is not a `Fault` or `None`.
    """

    api_key = API_KEY
    """The API key that the sandbox accepts."""

    def __init__(
        self,
        *,
        strict: bool = True,
        strict_reasoning: bool = False,
        faults: Iterable[Fault | None] = (),
        local_model: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        delay: float = 0.0,
        rate_limit: int | None = None,
        credits: int | None = None,
        models: Iterable[str] = (),
        keep: int | None = 10_000,
        usage_on_finish: bool = False,
        verbose: bool = False,
        catalogue: Sequence[Any] | None = None,
    ) -> None:
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise ValueError(f"keep must be an integer >= 1, or None for all entries, got {keep!r}.")
        self.requests: list[Received] = _Recent(keep)
        self.ledger: list[LedgerEntry] = _Recent(keep)
        self.most_at_once = self._at_once = 0
        self._strict, self._delay, self._rate_limit, self._credits = strict, delay, rate_limit, credits
        self._models = {*CARDS, *FURTHER_MODELS, *models, vectors.EMBEDDING_MODEL, vectors.RERANK_MODEL}
        self._catalogue = catalogue
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 1 to 65535, or 0 for a free port, got {port}.")
        self._address = (host, port)
        self._faults, self._script = deque[Fault | None](), deque[Answer]()
        self.fail(*faults)
        self._cache = PrefixCache()
        self._strict_reasoning, self._reasoned = strict_reasoning, set[str]()
        self._usage_on_finish, self._verbose = usage_on_finish, verbose
        self._wants_local_model = local_model
        self._local_model: LocalModel | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """URL to point a client at."""
        return f"http://{self._address[0]}:{self._address[1]}/v1"

    @property
    def voice(self) -> str:
        """A sentence about the source of the answers."""
        if self._wants_local_model:
            return "A real but very small language model answers: expect a realistic protocol, not good answers."
        return "Its answers are scripted: they repeat what they were sent."

    def script(self, *answers: Answer) -> None:
        """Queue answers for the next chat requests, one per request, in order.

        Raises:
            TypeError: if an argument is not an `Answer`.
        """
        for answer in answers:
            if not isinstance(answer, Answer):
                raise TypeError(
                    f"script() expects Answer objects, got {type(answer).__name__}. Write Answer({answer!r})."
                )
        self._script.extend(answers)

    def fail(self, *faults: Fault | None) -> None:
        """Queue faults for the next POST requests, one per request, in order; `None` for a request without a fault.

        Raises:
            TypeError: if an argument is not a `Fault` or `None`.
        """
        for fault in faults:
            if not isinstance(fault, Fault | None):
                raise TypeError(
                    f"fail() expects Fault objects or None, got {type(fault).__name__}. Write Fault({fault!r})."
                )
        self._faults.extend(faults)

    def reset(self) -> None:
        """Clear all requests, ledger entries, queued faults and answers, and cached prompts."""
        self._faults.clear()
        self._script.clear()
        self._cache = PrefixCache()
        self._reasoned.clear()
        self.requests.clear()
        self.ledger.clear()
        self.most_at_once = 0

    def start(self) -> Sandbox:
        """Start serving in a background thread, and return when the sandbox accepts requests."""
        if self._wants_local_model:
            self._local_model = LocalModel()
        listener = socket.create_server(self._address, backlog=2048)
        self._address = (self._address[0], listener.getsockname()[1])
        config = uvicorn.Config(
            self.app(), log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1, access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Stop serving, and close open streams."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(timeout=10)
        if self._local_model is not None:
            self._local_model.stop()
            self._local_model = None

    def __enter__(self) -> Sandbox:
        """Start the sandbox."""
        return self.start()

    def __exit__(self, *exc: object) -> None:
        """Stop the sandbox."""
        self.stop()

    def app(self) -> Starlette:
        """Return the ASGI application, for use with another server."""
        return Starlette(
            routes=[
                Route("/v1/models", self._list_models),
                Route("/v1/models/{model:path}", self._get_model),
                *(self._route(endpoint.path, self._chat, endpoint) for endpoint in ENDPOINTS),
                self._route("/v1/embeddings", self._vectors(vectors.embeddings)),
                self._route("/v1/reranks", self._vectors(vectors.rerank)),
            ],
            middleware=[Middleware(RequestLog)] if self._verbose else [],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    async def _list_models(self, request: Request) -> Response:
        self._note(request, None)
        listed = [entry(CARDS[model]) for model in CARDS] if self._catalogue is None else list(self._catalogue)
        return JSONResponse({"object": "list", "data": listed})

    async def _get_model(self, request: Request) -> Response:
        self._note(request, None)
        model = request.path_params["model"]
        if model in CARDS:
            return JSONResponse(entry(CARDS[model]))
        return _refuse(Refusal(404, "model_not_found", f"The model {model!r} does not exist."))

    def _note(self, request: Request, body: Any) -> None:
        request.scope[MODEL] = body.get("model") if isinstance(body, dict) else None
        self.requests.append(Received(request.method, request.url.path, dict(request.headers), body))

    def _route(self, path: str, answer: Callable[..., Any], endpoint: Endpoint = CHAT) -> Route:
        async def serve(request: Request) -> Response:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                return await self._serve(request, path, answer, endpoint)
            finally:
                self._at_once -= 1

        return Route(path, serve, methods=["POST"])

    async def _serve(self, request: Request, path: str, answer: Callable[..., Any], endpoint: Endpoint) -> Response:
        """Return the response of the next fault, or make the checks that all routes share, and answer."""
        body, unreadable = _read(await request.body())
        self._note(request, body)
        fault = self._faults.popleft() if self._faults else None
        instead = await before_answer(fault, request, endpoint) if fault else None
        if instead is not None:
            return instead
        try:
            self._admit(request)
            if unreadable is not None:
                raise unreadable
            rules.check_model(body, self._models, path)
            response: Response = await answer(request, body, fault, endpoint)
        except Exception as error:
            return _refuse(_refusal(error), endpoint)
        response.headers.update(_request_id())
        return response

    def _admit(self, request: Request) -> None:
        rules.check_key(request.headers, API_KEY)
        if self._credits is not None and self._credits <= 0:
            raise Refusal(402, "insufficient_credits", "The account has no credits left. Add credits to continue.")
        if self._rate_limit is not None:
            if self._rate_limit <= 0:
                wait = {"retry-after": "1"}
                raise Refusal(429, "rate_limit_exceeded", "Too many requests per minute.", headers=wait)
            self._rate_limit -= 1

    def _charge(self) -> None:
        """Use up one credit, for a request that is not rejected."""
        if self._credits is not None:
            self._credits -= 1

    async def _chat(self, request: Request, wire: Any, fault: Fault | None, endpoint: Endpoint) -> Response:
        known = endpoint.card(card(wire["model"]))
        body = endpoint.read(wire, strict=self._strict)
        check_messages(body.get("messages"), known)
        rules.check_parameters(body, known)
        rules.check_tools(body)
        rules.check_window(body, known)
        if self._strict:
            rules.check_upstream(body, known, self._reasoned)
        scripted = self._script.popleft() if self._script else None
        if scripted is None and self._local_model is not None and body.get("stream"):
            self._charge()
            pieces = self._local_stream(self._local_model, wire, body, endpoint)
            return respond(fault, request, pieces, STREAM_TYPE, endpoint)
        turn = await self._turn(body, known, scripted)
        self._charge()
        reply = scripted.body if scripted is not None else None
        if body.get("stream") and reply is None:
            return respond(fault, request, self._stream(wire, body, turn, scripted, endpoint), STREAM_TYPE, endpoint)
        usage = {**turn.usage, **_object(_object(reply).get("usage"))}
        reply = endpoint.reply(wire, turn) if reply is None else reply
        return respond(fault, request, _quarters(reply, lambda: self._bill(endpoint, body, usage)), JSON_TYPE, endpoint)

    async def _turn(self, body: JSON, known: ModelCard | None, scripted: Answer | None) -> Turn:
        thinking = rules.is_thinking(body, known)
        if scripted is not None:
            answer = scripted
        elif self._local_model is not None:
            answer = await self._local_model.answer(body, thinking=thinking)
        else:
            answer = generate(body, thinking=thinking)
        short, finish_reason = shorten(answer, body)
        if self._strict_reasoning and short.reasoning and short.content:
            self._reasoned.add(short.content)
        count = body.get("n") or 1
        answers = (short,) * count
        cached = self._cache.cached_tokens(body["model"], body["messages"])
        return Turn(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=body["model"],
            answers=answers,
            finish_reasons=(finish_reason,) * count,
            usage=usage_of(body, answers, cached),
            logprobs=bool(body.get("logprobs")),
            stop_sequence=stop_sequence(answer, short, body),
        )

    async def _stream(
        self, wire: JSON, body: JSON, turn: Turn, scripted: Answer | None, endpoint: Endpoint
    ) -> AsyncIterator[bytes]:
        given = scripted.chunks if scripted is not None else None
        for data in _events(wire, turn, endpoint, self._usage_on_finish) if given is None else given:
            yield endpoint.event(data)
            # Sleep even with a delay of 0, so that the server notices a client that has disconnected, and stops.
            await asyncio.sleep(self._delay)
        self._bill(endpoint, body, turn.usage)
        for piece in endpoint.final():
            yield piece

    async def _local_stream(
        self, model: LocalModel, wire: JSON, body: JSON, endpoint: Endpoint
    ) -> AsyncIterator[bytes]:
        """Forward the local model's stream under the requested model's name."""
        writer = endpoint.writer(wire, Head(uuid.uuid4().hex, int(time.time())))
        try:
            for data in writer.begin():
                yield endpoint.event(data)
            async for chunk in model.chunks(body, thinking=rules.is_thinking(body, card(body["model"]))):
                for data in writer.read({**chunk, "model": body["model"]}):
                    yield endpoint.event(data)
            for data in writer.end():
                yield endpoint.event(data)
        except Refusal as refusal:
            yield endpoint.error_event(refusal)
            return
        self._bill(endpoint, body, writer.usage)
        for piece in endpoint.final():
            yield piece

    def _vectors(self, reply: Callable[[JSON], JSON]) -> Callable[..., Any]:
        async def answer(request: Request, body: Any, fault: Fault | None, _: Endpoint) -> Response:
            found = reply(body)
            self._charge()
            await asyncio.sleep(self._delay)
            line = LedgerEntry(request.url.path, body["model"], found["usage"]["total_tokens"])
            return respond(fault, request, _quarters(found, lambda: self.ledger.append(line)), JSON_TYPE)

        return answer

    def _bill(self, endpoint: Endpoint, body: JSON, usage: JSON) -> None:
        details = _object(usage.get("completion_tokens_details"))
        self.ledger.append(
            LedgerEntry(
                path=endpoint.path,
                model=body["model"],
                prompt_tokens=usage.get("prompt_tokens", 0),
                completion_tokens=usage.get("completion_tokens", 0),
                reasoning_tokens=details.get("reasoning_tokens", 0),
                cached_tokens=_object(usage.get("prompt_tokens_details")).get("cached_tokens", 0),
                web_search=bool(body.get("web_search_linkup")),
                stream=bool(body.get("stream")),
            )
        )


def _read(raw: bytes) -> tuple[Any, Refusal | None]:
    """Return the body, or the error of an invalid body. A fault or a wrong key has precedence over this error."""
    try:
        return rules.read_body(raw), None
    except Refusal as refusal:
        return None, refusal


def _object(value: Any) -> JSON:
    """Return a value of a scripted answer if it is an object, else an empty dictionary."""
    return value if isinstance(value, dict) else {}


def _quarters(reply: Any, bill: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield a body in four pieces, so that a fault can occur between them, and bill it with the last piece."""
    # The body is encoded before the headers are sent, so that an error can still change the status.
    return _pieces(json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode(), bill)


async def _pieces(raw: bytes, bill: Callable[[], None]) -> AsyncIterator[bytes]:
    bounds = [len(raw) * quarter // 4 for quarter in range(5)]
    for start, end in itertools.pairwise(bounds):
        if end == len(raw):
            bill()
        yield raw[start:end]


def _refusal(error: Exception) -> Refusal:
    """Return the error to send for an exception. An unforeseen exception is a bug in the sandbox."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RecursionError):
        return rules.too_deep()
    return Refusal(500, "internal_error", f"{type(error).__name__}: {error}")


def _refuse(refusal: Refusal, endpoint: Endpoint = CHAT) -> Response:
    renamed = endpoint.renamed(refusal)
    return JSONResponse(endpoint.envelope(renamed), refusal.status, headers={**_request_id(), **refusal.headers})


def _request_id() -> dict[str, str]:
    """Return headers with a request id, under OpenAI's and Anthropic's names."""
    return dict.fromkeys(("x-request-id", "request-id"), f"req-{uuid.uuid4().hex[:12]}")


def _events(wire: JSON, turn: Turn, endpoint: Endpoint, usage_on_finish: bool) -> Iterator[JSON]:
    """Yield an answer as the events of an endpoint. Most unusual stream forms exist only in chat completions."""
    if endpoint is not CHAT:
        usual = (
            replace(answer, stream_form=answer.stream_form if answer.stream_form == "half_characters" else "usual")
            for answer in turn.answers
        )
        turn = replace(turn, answers=tuple(usual))
    writer = endpoint.writer(wire, head_of(turn))
    yield from writer.begin()
    for chunk in chunks(turn, include_usage=True, usage_on_finish=usage_on_finish):
        yield from writer.read(chunk)
    yield from writer.end()


async def _no_route(request: Request, error: Exception) -> Response:
    """Reject a path that is not served, and list the served ones.

    The body has no `error` key, so that clients do not mistake it for an error of the gateway at the right address.
    """
    routes: list[Route] = request.app.routes
    known = [f"{method} {route.path}" for route in routes for method in sorted(route.methods or ()) if method != "HEAD"]
    status = 405 if any(route.path == request.url.path for route in routes) else 404
    detail = f"There is no route {request.method} {request.url.path}. The routes are: {', '.join(known)}."
    return JSONResponse({"detail": detail, "routes": known}, status, headers=_request_id())


__all__ = ["API_KEY", "DropConnection", "LedgerEntry", "Received", "Sandbox"]
