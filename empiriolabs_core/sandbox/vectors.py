"""Embeddings and rerank scores without a model: texts that share words are near. Deterministic."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from typing import Any

from empiriolabs_core.sandbox.answers import JSON
from empiriolabs_core.sandbox.rules import Refusal
from empiriolabs_core.sandbox.wire import count

EMBEDDING_MODEL = "text-embedding-v4"
RERANK_MODEL = "qwen3-rerank"
DIMENSIONS = (2048, 1536, 1024, 768, 512, 256, 128, 64)
MOST_INPUTS = 10
MOST_DOCUMENTS = 500
MOST_INPUT_TOKENS = 8192


def _bad(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_parameter_error", message, param)


def embeddings(body: JSON) -> JSON:
    """Return the reply to an embeddings request.

    Raises:
        Refusal: the request is over a documented limit.
    """
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str) and text for text in inputs):
        raise _bad("input", f"input={given!r} must be a text or a list of texts, none of them empty.")
    if len(inputs) > MOST_INPUTS:
        raise _bad("input", f"input has {len(inputs)} entries; at most {MOST_INPUTS} are taken.")
    for number, text in enumerate(inputs):
        if count(text) > MOST_INPUT_TOKENS:
            raise _bad("input", f"input[{number}] has {count(text)} tokens; at most {MOST_INPUT_TOKENS} are taken.")
    dimensions = body.get("dimensions", 1024)
    if dimensions not in DIMENSIONS:
        raise _bad("dimensions", f"dimensions={dimensions!r} must be one of {DIMENSIONS}.")
    tokens = sum(map(count, inputs))
    data = [
        {"object": "embedding", "index": n, "embedding": _encode(vector(text, dimensions), body)}
        for n, text in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _encode(values: list[float], body: JSON) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    return values


def _words(text: str) -> list[str]:
    return [word.rstrip("s") for word in re.findall(r"\w+", text.lower())]


def vector(text: str, dimensions: int) -> list[float]:
    """Return a unit vector: each word adds to a few places that its hash names."""
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
        Refusal: the request is over a documented limit.
    """
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise _bad("query", f"query={query!r} must be a text that is not empty.")
    if not isinstance(documents, list) or not 1 <= len(documents) <= MOST_DOCUMENTS:
        raise _bad("documents", f"documents must be a list of 1 to {MOST_DOCUMENTS} texts.")
    asked = set(_words(query))
    scores = [len(asked & set(_words(text))) / (len(asked) or 1) for text in documents]
    order = sorted(range(len(documents)), key=lambda n: -scores[n])[: body.get("top_n") or len(documents)]
    results: list[JSON] = [{"index": n, "relevance_score": scores[n]} for n in order]
    if body.get("return_documents"):
        results = [{**result, "document": {"text": documents[result["index"]]}} for result in results]
    tokens = count(query) + sum(map(count, documents))
    return {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": "sandbox"}
