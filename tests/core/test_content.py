"""What messages hold: malformed blocks, whatever tools return, media for models without it, blocks of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from llama_index.core.base.llms.types import (
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from empiriolabs_core.errors import UnsupportedContentError, warn_once
from empiriolabs_core.sandbox import Answer, Sandbox
from empiriolabs_core.settings import Settings
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.messages import convert_messages
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import to_wire

IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}
CALL = {"id": "c1", "name": "look", "args": {}}
LEFT_OUT = "[image content was left out: deepseek-v4-flash accepts text only.]"

MALFORMED: list[dict[str, Any]] = [
    {"type": "text"},
    {"type": "text", "text": None},
    {"type": "text", "text": 5},
    {"type": "output_text"},
    {"type": "refusal"},
    {"type": "text-plain"},
    {"type": "text-plain", "base64": "%"},
    {"type": ["text"]},
    {"type": None},
    {},
    {"text": "Hello"},
    {"type": "image"},
    {"type": "image", "source": {}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png"}},
    {"type": "image", "source": {"url": 5}},
    {"type": "image", "base64": "aGk="},
    {"type": "image_url"},
    {"type": "image_url", "image_url": 5},
    {"type": "input_audio", "input_audio": "x"},
    {"type": "video"},
    {"type": "video", "url": 5},
    {"type": "file"},
    {"type": "file", "name": "report.pdf"},
    {"type": "audio", "base64": "aGk="},
    {"type": "hologram", "data": "x"},
]


@pytest.mark.parametrize("block", MALFORMED, ids=str)
def test_malformed_blocks_are_typed_errors(block: dict[str, Any]) -> None:
    for kind in (HumanMessage, SystemMessage):
        with pytest.raises(UnsupportedContentError):
            convert_messages([kind([block])])
    # A tool has run by the time its result is sent, so there the block goes out as JSON.
    for message in (
        ToolMessage([block], tool_call_id="c1"),
        HumanMessage([{"type": "tool_result", "tool_use_id": "c1", "content": [block]}]),
    ):
        (sent,) = convert_messages([message])
        assert sent["role"] == "tool"
        assert json.loads(sent["content"]) == block


@pytest.mark.parametrize("block", MALFORMED[:5], ids=str)
def test_malformed_text_of_an_assistant(block: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedContentError, match=r"The text of a content block of type .* must be a string"):
        convert_messages([AIMessage([block])])


@pytest.mark.filterwarnings("ignore:A content block of type")
@pytest.mark.parametrize("kind", [["text"], {"a": 1}, None, 5])
def test_a_type_that_is_not_a_string_in_an_answer(kind: Any) -> None:
    assert convert_messages([AIMessage([{"type": kind}])]) == [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize("result", [{"type": "tool_result"}, {"type": "tool_result", "tool_use_id": None}])
def test_a_tool_result_without_an_id(result: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedContentError, match="tool_call_id"):
        convert_messages([HumanMessage([result])])


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_texts(kind: str) -> None:
    for message, role in ((HumanMessage, "user"), (AIMessage, "assistant"), (SystemMessage, "system")):
        blocks: list[Any] = [{"type": kind, "text": "Hel"}, "lo"]
        assert convert_messages([message(blocks)]) == [{"role": role, "content": "Hello"}]


ITEMS: list[Any] = [
    {"type": "file", "name": "report.pdf", "size": 7},
    {"type": "json", "json": {"a": [1, None]}},
    {"type": "document", "source": {"type": "text", "data": "Hi"}, "title": "Ä"},
    {"type": "search_result", "title": "T", "content": [{"type": "text", "text": "x"}]},
    {"type": "resource_link", "uri": "file:///a"},
    {"type": "reasoning", "reasoning": "Hm."},
    {"temperature": 21.5},
]


def test_a_tool_may_return_anything_in_langchain(sandbox: Sandbox, where: dict[str, Any]) -> None:
    mixed = ["Look:", *ITEMS]
    (sent,) = convert_messages([ToolMessage(mixed, tool_call_id="c1")])
    first, *rest = sent["content"].split("\n")
    assert first == "Look:"
    assert [json.loads(line) for line in rest] == ITEMS
    anthropic: list[Any] = [
        {"type": "tool_result", "tool_use_id": "c1", "content": content} for content in (7, {"a": 1})
    ]
    assert [wire["content"] for wire in convert_messages([HumanMessage(anthropic)])] == ["7", '{"a": 1}']

    @tool
    def look() -> list[Any]:
        """Look."""
        return mixed

    sandbox.script(Answer(None, tool_calls=[{"name": "look", "arguments": {}, "id": "c1"}]))
    agent = create_agent(ChatEmpirioLabs(**where), [look])
    assert "report.pdf" in agent.invoke({"messages": "Look"})["messages"][-1].content


def test_a_tool_may_return_anything_in_llamaindex(sandbox: Sandbox, where: dict[str, Any]) -> None:
    blocks: list[Any] = [
        TextBlock(text="Look:"),
        ThinkingBlock(content="Hm."),
        ToolCallBlock(tool_call_id="1", tool_name="f", tool_kwargs={}),
        ImageBlock(),
    ]
    result = ChatMessage(role="tool", blocks=blocks, additional_kwargs={"tool_call_id": "c1"})
    first, *rest = to_wire([result])[0]["content"].split("\n")
    assert first == "Look:"
    assert [json.loads(line)["block_type"] for line in rest] == ["thinking", "tool_call", "image"]
    asked = ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={})])
    assert EmpirioLabs(**where).chat([ChatMessage("Look"), asked, result]).message.content


def test_malformed_blocks_of_llamaindex() -> None:
    for block in (ImageBlock(), DocumentBlock()):
        with pytest.raises(UnsupportedContentError):
            to_wire([ChatMessage(role="user", blocks=[block])])


def test_blocks_of_an_answer_in_a_user_message() -> None:
    blocks: list[Any] = [
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "server_tool_call", "name": "web_search", "args": {}, "id": "s"},
        {"type": "server_tool_result", "tool_call_id": "s", "output": []},
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
        {"type": "text", "text": "Hello"},
    ]
    assert convert_messages([HumanMessage(blocks)]) == [{"role": "user", "content": "Hello"}]
    theirs = [ThinkingBlock(content="Hm."), ToolCallBlock(tool_name="f", tool_kwargs={}), TextBlock(text="Hello")]
    assert to_wire([ChatMessage(role="user", blocks=theirs)]) == [{"role": "user", "content": "Hello"}]
    for kind in ("non_standard", "hologram"):
        with pytest.raises(UnsupportedContentError):
            convert_messages([HumanMessage([{"type": kind, "value": {}}])])


def conversation(image: bool = True) -> tuple[list[Any], list[ChatMessage]]:
    """Return a conversation in which a tool returned a text and an image, for each framework."""
    parts: list[Any] = [{"type": "text", "text": "A cat:"}, IMAGE]
    theirs = [TextBlock(text="A cat:"), ImageBlock(url=IMAGE["image_url"]["url"])]  # type: ignore[index]
    chat = [HumanMessage("Look"), AIMessage("", tool_calls=[CALL]), ToolMessage(parts, tool_call_id="c1")]  # type: ignore[list-item]
    call = ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={})
    result = ChatMessage(role="tool", blocks=theirs, additional_kwargs={"tool_call_id": "c1"})
    return chat, [ChatMessage("Look"), ChatMessage(role="assistant", blocks=[call]), result]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_image_in_a_tool_result(stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    chat, index = conversation()
    text_only = {"role": "tool", "tool_call_id": "c1", "content": f"A cat:\n{LEFT_OUT}"}
    as_it_is = {**text_only, "content": [{"type": "text", "text": "A cat:"}, IMAGE]}
    chat_llm, index_llm = ChatEmpirioLabs(**where), EmpirioLabs(**where)

    def ask_all() -> None:
        for _ in range(2):
            list(chat_llm.stream(chat)) if stream else chat_llm.invoke(chat)
            list(index_llm.stream_chat(index)) if stream else index_llm.chat(index)

    warn_once.cache_clear()
    with pytest.warns(UserWarning, match="image content of tool results was replaced") as told:
        ask_all()
    assert len([warning for warning in told if "was replaced" in str(warning.message)]) == 1
    assert [request.body["messages"][-1] for request in sandbox.requests] == [text_only] * 4
    sandbox.reset()
    vision = {**where, "model": "deepseek-v4-1-flash"}
    ChatEmpirioLabs(**vision).invoke(chat)
    EmpirioLabs(**vision).chat(index)
    assert [request.body["messages"][-1] for request in sandbox.requests] == [as_it_is] * 2


def test_an_image_of_the_user_is_still_rejected(where: dict[str, Any]) -> None:
    image = HumanMessage([IMAGE])  # type: ignore[list-item]
    with pytest.raises(UnsupportedContentError, match=r"message 0 \(user\) contains image content"):
        ChatEmpirioLabs(**where).invoke([image])
    with pytest.raises(UnsupportedContentError, match=r"message 0 \(user\) contains image content"):
        EmpirioLabs(**where).chat([ChatMessage(role="user", blocks=[ImageBlock(url=IMAGE["image_url"]["url"])])])  # type: ignore[index]


def test_an_image_for_a_model_without_a_card_is_sent() -> None:
    wire = convert_messages(conversation()[0])
    assert Settings(model="other").request(wire, {}, stream=False).body["messages"] == wire
