"""Compute embeddings and rerank scores without a model: texts that share words are similar. Deterministic."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.refusals import bad, shown
from empiriolabs_core.sandbox.rules import check_boolean, check_whole_number
from empiriolabs_core.sandbox.wire import count

EMBEDDING_MODEL = "text-embedding-v4"
RERANK_MODEL = "qwen3-rerank"
DIMENSIONS = (2048, 1536, 1024, 768, 512, 256, 128, 64)
MOST_INPUTS = 10
MOST_DOCUMENTS = 500
MOST_INPUT_TOKENS = 8192
MOST_RANKED_TOKENS = 4000
"""The most tokens of a query, and of a document."""
ENCODINGS = ("float", "base64")


def embeddings(body: JSON) -> JSON:
    """Return the reply to an embeddings request.

    Raises:
        Refusal: if the request is invalid or exceeds a documented limit.
    """
    inputs = _inputs(body.get("input"))
    dimensions = 1024 if body.get("dimensions") is None else body["dimensions"]
    # 1024.0 equals 1024, but is not an integer.
    if not isinstance(dimensions, int) or dimensions not in DIMENSIONS:
        raise bad("dimensions", f"dimensions must be one of {DIMENSIONS}, got {shown(dimensions)}.")
    if body.get("encoding_format") not in (None, *ENCODINGS):
        given = shown(body["encoding_format"])
        raise bad("encoding_format", f"encoding_format must be one of {', '.join(ENCODINGS)}, got {given}.")
    tokens = sum(map(count, inputs))
    data = [
        {"object": "embedding", "index": n, "embedding": _encode(vector(text, dimensions), body)}
        for n, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _inputs(given: Any) -> list[str]:
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str) and text for text in inputs):
        raise bad("input", f"input must be a non-empty string or a list of non-empty strings, got {shown(given)}.")
    if len(inputs) > MOST_INPUTS:
        raise bad("input", f"input must have at most {MOST_INPUTS} entries, got {len(inputs)}.")
    for number, text in enumerate(inputs):
        _check_length("input", f"input[{number}]", text, MOST_INPUT_TOKENS)
    return inputs


def _check_length(param: str, where: str, text: str, most: int) -> None:
    if count(text) > most:
        raise bad(param, f"{where} must have at most {most} tokens, got {count(text)}.")


def _encode(values: list[float], body: JSON) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return values


def _words(text: str) -> list[str]:
    return [word.rstrip("s") for word in re.findall(r"\w+", text.lower())]


def vector(text: str, dimensions: int) -> list[float]:
    """Return a unit vector for a text. Each word changes a few components, which its hash selects."""
    values = [0.0] * dimensions
    for word in _words(text) or [text]:
        digest = hashlib.sha256(word.encode()).digest()
        for place in range(0, 16, 4):
            values[int.from_bytes(digest[place : place + 4], "big") % dimensions] += 1 if digest[16 + place] & 1 else -1
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def rerank(body: JSON) -> JSON:
    """Return the reply to a rerank request, in the documented shape.

    Raises:
        Refusal: if the request is invalid or exceeds a documented limit.
    """
    _check_rerank(body)
    query, documents = body["query"], body["documents"]
    asked = set(_words(query))
    scores = [len(asked & set(_words(text))) / (len(asked) or 1) for text in documents]
    order = sorted(range(len(documents)), key=lambda n: -scores[n])[: body.get("top_n") or len(documents)]
    results: list[JSON] = [{"index": n, "relevance_score": scores[n]} for n in order]
    if body.get("return_documents"):
        results = [{**result, "document": {"text": documents[result["index"]]}} for result in results]
    tokens = count(query) + sum(map(count, documents))
    return {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": "sandbox"}


def _check_rerank(body: JSON) -> None:
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise bad("query", f"query must be a non-empty string, got {shown(query)}.")
    if not isinstance(documents, list) or not 1 <= len(documents) <= MOST_DOCUMENTS:
        found = f"{len(documents)} entries" if isinstance(documents, list) else shown(documents)
        raise bad("documents", f"documents must be a list of 1 to {MOST_DOCUMENTS} strings, got {found}.")
    _check_length("query", "query", query, MOST_RANKED_TOKENS)
    for number, text in enumerate(documents):
        if not isinstance(text, str):
            raise bad("documents", f"documents[{number}] must be a string, got {shown(text)}.")
        _check_length("documents", f"documents[{number}]", text, MOST_RANKED_TOKENS)
    check_whole_number(body, "top_n", 1, MOST_DOCUMENTS)
    check_boolean(body, "return_documents")
    if not isinstance(body.get("instruct"), str | None):
        raise bad("instruct", f"instruct must be a string, got {shown(body['instruct'])}.")
