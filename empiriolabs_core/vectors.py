"""Embeddings and rerank: the typed fields, the requests and the parsing of replies."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, as_completed
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import openai
from pydantic import AliasChoices, Field

from empiriolabs_core.connection import ConnectionFields
from empiriolabs_core.errors import JSON, InvalidReplyError, SettingsError, excerpt, readable
from empiriolabs_core.gateway import Request

EMBEDDINGS, RERANKS = "/embeddings", "/reranks"
"""Paths of the two routes, below the base URL."""
DOCUMENTED_BATCH = 10
"""Maximum number of texts in an embeddings request. (Model page; the vendor's own package says 2,048.)"""
MOST_DOCUMENTS = 500
"""Maximum number of documents in a rerank request. (Model page)"""

Dimensions = Literal[2048, 1536, 1024, 768, 512, 256, 128, 64]


class EmbeddingFields(ConnectionFields):
    """Base class of both embedding adapters.

    Raises:
        SettingsError: if an argument is misspelt or out of range.
    """

    model: str = Field(default="text-embedding-v4", min_length=1, validation_alias=AliasChoices("model", "model_name"))
    """Model id. Any id is accepted. Default: `"text-embedding-v4"`."""

    dimensions: Dimensions | None = None
    """Length of the vectors: 2048, 1536, 1024, 768, 512, 256, 128 or 64. Gateway default: 1024. (Model page)"""

    encoding_format: Literal["float", "base64"] = "float"
    """Encoding of vectors in replies: `"float"`, or `"base64"`, which is shorter. Default: `"float"`. (Model page)"""

    batch_size: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=DOCUMENTED_BATCH, validation_alias=AliasChoices("batch_size", "chunk_size", "embed_batch_size")
    )
    """Maximum number of texts per request, 1 or more. Default: 10, the documented limit. (Model page; the vendor's own
    package says 2,048.)"""

    max_concurrency: Annotated[int, Field(strict=True, ge=1)] = 4
    """Maximum number of concurrent requests, 1 or more: per sync call, or of all async calls in an event loop.
    Default: 4."""

    def embed(self, texts: Iterable[str]) -> list[list[float]]:
        """Return a vector for each text, in order. Batches are sent concurrently, `max_concurrency` at a time.

        An empty text is sent unchanged, as in LangChain's and LlamaIndex's OpenAI classes. It is undocumented whether
        the gateway accepts it; the sandbox rejects it.

        Raises:
            SettingsError: if a text is not a string. Nothing was sent.
            InvalidReplyError: if a reply does not contain a finite vector for each text.
        """
        requests = list(self._requests(texts))
        if len(requests) < 2:
            return self._joined(map(self._embed, requests))
        batches = _begin(
            [partial(copy_context().run, self._embed, request) for request in requests], self.max_concurrency
        )
        try:
            # The first error is raised at once, without waiting for the other requests.
            for batch in as_completed(batches):
                batch.result()
            return self._joined(batch.result() for batch in batches)
        finally:
            for batch in batches:
                batch.cancel()

    async def aembed(self, texts: Iterable[str]) -> list[list[float]]:
        """Do what `embed` does, asynchronously."""
        limit = self.gateway.async_limit(self.max_concurrency)

        async def one(request: Request) -> list[list[float]]:
            async with limit:
                with _explained(request):
                    return read_vectors(await self.gateway.asend(EMBEDDINGS, request), len(request.body["input"]))

        tasks = [asyncio.ensure_future(one(request)) for request in self._requests(texts)]
        try:
            return self._joined(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _joined(self, batches: Iterable[list[list[float]]]) -> list[list[float]]:
        vectors = [vector for batch in batches for vector in batch]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) > 1 or (self.dimensions is not None and lengths - {self.dimensions}):
            wanted = "one length" if self.dimensions is None else f"dimensions={self.dimensions}"
            raise InvalidReplyError(
                f"Vectors with {wanted} were requested, but the response has lengths {sorted(lengths)}. Retry."
            )
        return vectors

    def _embed(self, request: Request) -> list[list[float]]:
        with _explained(request):
            return read_vectors(self.gateway.send(EMBEDDINGS, request), len(request.body["input"]))

    def _requests(self, texts: Iterable[str]) -> Iterator[Request]:
        checked = check_texts(texts, "texts", empty_too=True)
        body: JSON = {"model": self.model, "encoding_format": self.encoding_format}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        for start in range(0, len(checked), self.batch_size):
            yield Request({**body, "input": checked[start : start + self.batch_size]}, {})


_Result = TypeVar("_Result")


def _begin(calls: Iterable[Callable[[], _Result]], most: int) -> list[Future[_Result]]:
    """Run functions in a limited number of threads, and return their futures.

    At its exit, a process waits for the threads of a ThreadPoolExecutor, even if their results are not needed. It does
    not wait for these threads.
    """
    queue: SimpleQueue[tuple[Future[_Result], Callable[[], _Result]]] = SimpleQueue()
    futures: list[Future[_Result]] = []
    for call in calls:
        futures.append(Future())
        queue.put((futures[-1], call))
    for _ in range(min(most, len(futures))):
        threading.Thread(target=_work, args=(queue,), name="empiriolabs-embed", daemon=True).start()
    return futures


def _work(queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        try:
            future, call = queue.get_nowait()
        except Empty:
            return
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def check_texts(texts: Iterable[str], what: str, *, empty_too: bool = False) -> list[str]:
    """Check texts and return them. Every text must be a string, and must not be empty unless empty texts are allowed.

    Raises:
        SettingsError: if a text is invalid. The message contains its index.
    """
    if isinstance(texts, str):
        raise SettingsError(f"{what} must be a list of strings, got a string.")
    checked = list(texts)
    for number, text in enumerate(checked):
        if not isinstance(text, str):
            raise SettingsError(
                f"{what}[{number}] must be a string, got {type(text).__name__}. Pass strings, not token ids."
            )
        if not text and not empty_too:
            raise SettingsError(f"{what}[{number}] is empty. Leave it out.")
    return checked


class _explained:
    """Adds the documented limit to the error for a larger batch."""

    def __init__(self, request: Request) -> None:
        self._size = len(request.body["input"])

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Add the limit to the message of a 400."""
        if isinstance(error, openai.BadRequestError) and self._size > DOCUMENTED_BATCH:
            told = (
                f"{error.message} The documented limit is {DOCUMENTED_BATCH} texts: lower batch_size from {self._size}."
            )
            raise type(error)(told, response=error.response, body=error.body) from error


@readable
def read_vectors(reply: JSON, count: int) -> list[list[float]]:
    """Return the vectors of a reply, in the order of the texts.

    Raises:
        InvalidReplyError: if a text has no vector, the vectors differ in length, or a vector is not finite.
    """
    data = sorted(reply["data"], key=lambda entry: entry["index"])
    if [entry["index"] for entry in data] != list(range(count)):
        raise InvalidReplyError(
            f"{count} texts were sent, but the response has vectors for {[e['index'] for e in data]}. Retry."
        )
    vectors = [_vector(entry["embedding"]) for entry in data]
    if len({len(vector) for vector in vectors}) > 1 or not all(vectors):
        raise InvalidReplyError(f"The vectors differ in length: {sorted({len(vector) for vector in vectors})}.")
    for number, vector in enumerate(vectors):
        if not all(map(math.isfinite, vector)):
            raise InvalidReplyError(f"The vector of text {number} contains a number that is not finite. Retry.")
    return vectors


def _vector(wire: Any) -> list[float]:
    if isinstance(wire, str):
        try:
            return array("f", base64.b64decode(wire, validate=True)).tolist()
        except binascii.Error as error:
            raise InvalidReplyError(f"A vector is not valid base64: {excerpt(wire)!r}.") from error
    return [float(number) for number in wire]


class Ranked(NamedTuple):
    """A document of a ranking.

    Attributes:
        place: index in the list that was sent, from 0.
        score: relevance to the query. Scores are comparable only within one request.
    """

    place: int
    score: float


class RerankFields(ConnectionFields):
    """Base class of both rerank adapters.

    Raises:
        SettingsError: if an argument is misspelt or out of range.
    """

    model: str = Field(default="qwen3-rerank", min_length=1)
    """Model id. Any id is accepted. Default: `"qwen3-rerank"`."""

    top_n: Annotated[int, Field(strict=True, ge=1, le=MOST_DOCUMENTS)] | None = None
    """How many documents to keep, 1 to 500. Default: all. (Model page)"""

    instruct: str | None = None
    """Instruction in English that describes what makes a document relevant. (Model page)"""

    def rerank(self, query: str, documents: Iterable[str]) -> list[Ranked]:
        """Return the documents' indices and scores, most relevant first. Equal scores keep the order of the documents.

        Documents without text are not sent. They are last, with a score of 0.

        Raises:
            SettingsError: if the query is empty, the query or a document is not a string, or more than 500 documents
                have text.
            InvalidReplyError: if the reply is not a ranking of these documents.
        """
        checked = check_texts(documents, "documents", empty_too=True)
        places = _with_text(checked)
        if not places:
            return _whole([], places, len(checked), self.top_n)
        request = self._request(query, [checked[place] for place in places])
        ranking = read_ranking(self.gateway.send(RERANKS, request), len(places), self.top_n)
        return _whole(ranking, places, len(checked), self.top_n)

    async def arerank(self, query: str, documents: Iterable[str]) -> list[Ranked]:
        """Do what `rerank` does, asynchronously."""
        checked = check_texts(documents, "documents", empty_too=True)
        places = _with_text(checked)
        if not places:
            return _whole([], places, len(checked), self.top_n)
        request = self._request(query, [checked[place] for place in places])
        ranking = read_ranking(await self.gateway.asend(RERANKS, request), len(places), self.top_n)
        return _whole(ranking, places, len(checked), self.top_n)

    def _request(self, query: str, documents: list[str]) -> Request:
        if len(documents) > MOST_DOCUMENTS:
            raise SettingsError(f"A rerank request may have at most {MOST_DOCUMENTS} documents, got {len(documents)}.")
        check_texts([query], "query")
        body: JSON = {"model": self.model, "query": query, "documents": documents}
        if self.top_n is not None:
            body["top_n"] = min(self.top_n, len(documents))
        if self.instruct is not None:
            body["instruct"] = self.instruct
        return Request(body, {})


def _with_text(documents: list[str]) -> list[int]:
    return [place for place, text in enumerate(documents) if text.strip()]


def _whole(ranking: list[Ranked], places: list[int], count: int, top_n: int | None) -> list[Ranked]:
    """Return a ranking with indices of the complete list, followed by the documents without text."""
    blank = sorted(set(range(count)).difference(places))
    ranked = [Ranked(places[found.place], found.score) for found in ranking]
    return [*ranked, *(Ranked(place, 0.0) for place in blank)][:top_n]


@readable
def read_ranking(reply: JSON, count: int, top_n: int | None = None) -> list[Ranked]:
    """Return the ranking of a reply, from `output.results`. Entries beyond the requested number are ignored.

    Raises:
        InvalidReplyError: if entries are missing, a document is unknown or listed twice, or a score is not finite.
    """
    wanted = min(top_n or count, count)
    ranked = [Ranked(result["index"], float(result["relevance_score"])) for result in reply["output"]["results"]]
    places = [found.place for found in ranked]
    known = all(type(place) is int and 0 <= place < count for place in places)
    if not known or len(set(places)) != len(places) or len(places) < wanted:
        raise InvalidReplyError(
            f"{count} documents were sent and {wanted} requested, but the ranking contains {excerpt(places)}. Retry."
        )
    if not all(math.isfinite(found.score) for found in ranked):
        raise InvalidReplyError("A score of the ranking is not finite.")
    return sorted(ranked, key=lambda found: (-found.score, found.place))[:wanted]
