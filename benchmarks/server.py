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
            content = events(body["model"]) if stream else PLAIN
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
