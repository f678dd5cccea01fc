"""Replays of what real servers sent on `/v1/responses` and `/v1/messages`, where the folder of recordings exists.

What must come of a recording is read off it in another way: the text and the calls of a stream from its last event or
by the kinds of its deltas, those of a whole reply by the types of its items.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.errors import ReportedError
from empiriolabs_core.replies import StreamCheck, StreamedReply, check_completion, check_object, read_usage

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "wire"
EXTRACTS = {"ds-messages-signature", "ds-responses-web-search-events"}
"""Recordings that their authors shortened so much that they contain no answer."""


def _recorded() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        recording = json.loads(path.read_text())
        name = recording["route"].removeprefix("/v1").strip("/")
        if name in ENDPOINTS and name != "chat/completions" and path.stem not in EXTRACTS:
            found.append(pytest.param(name, recording["status"], recording["got"], id=path.stem))
    for path in sorted((FOLDER / "llama.cpp").glob("*.response.txt")):
        head, _, body = path.read_text().partition("\n\n")
        name, status = path.name.split("_")[0], int(head.split()[1])
        if "count_tokens" not in path.name:
            found.append(pytest.param(name, status, body, id=f"llama.cpp-{path.name.removesuffix('.response.txt')}"))
    return found or [pytest.param("", 0, "", marks=pytest.mark.skip("There are no recordings here."))]


def _events(text: str) -> list[Any]:
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _read_stream(name: str, events: list[Any]) -> dict[str, Any]:
    endpoint, check, reply, reasoning = ENDPOINTS[name], StreamCheck(), StreamedReply(), []
    assert endpoint.reader is not None
    reader = endpoint.reader()
    for event in events:
        chunk = reader.read(event)
        delta = None if chunk is None else reply.read(check.see(chunk))
        reasoning.append(delta.reasoning if delta else "")
    check.end()
    calls = [(call.name, json.loads(call.arguments)) for call in reply.tool_calls.calls]
    reason = reply.last["choices"][0]["finish_reason"]
    return {"text": reply.text, "reasoning": "".join(reasoning), "calls": calls, "usage": reply.usage, "reason": reason}


def _read_whole(name: str, body: Any) -> dict[str, Any]:
    reply = check_completion(ENDPOINTS[name].read_reply(check_object(body)))
    (choice,) = reply["choices"]
    message = choice["message"]
    functions = [call["function"] for call in message.get("tool_calls", ())]
    calls = [(function["name"], json.loads(function["arguments"])) for function in functions]
    thought = message.get("reasoning_content", "")
    return {
        "text": message["content"] or message.get("refusal") or "",
        "reasoning": thought,
        "calls": calls,
        "usage": reply.get("usage"),
        "reason": choice["finish_reason"],
    }


def _texts(items: list[Any], kind: str, name: str) -> str:
    return "".join(item.get(name) or "" for item in items if item.get("type") == kind)


def _expected(name: str, whole: Any) -> tuple[str, str, list[Any]]:
    """Return text, reasoning and calls of a whole reply."""
    if name == "messages":
        blocks = whole["content"]
        calls = [(block["name"], block.get("input") or {}) for block in blocks if block["type"] == "tool_use"]
        return _texts(blocks, "text", "text"), _texts(blocks, "thinking", "thinking"), calls
    output = whole["output"]
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    text = _texts(parts, "output_text", "text") + _texts(parts, "refusal", "refusal")
    thoughts = [item for item in output if item["type"] == "reasoning"]
    parts = [part for item in thoughts for part in item.get("content") or item.get("summary") or ()]
    calls = [(i["name"], json.loads(i["arguments"] or "{}")) for i in output if i["type"] == "function_call"]
    return text, _texts(parts, parts[0]["type"], "text") if parts else "", calls


def _expected_of_stream(name: str, events: list[Any]) -> tuple[str, str, list[Any]]:
    if name == "responses":
        return _expected(name, events[-1]["response"])
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    blocks = {event["index"]: event["content_block"] for event in events if event["type"] == "content_block_start"}
    calls = []
    for index, block in blocks.items():
        own = [e["delta"] for e in events if e.get("index") == index and e["type"] == "content_block_delta"]
        if block["type"] == "tool_use":
            calls.append((block["name"], json.loads(_texts(own, "input_json_delta", "partial_json") or "{}")))
    return _texts(deltas, "text_delta", "text"), _texts(deltas, "thinking_delta", "thinking"), calls


@pytest.mark.parametrize(("name", "status", "got"), _recorded())
def test_recording(name: str, status: int, got: str) -> None:
    streamed = got.lstrip().startswith(("event:", "data:"))
    if status != 200:
        # The OpenAI client raises for the status. Here, the body alone must be seen to be an error.
        with pytest.raises(ReportedError):
            check_object(json.loads(got))
        return
    events = _events(got) if streamed else []
    found = _read_stream(name, events) if streamed else _read_whole(name, json.loads(got))
    text, reasoning, calls = _expected_of_stream(name, events) if streamed else _expected(name, json.loads(got))
    assert found["text"] == text
    assert found["reasoning"] == reasoning
    assert found["calls"] == calls
    assert found["reason"] in {"stop", "length", "tool_calls"}
    assert (found["reason"] == "tool_calls") == bool(calls)
    counts = read_usage(found["usage"])
    assert counts is not None
    assert counts.total_tokens == counts.input_tokens + counts.output_tokens
    if not streamed:
        assert counts.output_tokens == json.loads(got)["usage"]["output_tokens"]
