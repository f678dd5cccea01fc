"""Record and match cassettes: readable YAML, matched by body, without secrets and noise."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
import yaml

from empiriolabs_core.errors import DEFAULT_API_BASE, KEY_VARIABLE

PUBLIC = DEFAULT_API_BASE.removesuffix("/v1")
_KEPT_REQUEST_HEADERS = {"content-type", "accept"}
_KEPT_RESPONSE_HEADERS = {"content-type", "retry-after", "x-request-id", "content-encoding"}


class _Dumper(yaml.SafeDumper):
    """Writes multi-line texts as YAML blocks, so that each event of a stream has its own line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    block = "\n" in text and "\r" not in text and not re.search(r"[ \t]+\n|\t", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if block else None)


_Dumper.add_representer(str, _text)


class ReadableYaml:
    """The serializer of the cassettes."""

    @staticmethod
    def serialize(cassette: Any) -> str:
        return yaml.dump(cassette, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10**6)

    @staticmethod
    def deserialize(text: str) -> Any:
        return yaml.safe_load(text)


def _same_body(one: Any, other: Any) -> None:
    """Match bodies as JSON. A tool call id that the test invents matches any id."""
    assert _normal(one.body) == _normal(other.body)


def _normal(body: Any) -> Any:
    text = body.decode() if isinstance(body, bytes) else body
    if not text:
        return None
    ids: dict[str, str] = {}
    text = re.sub(
        r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", lambda m: ids.setdefault(m[0], f"id-{len(ids)}"), text
    )
    # From Python 3.13 on, docstrings, which become tools' descriptions, have no indentation.
    return json.loads(re.sub(r"(?:\\n) +", r"\\n", text))


_keys: set[str] = set()
"""The sent API keys, in case a server repeats a key in its reply."""


def _scrub_request(request: Any) -> Any:
    """Keep the relevant parts of a request. Also runs on replay, so the recorded address does not matter."""
    key = str(request.headers.get("authorization") or "").removeprefix("Bearer ")
    if len(key) >= 8:
        _keys.add(key)
    request.uri = re.sub(r"^http://127\.0\.0\.1:\d+", PUBLIC, request.uri)
    for name in list(request.headers):
        if name.lower() not in _KEPT_REQUEST_HEADERS:
            del request.headers[name]
    return request


def _scrub_response(response: Any) -> Any:
    body = response["body"]
    for key in _keys if isinstance(body.get("string"), bytes) else ():
        body["string"] = body["string"].replace(key.encode(), b"***")
    kept = {name.lower(): value for name, value in response["headers"].items()}
    response["headers"] = {name: value for name, value in kept.items() if name in _KEPT_RESPONSE_HEADERS}
    if "retry-after" in response["headers"]:
        # The client prefers this header, so a replay does not sleep.
        response["headers"]["retry-after-ms"] = ["1"]
    return response


CONFIG = {
    "match_on": ["method", "scheme", "host", "path", "query", "json_body"],
    "before_record_request": _scrub_request,
    "before_record_response": _scrub_response,
    "decode_compressed_response": True,
}
"""The configuration of vcrpy."""


def register(vcr: Any) -> None:
    """Make vcrpy use the serializer and the matcher of this module."""
    vcr.register_serializer("yaml", ReadableYaml)
    vcr.register_matcher("json_body", _same_body)


def is_recording(config: pytest.Config) -> bool:
    """Return whether cassettes are being recorded instead of replayed."""
    return config.getoption("--record-mode", None) not in (None, "none")


def is_live() -> bool:
    """Return whether to record against the live gateway."""
    return bool(os.environ.get(KEY_VARIABLE))
