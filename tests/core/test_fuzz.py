"""Any input yields an answer or a typed error: streams truncated anywhere, any JSON, any history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock, ToolCallBlock

from empiriolabs_core.errors import EmpirioLabsError, SettingsError, UnsupportedContentError
from empiriolabs_core.replies import StreamCheck, check_completion
from empiriolabs_core.settings import RequestFields, Settings
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.messages import ChunkConverter, convert_messages, create_chat_result
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import StreamedMessage, chat_response, to_wire

BODY = {"model": "deepseek-v4-flash"}
CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "reasoning_content": "Hm \u2028 ü."}}]},
    {"choices": [{"delta": {"content": "你好 🌦 \u0085"}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
STREAM = (
    "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in CHUNKS).encode() + b"data: [DONE]\n\n"
)


class _CutInTwo(socketserver.StreamRequestHandler):
    """Sends the stream in two pieces. Each request splits it one byte later."""

    cut: ClassVar[int] = 0

    def handle(self) -> None:
        length = 0
        while line := self.rfile.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        cut = type(self).cut
        self.wfile.write(head + STREAM[:cut])
        self.wfile.flush()
        threading.Event().wait(0.0005)
        self.wfile.write(STREAM[cut:])


@pytest.fixture
def cutting() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _CutInTwo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_a_stream_cut_at_every_byte(cutting: str) -> None:
    chat = ChatEmpirioLabs(base_url=cutting, api_key="k", max_retries=0)
    index = EmpirioLabs(base_url=cutting, api_key="k", max_retries=0)

    async def astream() -> str:
        return "".join([chunk.text async for chunk in chat.astream("Hello")])

    for cut in range(1, len(STREAM)):
        _CutInTwo.cut = cut
        if cut % 3 == 0:
            assert "".join(chunk.text for chunk in chat.stream("Hello")) == "你好 🌦 \u0085"
        elif cut % 3 == 1:
            *_, last = index.stream_chat([ChatMessage("Hello")])
            assert last.message.content == "你好 🌦 \u0085"
        else:
            assert asyncio.run(astream()) == "你好 🌦 \u0085"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "delta",
                    "content",
                    "tool_calls",
                    "function",
                    "arguments",
                    "name",
                    "id",
                    "index",
                    "usage",
                    "prompt_tokens",
                    "error",
                    "annotations",
                    "citations",
                    "url",
                    "reasoning_content",
                    "finish_reason",
                    "logprobs",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _reply(part: str) -> Any:
    """Return replies that are well formed down to a message or delta that holds anything."""
    return st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries({part: ANY_JSON, "finish_reason": st.sampled_from(["stop", None, 3])}), max_size=2
            )
        },
        optional={"usage": ANY_JSON, "citations": ANY_JSON, "model": ANY_JSON},
    )


@pytest.mark.filterwarnings("ignore:The answer is empty")
@given(reply=ANY_JSON | _reply("message"))
def test_any_reply(reply: Any) -> None:
    for convert in (create_chat_result, chat_response):
        with contextlib.suppress(EmpirioLabsError, openai.OpenAIError):
            convert(check_completion(reply), BODY)


@pytest.mark.filterwarnings("ignore:The answer is empty")
@given(chunks=st.lists(ANY_JSON | _reply("delta"), max_size=4))
def test_any_stream(chunks: list[Any]) -> None:
    for converter in (ChunkConverter(BODY), StreamedMessage(BODY)):
        check = StreamCheck()
        take = converter.convert if isinstance(converter, ChunkConverter) else converter.add
        with contextlib.suppress(EmpirioLabsError, openai.OpenAIError):
            for chunk in chunks:
                take(check.see(chunk))
            check.end()
            converter.finish()


TEXT = st.text(max_size=8)
BLOCK = st.one_of(
    TEXT,
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.builds(lambda text: {"type": "reasoning", "reasoning": text}, TEXT),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, TEXT),
    st.just({"type": "image", "url": "http://x.invalid/a.png"}),
    st.just({"type": "server_tool_call", "name": "web_search", "args": {}, "id": "1"}),
    st.just({"type": "hologram"}),
)
CALL = st.builds(lambda args: {"id": "1", "name": "f", "args": args}, st.dictionaries(TEXT, TEXT, max_size=2))
LANGCHAIN = st.lists(
    st.one_of(
        st.builds(HumanMessage, content=st.lists(BLOCK, max_size=3) | TEXT),
        st.builds(SystemMessage, content=TEXT),
        st.builds(AIMessage, content=st.lists(BLOCK, max_size=3) | TEXT, tool_calls=st.lists(CALL, max_size=2)),
        st.builds(ToolMessage, content=st.lists(BLOCK, max_size=2) | TEXT, tool_call_id=TEXT),
    ),
    min_size=1,
    max_size=4,
)


@given(messages=LANGCHAIN)
def test_any_langchain_history(messages: Any) -> None:
    before = [message.model_dump_json() for message in messages]
    try:
        body = Settings().request(convert_messages(messages), {}, stream=False).body
    except UnsupportedContentError:
        return
    assert json.loads(json.dumps(body)) == body
    assert [message.model_dump_json() for message in messages] == before


LLAMA_BLOCK = st.one_of(
    st.builds(TextBlock, text=TEXT),
    st.builds(ThinkingBlock, content=TEXT),
    st.builds(
        ToolCallBlock, tool_call_id=TEXT, tool_name=TEXT, tool_kwargs=st.dictionaries(TEXT, TEXT, max_size=2) | TEXT
    ),
)
LLAMA = st.lists(
    st.builds(
        ChatMessage,
        role=st.sampled_from(["user", "assistant", "system", "tool"]),
        blocks=st.lists(LLAMA_BLOCK, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(messages=LLAMA)
def test_any_llamaindex_history(messages: list[ChatMessage]) -> None:
    before = [message.model_dump_json() for message in messages]
    try:
        body = Settings().request(to_wire(messages), {}, stream=False).body
    except UnsupportedContentError:
        return
    assert json.loads(json.dumps(body)) == body
    assert [message.model_dump_json() for message in messages] == before
    spoken = [m for m in messages if m.role == MessageRole.ASSISTANT]
    sent = [turn for turn in body["messages"] if turn["role"] == "assistant"]
    assert [turn["content"] or "" for turn in sent] == [said(message) for message in spoken]


def said(message: ChatMessage) -> str:
    """Return the text that is sent for a turn. Nothing answers its calls, so those that cannot be run become text."""
    lines = ["".join(block.text for block in message.blocks if isinstance(block, TextBlock))]
    for block in message.blocks:
        if isinstance(block, ToolCallBlock) and (not block.tool_name or not is_whole(block.tool_kwargs)):
            given = block.tool_kwargs
            text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            lines.append(f"[A call of {block.tool_name or 'a tool without a name'} was truncated: {text}]")
    return lines[0] if len(lines) == 1 else "\n".join(lines).lstrip()


def is_whole(arguments: Any) -> bool:
    try:
        found = json.loads(arguments, strict=False) if isinstance(arguments, str) else arguments
    except ValueError:
        return False
    return found is None or isinstance(found, dict)


ARGUMENTS = st.text(min_size=1, max_size=5).map(lambda text: json.dumps({"city": text}, ensure_ascii=False))
TURN = st.builds(
    lambda content, reasoning, calls: {
        "role": "assistant",
        "content": content or (None if calls else ""),
        **({"reasoning_content": reasoning} if reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    },
    content=TEXT,
    reasoning=TEXT,
    calls=st.lists(
        st.builds(
            lambda number, text: {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": text}},
            number=st.integers(0, 9),
            text=ARGUMENTS | st.just("{}") | st.just('{"cut": "o'),
        ),
        max_size=3,
        unique_by=lambda call: call["id"],
    ),
)


@given(turn=TURN)
def test_a_turn_goes_back_as_it_came(turn: dict[str, Any]) -> None:
    """Off the wire into a message of either framework, whole or streamed, and back: not a character is lost."""
    reply = {"choices": [{"index": 0, "message": turn, "finish_reason": "stop"}]}
    delta = {**turn, "tool_calls": [{**call, "index": n} for n, call in enumerate(turn.get("tool_calls", []))]}
    chunks = [{"choices": [{"delta": delta}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    converter, streamed = ChunkConverter(BODY), StreamedMessage(BODY)
    pieces = [piece for chunk in chunks if (piece := converter.convert(chunk))] + [converter.finish()]
    for chunk in chunks:
        streamed.add(chunk)
    langchain = [create_chat_result(reply, BODY).generations[0].message, sum_of(pieces)]
    llamaindex = [chat_response(reply, BODY).message, streamed.finish().message]
    # A truncated call is sent as a call only if something answers it.
    ids = [call["id"] for call in turn.get("tool_calls", [])]
    results = [ToolMessage("x", tool_call_id=call_id) for call_id in ids]
    told = [ChatMessage(role="tool", content="x", additional_kwargs={"tool_call_id": call_id}) for call_id in ids]
    backs = [convert_messages([one, *results])[:1] for one in langchain]
    backs += [to_wire([one, *told])[:1] for one in llamaindex]
    for back in backs:
        assert normal(back) == normal([turn])


def sum_of(pieces: list[Any]) -> Any:
    first, *rest = [piece.message for piece in pieces]
    return first.__add__(rest)


def normal(turns: list[dict[str, Any]]) -> Any:
    """Return wire turns with arguments as objects, since their spacing may differ.

    LangChain keeps calls whose arguments were truncated in a list of their own, so their order is lost.
    """
    text = json.dumps(turns, ensure_ascii=False, sort_keys=True)
    found = json.loads(text)
    found[0].get("tool_calls", []).sort(key=lambda call: call["id"])
    for call in found[0].get("tool_calls", []):
        function = call["function"]
        with contextlib.suppress(json.JSONDecodeError):
            function["arguments"] = json.loads(function["arguments"])
    return found


NAMES = st.sampled_from([*RequestFields.model_fields, "seed", "n", "tools", "tool_choice", "messages", "base_url", "x"])
VALUES = ANY_JSON | st.sampled_from(["high", "none", 0.5, 8192, True, {"seed": 1}])
ANY_SETTINGS = st.dictionaries(NAMES, VALUES, max_size=4)


def body_or_refusal(owner: Any, settings: dict[str, Any], call: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    try:
        request = owner(api_key="k", **settings).request([{"role": "user", "content": "Hi"}], call, stream=True)
    except SettingsError as error:
        return None, str(error)
    return request.body, "It is sent."


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("owner", [Settings, ChatEmpirioLabs, EmpirioLabs])
@given(settings=ANY_SETTINGS, call=ANY_SETTINGS)
def test_any_settings(owner: Any, settings: dict[str, Any], call: dict[str, Any]) -> None:
    """Either an error describes the problem, or the body respects the documented ranges."""
    body, said = body_or_refusal(owner, settings, call)
    assert said.endswith(".")
    if body is None:
        return
    assert json.loads(json.dumps(body)) == body
    assert isinstance(body["model"], str)
    assert 0 <= body.get("temperature", 0) <= 2
    assert 0 <= body.get("top_p", 0) <= 1
    assert body.get("reasoning_effort", "low") in ("none", "low", "medium", "high", "max")
    assert not (body.get("enable_thinking") is False and "thinking_budget" in body)
    assert None not in body.values()
