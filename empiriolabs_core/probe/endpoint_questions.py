"""The open questions about `/v1/responses` and `/v1/messages`, with the bodies that a client would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empiriolabs_core.endpoints import ENDPOINTS
from empiriolabs_core.errors import JSON
from empiriolabs_core.probe.outcomes import NO_MODEL, Call, Outcome, Outcomes, Probe, each, verdict

_THINK: JSON = {"enable_thinking": True, "thinking_budget": 128}
_OFF: JSON = {"enable_thinking": False}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
_QUESTION = "Use add for 2 and 3."
_VERSION = {"anthropic-version": "2023-06-01"}


def endpoint_probes(model: str) -> list[Probe]:
    """Return the probes of both endpoints for a chat model with reasoning."""
    return [*_of_responses(model), *_of_messages(model), *_of_both(model)]


def _responses(model: str, label: str, **fields: Any) -> Call:
    body = {"model": model, "input": "Hi", "max_output_tokens": 200, **fields}
    return Call(label, body, ENDPOINTS["responses"].path)


def _messages(model: str, label: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Call:
    body = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return Call(label, body, ENDPOINTS["messages"].path, headers=_VERSION if headers is None else headers)


def _of_responses(model: str) -> list[Probe]:
    def ask(label: str, **fields: Any) -> Call:
        return _responses(model, label, **fields)

    def loop(label: str, *reasoning: str) -> Call:
        thoughts = [
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}
            for text in reasoning
        ]
        made = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 2, "b": 3}'}
        result = {"type": "function_call_output", "call_id": "call_1", "output": "5"}
        tool = {"type": "function", "name": "add", "description": "Add.", "parameters": _SCHEMA, "strict": False}
        items = [{"type": "message", "role": "user", "content": _QUESTION}, *thoughts, made, result]
        return ask(label, input=items, tools=[tool], **_THINK)

    return [
        Probe(
            "responses reply",
            "What does a reply of /v1/responses contain, and which fields are accepted?",
            [
                ask("plain", **_THINK),
                ask("store false", store=False, **_OFF),
                ask("stop", stop=["x"], **_OFF),
                ask("unknown field", no_such_field=1, **_OFF),
            ],
            _forms,
        ),
        Probe(
            "responses stream",
            "Which events does a complete and a truncated stream of /v1/responses have?",
            [ask("whole", stream=True, **_THINK), ask("16 tokens", stream=True, max_output_tokens=16, **_OFF)],
            _forms,
        ),
        Probe(
            "responses tool loop",
            "Must a tool call on /v1/responses be sent with its reasoning item?",
            [
                loop("with", "I should add."),
                loop("without"),
                loop("empty", ""),
                ask("previous response", previous_response_id="resp_0", **_OFF),
            ],
            lambda outcomes: each(outcomes, verdict),
        ),
        Probe(
            "responses effort",
            "How is the reasoning effort set on /v1/responses?",
            [
                ask("reasoning.effort", reasoning={"effort": "low"}),
                ask("reasoning_effort", reasoning_effort="low"),
                ask("enable_thinking", **_OFF),
            ],
            _forms,
        ),
    ]


def _of_messages(model: str) -> list[Probe]:
    def ask(label: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Call:
        return _messages(model, label, headers, **fields)

    def loop(label: str, *thinking: JSON) -> Call:
        use = {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 2, "b": 3}}
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": "5"}
        turns = [
            {"role": "user", "content": _QUESTION},
            {"role": "assistant", "content": [*thinking, use]},
            {"role": "user", "content": [result]},
        ]
        tool = {"name": "add", "description": "Add.", "input_schema": _SCHEMA}
        return ask(label, messages=turns, tools=[tool], **_THINK)

    long = [{"role": "user", "content": "The same long beginning. " * 100}]
    return [
        Probe(
            "messages reply",
            "What does a reply of /v1/messages contain? Do its input tokens include cached tokens?",
            [
                ask("with a version", **_THINK),
                ask("without a version", {}, **_OFF),
                ask("a long prompt", messages=long, **_OFF),
                ask("the same again", messages=long, **_OFF),
                ask("truncated", max_tokens=5, **_OFF),
                ask("stop sequence", stop_sequences=[" "], **_OFF),
            ],
            _forms,
        ),
        Probe(
            "messages tool loop",
            "Must a tool call on /v1/messages be sent with its thinking block and a signature?",
            [
                loop("without a signature", {"type": "thinking", "thinking": "I should add.", "signature": ""}),
                loop("without the block"),
            ],
            lambda outcomes: each(outcomes, verdict),
        ),
        Probe(
            "messages fields",
            "Which fields of the other endpoints are accepted on /v1/messages?",
            [
                ask("output_config.effort", output_config={"effort": "low"}),
                ask("reasoning_effort", reasoning_effort="low"),
                ask("response_format", response_format={"type": "json_object"}, **_OFF),
            ],
            _forms,
        ),
    ]


def _of_both(model: str) -> list[Probe]:
    search: JSON = {"web_search_linkup": True, **_OFF}
    return [
        Probe(
            "endpoint search",
            "Where are the sources of a web search on the other endpoints?",
            [_responses(model, "responses", **search), _messages(model, "messages", **search)],
            _forms,
        ),
        Probe(
            "endpoint errors",
            "What do errors look like on the other endpoints?",
            [
                _responses(model, "responses, wrong field", max_output_tokens=-1, **_OFF),
                _messages(model, "messages, wrong field", max_tokens=-1, **_OFF),
                _responses(NO_MODEL, "responses, unknown model"),
                _messages(NO_MODEL, "messages, unknown model"),
            ],
            lambda outcomes: each(outcomes, _refusal),
        ),
        Probe(
            "endpoint system",
            "Does a system text replace the gateway's own on the other endpoints?",
            [
                _responses(model, "responses without", **_OFF),
                _responses(model, "responses with", instructions="Hi.", **_OFF),
                _messages(model, "messages without", **_OFF),
                _messages(model, "messages with", system="Hi.", **_OFF),
            ],
            lambda outcomes: each(outcomes, _input_tokens),
        ),
    ]


def _forms(outcomes: Outcomes) -> str:
    return each(outcomes, _form)


def _form(outcome: Outcome) -> str:
    """Return the items of an accepted reply, or the events of an accepted stream."""
    if not outcome.accepted:
        return verdict(outcome)
    if len(outcome.events) > 1:
        kinds = ", ".join(dict.fromkeys(str(entry.get("type")) for entry in outcome.objects))
        return f"events {kinds}, {'[DONE]' if '[DONE]' in outcome.events else 'no [DONE]'}"
    reply = outcome.first
    items = reply.get("output") or reply.get("content") or ()
    found = {name: reply[name] for name in ("status", "stop_reason", "store") if name in reply}
    return f"{', '.join(str(item.get('type')) for item in items)}, {found}, usage {reply.get('usage')}"


def _refusal(outcome: Outcome) -> str:
    keys = outcome.error if isinstance(outcome.error, Mapping) else ()
    outer = ", ".join(sorted(outcome.first)) or "none"
    return f"{outcome.status} with keys {outer} and, within the error, {', '.join(keys) or 'none'}"


def _input_tokens(outcome: Outcome) -> str:
    usage = outcome.first.get("usage")
    return f"{usage.get('input_tokens')} input tokens" if isinstance(usage, Mapping) else verdict(outcome)
