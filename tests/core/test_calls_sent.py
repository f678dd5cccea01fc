"""Tool calls in requests: ids, names and results. Both adapters send conversations that an upstream accepts."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock

from empiriolabs_core.errors import UnsupportedContentError
from empiriolabs_core.sandbox import Sandbox
from empiriolabs_core.sandbox.messages import check_messages, check_tool_results
from empiriolabs_core.tool_calls import settle_calls
from langchain_empiriolabs import ChatEmpirioLabs
from langchain_empiriolabs.messages import convert_messages
from llamaindex_empiriolabs import EmpirioLabs
from llamaindex_empiriolabs.messages import to_wire
from tests.drivers import DRIVERS, Case, Driver, langchain_messages, llamaindex_messages

EACH_DRIVER = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)
EACH_WAY = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
USER = {"role": "user", "content": "q"}


def turn(*calls: tuple[str, str], text: str = "") -> dict[str, Any]:
    made = [{"id": call_id, "name": name, "arguments": {"n": n}} for n, (call_id, name) in enumerate(calls)]
    return {"role": "assistant", "content": text, "tool_calls": made}


def result(call_id: str, text: str = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def ids(messages: list[dict[str, Any]]) -> list[str]:
    """Return the ids of calls and results in order. The ids of results have a mark."""
    found = []
    for message in messages:
        found += [call["id"] for call in message.get("tool_calls") or ()]
        found += [f">{message['tool_call_id']}"] if message["role"] == "tool" else []
    return found


@dataclass(frozen=True)
class Sent:
    conversation: tuple[dict[str, Any], ...]
    ids: tuple[str, ...]


REPEATED = {
    "in a later turn": Sent(
        (USER, turn(("f", "f")), result("f", "1"), USER, turn(("f", "f")), result("f", "2")),
        ("f", ">f", "f_2", ">f_2"),
    ),
    "in three turns": Sent(
        (USER, *(part for _ in range(3) for part in (turn(("f", "f")), result("f"))), USER),
        ("f", ">f", "f_2", ">f_2", "f_3", ">f_3"),
    ),
    "within a turn": Sent(
        (USER, turn(("f", "f"), ("f", "f")), result("f", "1"), result("f", "2")), ("f", "f_2", ">f", ">f_2")
    ),
    "where the new id is in use": Sent(
        (USER, turn(("a", "f"), ("a_2", "f")), result("a"), result("a_2"), turn(("a", "f")), result("a")),
        ("a", "a_2", ">a", ">a_2", "a_3", ">a_3"),
    ),
    "where the new id is used later": Sent(
        (USER, turn(("a", "f")), result("a"), turn(("a", "f")), result("a"), turn(("a_2", "f")), result("a_2")),
        ("a", ">a", "a_3", ">a_3", "a_2", ">a_2"),
    ),
}


@EACH_DRIVER
@EACH_WAY
@pytest.mark.parametrize("sent", REPEATED.values(), ids=REPEATED)
def test_ids_are_unique_in_a_conversation(
    driver: Driver, stream: bool, sent: Sent, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    driver(Case("x", sent.conversation), where, stream)
    body = sandbox.requests[-1].body["messages"]
    assert tuple(ids(body)) == sent.ids
    told = [message["content"] for message in sent.conversation if message["role"] == "tool"]
    assert [message["content"] for message in body if message["role"] == "tool"] == told


def test_the_sandbox_rejects_a_repeated_id(sandbox: Sandbox, where: dict[str, Any]) -> None:
    """Show that the tests above can fail."""
    import openai

    client = openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.api_key, max_retries=0)
    call = {"id": "f", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    one: Any = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": ""}
    for messages in (
        [USER, one, result("f"), one, result("f")],
        [USER, {**one, "tool_calls": [call] * 2}, result("f")],
    ):
        with pytest.raises(openai.BadRequestError, match="Ids must be unique in the conversation"):
            client.chat.completions.create(model="deepseek-v4-flash", messages=messages)


def test_results_elsewhere_are_sent_as_they_are() -> None:
    conversation = [USER, turn(("a", "f")), result("a"), turn(("a", "f")), result("a"), USER, result("a")]
    for wire in (convert_messages(langchain_messages(conversation)), to_wire(llamaindex_messages(conversation))):
        assert ids(wire) == ["a", ">a", "a_2", ">a_2", ">a"]


WIRE = st.lists(
    st.one_of(
        st.just({"role": "user", "content": "q"}),
        st.builds(
            lambda names: {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
                    for call_id, name in names
                ],
            },
            st.lists(st.tuples(st.sampled_from(["a", "a_2", "b"]), st.sampled_from(["f", "", "天气"])), max_size=3),
        ),
    ),
    max_size=6,
)


@given(turns=WIRE)
def test_any_conversation_with_results_is_accepted_whatever_its_ids(turns: list[dict[str, Any]]) -> None:
    conversation = [{"role": "user", "content": "q"}]
    for one in turns:
        conversation += [one] if one["role"] == "user" or one["tool_calls"] else []
        conversation += [result(call["id"], str(n)) for n, call in enumerate(one.get("tool_calls", []))]
    before = repr(conversation)
    settled = settle_calls(conversation)
    check_messages(settled, None)
    check_tool_results(settled)
    assert repr(conversation) == before
    assert settle_calls(settled) == settled
    firsts = list(dict.fromkeys(call["id"] for one in conversation for call in one.get("tool_calls", ())))
    for call_id in firsts:
        places = [[c["id"] for c in one.get("tool_calls", ())] for one in conversation]
        number, place = next((n, ids_of.index(call_id)) for n, ids_of in enumerate(places) if call_id in ids_of)
        assert settled[number]["tool_calls"][place]["id"] == call_id
    # Each result follows the call that it answered.
    for number, message in enumerate(settled):
        for place, call in enumerate(message.get("tool_calls") or ()):
            results = settled[number + 1 : number + 1 + len(message["tool_calls"])]
            assert [r["content"] for r in results if r["tool_call_id"] == call["id"]] == [str(place)]


@EACH_DRIVER
@EACH_WAY
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("functions.f", "functions_f"),
        ("get weather", "get_weather"),
        ("multi_tool_use.parallel", "multi_tool_use_parallel"),
        ("天气", "__"),
        ("x" * 70, "x" * 64),
        ("", "unknown"),
        ("get_weather", "get_weather"),
    ],
)
def test_made_up_names_are_sent_in_a_valid_form(
    driver: Driver, stream: bool, name: str, sent: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    conversation = (USER, turn(("a", name)), result("a", f"{name} is not a valid tool."))
    assert driver(Case("x", conversation), where, stream).text
    call = sandbox.requests[-1].body["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": sent, "arguments": '{"n": 0}'}


def test_the_framework_keeps_the_name() -> None:
    messages: Any = langchain_messages([turn(("a", "get weather")), result("a")])
    blocks: Any = llamaindex_messages([turn(("a", "get weather")), result("a")])
    convert_messages(messages)
    to_wire(blocks)
    assert messages[0].tool_calls[0]["name"] == blocks[0].blocks[0].tool_name == "get weather"


# Which calls are answered


CUT_CALL = '{"city": "Par'


def histories(between: list[str]) -> list[list[dict[str, Any]]]:
    """Return wire conversations of both adapters: a truncated call, messages between, then its result."""
    langchain: list[BaseMessage] = [HumanMessage("q")]
    broken = {"id": "a", "name": "f", "args": CUT_CALL, "error": None, "type": "invalid_tool_call"}
    langchain.append(AIMessage("Wait.", invalid_tool_calls=[broken]))  # type: ignore[list-item]
    langchain += [HumanMessage("Hello?") if kind == "user" else AIMessage("Yes.") for kind in between]
    langchain.append(ToolMessage("r", tool_call_id="a"))
    block = ToolCallBlock(tool_call_id="a", tool_name="f", tool_kwargs=CUT_CALL)
    llamaindex = [ChatMessage("q"), ChatMessage(role="assistant", blocks=[TextBlock(text="Wait."), block])]
    llamaindex += [ChatMessage("Hello?" if kind == "user" else "Yes.", role=kind) for kind in between]
    llamaindex.append(ChatMessage("r", role="tool", additional_kwargs={"tool_call_id": "a"}))
    return [convert_messages(langchain), to_wire(llamaindex)]


@pytest.mark.parametrize("between", [["user"], ["assistant"], ["user", "assistant"]])
def test_a_result_after_another_turn_answers_nothing(between: list[str]) -> None:
    for wire in histories(between):
        assert wire[1] == {"role": "assistant", "content": f"Wait.\n[A call of f was truncated: {CUT_CALL}]"}
        assert wire[-1] == result("a")


def test_a_result_right_after_its_turn_answers_the_call() -> None:
    for wire in histories([]):
        assert wire[1]["tool_calls"][0]["function"]["arguments"] == CUT_CALL


@EACH_WAY
def test_a_truncated_call_that_nothing_answers_spoils_no_conversation(
    stream: bool, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    """The strict sandbox rejects a call without a result."""
    from empiriolabs_core.sandbox import Answer

    cut = Answer("Wait.", finish_reason="length", tool_calls=[{"name": "f", "arguments": ""}])
    sandbox.script(cut)
    llm = ChatEmpirioLabs(**where, streaming=stream)
    history: list[Any] = [HumanMessage("q")]
    history += [llm.invoke(history), HumanMessage("Hello?")]
    assert llm.invoke(history).content
    sandbox.script(cut)
    index, asked = EmpirioLabs(**where), [ChatMessage("q")]
    response = list(index.stream_chat(asked))[-1] if stream else index.chat(asked)
    assert index.chat([*asked, response.message, ChatMessage("Hello?")]).message.content
    for request in (sandbox.requests[1], sandbox.requests[3]):
        assert request.body["messages"][1]["content"] == "Wait.\n[A call of f was truncated: ]"


USE = {"type": "tool_use", "id": "a", "name": "f", "input": {"n": 1}}
SAME = {"id": "a", "name": "f", "args": {"n": 1}}
BLOCKS = {
    "tool_use": USE,
    "tool_call": {"type": "tool_call", "id": "a", "name": "f", "args": {"n": 1}},
    "function_call": {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": '{"n": 1}'},
    "toolUse": {"toolUse": {"toolUseId": "a", "name": "f", "input": {"n": 1}}},
}
EACH_BLOCK = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
F = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}


@EACH_BLOCK
def test_a_call_that_a_message_holds_twice_is_one_call(block: dict[str, Any]) -> None:
    message = AIMessage([block], tool_calls=[SAME])  # type: ignore[list-item]
    wire = convert_messages([message, ToolMessage("r", tool_call_id="a")])
    assert wire[0]["tool_calls"] == [F]


@EACH_BLOCK
def test_calls_that_a_middleware_removed_do_not_come_back(block: dict[str, Any]) -> None:
    message = AIMessage([block, {"type": "text", "text": "Hi"}], tool_calls=[SAME])  # type: ignore[list-item]
    stripped = message.model_copy(update={"tool_calls": []})
    assert convert_messages([stripped, HumanMessage("q")])[0] == {"role": "assistant", "content": "Hi"}
    other = message.model_copy(update={"tool_calls": [{**SAME, "id": "b"}]})
    assert ids(convert_messages([other, ToolMessage("r", tool_call_id="b")])) == ["b", ">b"]


@EACH_BLOCK
def test_stored_calls_in_blocks_are_sent_as_calls(block: dict[str, Any], sandbox: Sandbox) -> None:
    results: list[Any] = [
        ToolMessage("r", tool_call_id="a"),
        HumanMessage([{"type": "tool_result", "tool_use_id": "a", "content": "r"}]),
    ]
    for told in results:
        wire = convert_messages([HumanMessage("q"), AIMessage([block]), told])
        assert wire[1:] == [{"role": "assistant", "content": None, "tool_calls": [F]}, result("a")]


@pytest.mark.parametrize("block", [{"type": "tool_use", "id": "a"}, {"type": "tool_call", "name": 5, "args": {}}])
def test_blocks_that_are_not_whole_calls_are_rejected(block: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedContentError, match="Set its id, name and arguments"):
        convert_messages([AIMessage([block])])


def test_a_call_without_an_id_is_rejected_by_both() -> None:
    call: Any = {"id": None, "name": "f", "args": {}}
    with pytest.raises(UnsupportedContentError, match="'f' has no tool_call_id"):
        convert_messages([AIMessage("", tool_calls=[call])])
    with pytest.raises(UnsupportedContentError, match="'f' has no tool_call_id"):
        to_wire([ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="f", tool_kwargs={})])])


STORED = {
    "OpenAI": F,
    "Bedrock": {"toolUseId": "a", "name": "f", "input": {"n": 1}},
    "Bedrock, nested": {"toolUse": {"toolUseId": "a", "name": "f", "input": {"n": 1}}},
    "Anthropic": USE,
    "Google": SimpleNamespace(id="a", name="f", args={"n": 1}),
    "Mistral": SimpleNamespace(id="a", function=SimpleNamespace(name="f", arguments={"n": 1})),
    "Cohere": {"id": "a", "name": "f", "parameters": {"n": 1}},
    "LlamaIndex": {"tool_id": "a", "tool_name": "f", "tool_kwargs": {"n": 1}},
}


def stored(*entries: Any) -> list[ChatMessage]:
    told = ChatMessage("r", role="tool", additional_kwargs={"tool_call_id": "a"})
    return [ChatMessage("", role="assistant", additional_kwargs={"tool_calls": list(entries)}), told]


@pytest.mark.parametrize("entry", STORED.values(), ids=STORED)
def test_stored_calls_of_other_llms_are_sent_as_calls(entry: Any) -> None:
    assert to_wire(stored(entry))[0]["tool_calls"] == [F]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"toolUseId": "a", "input": {}}, "Set its id, name and arguments"),
        ({"id": "a", "name": "f", "city": "Paris"}, "Set its id, name and arguments"),
        ("f()", "Set its id, name and arguments"),
        (SimpleNamespace(id=None, name="f", args={}), "'f' has no tool_call_id"),
        ({"id": "a", "name": "f", "args": {1, 2}}, "cannot be sent"),
    ],
)
def test_stored_calls_of_another_form_are_rejected(entry: Any, told: str) -> None:
    with pytest.raises(UnsupportedContentError, match=told):
        to_wire(stored(entry))


def test_a_function_call_from_before_tools_is_not_dropped() -> None:
    old = ChatMessage("", role="assistant", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}})
    with pytest.raises(UnsupportedContentError, match="'f' has no tool_call_id"):
        to_wire([old])
