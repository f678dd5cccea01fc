"""Replay prepared bytes from a server, so that only the client's work is measured.

The model's name says what to replay: `text-1000` streams a thousand deltas of text after a hundred of
reasoning, `args-1000` a thousand pieces of one tool call's arguments, `single-1000` the text of `text-1000` with one
event for each network read. Without `stream`, a short answer.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from typing import Any

USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "away",
    "from",
    "the",
    "old",
    "grey",
    "wolf",
]


def _chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


@functools.cache
def events(model: str) -> bytes:
    """Return the whole stream for a model name."""
    kind, _, count = model.partition("-")
    chunks = [_chunk({"role": "assistant", "content": ""})]
    if kind == "args":
        chunks += [_call(number, last=number == int(count) - 1) for number in range(int(count))]
    else:
        chunks += [_chunk({"reasoning_content": f"{WORDS[n % len(WORDS)]} "}) for n in range(int(count) // 10)]
        chunks += [_chunk({"content": f"{WORDS[n % len(WORDS)]} "}) for n in range(int(count))]
    chunks.append(_chunk({}, "tool_calls" if kind == "args" else "stop"))
    chunks.append({**_chunk({}), "choices": [], "usage": USAGE})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _call(number: int, *, last: bool) -> dict[str, Any]:
    if number == 0:
        function = {"name": "write_file", "arguments": '{"text": "'}
        return _chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
    piece = '"}' if last else f"{WORDS[number % len(WORDS)]} "
    return _chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})


@functools.cache
def events_of(endpoint: str, model: str) -> bytes:
    """Return the stream of text for a model name as another endpoint sends it."""
    count = int(model.partition("-")[2])
    thoughts = [f"{WORDS[n % len(WORDS)]} " for n in range(count // 10)]
    texts = [f"{WORDS[n % len(WORDS)]} " for n in range(count)]
    found = _responses(thoughts, texts) if endpoint == "responses" else _messages(thoughts, texts)
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in found).encode()


def _responses(thoughts: list[str], texts: list[str]) -> list[dict[str, Any]]:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
    head |= {"parallel_tool_calls": True, "tool_choice": "auto", "error": None, "incomplete_details": None}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**head, "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": thought},
        *(
            {"type": "response.reasoning_text.delta", "item_id": "rs_1", "output_index": 0, "delta": t}
            for t in thoughts
        ),
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": message},
        *({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": t} for t in texts),
    ]
    said = {"type": "output_text", "text": "".join(texts), "annotations": []}
    whole = {**message, "status": "completed", "content": [said]}
    usage: dict[str, Any] = {"input_tokens": 11, "output_tokens": 22, "total_tokens": 33}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    end = {**head, "status": "completed", "output": [thought, whole], "usage": usage}
    found += [
        {"type": "response.output_item.done", "output_index": 1, "item": whole},
        {"type": "response.completed", "response": end},
    ]
    places = {"content_index": 0, "logprobs": []}
    return [{**event, **places, "sequence_number": number} for number, event in enumerate(found)]


def _messages(thoughts: list[str], texts: list[str]) -> list[dict[str, Any]]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    head |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    kinds = (("thinking", {"signature": ""}, thoughts), ("text", {}, texts))
    for index, (kind, more, pieces) in enumerate(kinds):
        block = {"type": kind, kind: "", **more}
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        deltas = ({"type": f"{kind}_delta", kind: piece} for piece in pieces)
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        *found,
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 22}},
        {"type": "message_stop"},
    ]


PLAIN = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "reasoning_content": "Say hello."},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
).encode()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-l")), 0)
            body = json.loads(await reader.readexactly(length) or b"{}")
            stream = body.get("stream")
            endpoint = head.split(b" ")[1].decode().rpartition("/")[2]
            content = PLAIN
            if stream:
                content = events_of(endpoint, body["model"]) if endpoint != "completions" else events(body["model"])
            kind = b"text/event-stream" if stream else b"application/json"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (kind, len(content)))
            if body["model"].startswith("single"):
                await _write_singly(writer, content)
            writer.write(b"" if body["model"].startswith("single") else content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        writer.close()


async def _write_singly(writer: asyncio.StreamWriter, content: bytes) -> None:
    """Write each event for itself, late enough for the client to have read the one before."""
    for event in content.split(b"\n\n")[:-1]:
        writer.write(event + b"\n\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Standard input is closed when the parent finishes or dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
