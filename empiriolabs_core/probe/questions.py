"""The open questions, the requests that answer them, and how to interpret the outcomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from empiriolabs_core.errors import JSON
from empiriolabs_core.probe.endpoint_questions import endpoint_probes
from empiriolabs_core.probe.outcomes import NO_MODEL, Call, Outcome, Outcomes, Probe, choices_of, each, verdict
from empiriolabs_core.settings import DEFAULT_MODEL
from empiriolabs_core.vectors import DOCUMENTED_BATCH, EMBEDDINGS, EmbeddingFields

_THINK: JSON = {"enable_thinking": True, "thinking_budget": 128}
_OFF: JSON = {"enable_thinking": False}
_PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
_TOOL: JSON = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": _PARAMETERS}}
_NAMED: JSON = {"type": "function", "function": {"name": "add"}}
_CALL: JSON = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
_LOOP: list[JSON] = [
    {"role": "assistant", "content": "", "reasoning_content": "I should add.", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "5"},
]
_SPOKEN: JSON = {"role": "assistant", "content": "It is 5."}
_SCHEMA: JSON = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _PARAMETERS}}


def probes(model: str = DEFAULT_MODEL) -> list[Probe]:
    """Return the probes for a chat model with reasoning."""

    def chat(label: str, prompt: str = "What is 2 + 3?", key: str | None = None, **fields: Any) -> Call:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 256, **fields}
        return Call(label, body, key=key)

    def loop(label: str, **reasoning: str) -> Call:
        turn = {"role": "assistant", "content": "", "tool_calls": [_CALL], **reasoning}
        result = {"role": "tool", "tool_call_id": "call_1", "content": "5"}
        messages = [{"role": "user", "content": "Use add for 2 and 3."}, turn, result]
        return chat(label, messages=messages, tools=[_TOOL], **_THINK)

    def later(label: str, *turns: JSON, **fields: Any) -> Call:
        messages = [{"role": "user", "content": "Use add for 2 and 3."}, *turns, {"role": "user", "content": "Thanks."}]
        return chat(label, messages=messages, tools=[_TOOL], **_THINK, **fields)

    modes = {"thinking": _THINK, "not thinking": _OFF}
    choices: dict[str, Any] = {"auto": "auto", "none": "none", "required": "required", "named": _NAMED}
    formats = {"json_object": {"type": "json_object"}, "json_schema": _SCHEMA}
    embedding = EmbeddingFields.model_fields["model"].default
    batch = {"model": embedding, "input": [f"text {n}" for n in range(DOCUMENTED_BATCH + 1)]}
    search: JSON = {"web_search_linkup": True, **_OFF}
    news = "What is the newest version of Python?"
    wrong_key = "sk-empiriolabs-" + "0" * 32
    return [
        Probe(
            "tool loop",
            "Must an assistant turn with tool calls include its reasoning_content?",
            [loop("without"), loop("empty", reasoning_content=""), loop("with", reasoning_content="I should add.")],
            _tool_loop,
        ),
        Probe(
            "earlier turns",
            "In requests with tools, which other turns must include reasoning_content, and which forms are accepted?",
            [
                later("plain turn without", _SPOKEN),
                later("plain turn, empty", {**_SPOKEN, "reasoning_content": ""}),
                later("plain turn with", {**_SPOKEN, "reasoning_content": "Two and three."}),
                later("closing answer without", *_LOOP, _SPOKEN),
                later("closing answer with", *_LOOP, {**_SPOKEN, "reasoning_content": "Two and three."}),
                later("call turn, content null", {**_LOOP[0], "content": None}, _LOOP[1]),
                later("call turn, content empty", {**_LOOP[0], "content": ""}, _LOOP[1]),
                chat("name with a space", messages=[{"role": "user", "name": "Ada L", "content": "Hello."}], **_OFF),
            ],
            lambda outcomes: each(outcomes, verdict),
        ),
        Probe(
            "tool choice",
            "Which tool choices are accepted while the model thinks?",
            [
                chat(f"{choice}, {mode}", "Use add for 2 and 3.", tools=[_TOOL], tool_choice=value, **thinking)
                for mode, thinking in modes.items()
                for choice, value in choices.items()
            ],
            _tool_choice,
        ),
        Probe(
            "response format",
            "Which response formats are accepted, and what does the catalogue say?",
            [
                *[
                    chat(f"{name}, {mode}", "Add 2 and 3. Answer in JSON.", response_format=value, **thinking)
                    for name, value in formats.items()
                    for mode, thinking in modes.items()
                ],
                chat("json_object, prompt without 'JSON'", response_format=formats["json_object"], **_OFF),
                Call("catalogue", None, f"/models/{model}"),
            ],
            _response_format,
        ),
        Probe(
            "thinking controls",
            "Which control takes precedence if two contradict each other?",
            [
                chat("effort none, thinking on", reasoning_effort="none", enable_thinking=True),
                chat("effort low, budget", reasoning_effort="low", thinking_budget=16),
                chat("effort max, budget", reasoning_effort="max", thinking_budget=16),
            ],
            _controls,
        ),
        Probe(
            "stream",
            "What does a stream contain besides the answer?",
            [
                chat("plain", stream=True, **_THINK),
                chat("with usage", stream=True, stream_options={"include_usage": True}, **_THINK),
            ],
            _stream,
        ),
        Probe(
            "web search",
            "What do sources look like, and what does disable_formatting change?",
            [
                chat("whole", news, **search),
                chat("stream", news, stream=True, **search),
                chat("no formatting", news, disable_formatting=True, **search),
            ],
            _search,
        ),
        Probe(
            "limits and fields",
            "Does reasoning count towards max_tokens, and which other fields are accepted?",
            [
                chat("max_tokens 16", "Is 1009 prime? Think it through.", max_tokens=16, **_THINK),
                chat("n=2", n=2, **_OFF),
                chat("seed", seed=7, **_OFF),
                chat("logprobs", logprobs=True, top_logprobs=2, **_OFF),
                chat("unknown field", no_such_field=1, **_OFF),
                chat("4 stops", stop=["w", "x", "y", "z"], **_OFF),
                chat("5 stops", stop=["v", "w", "x", "y", "z"], **_OFF),
            ],
            _fields,
        ),
        Probe(
            "embeddings",
            "How many texts may a request contain, and is base64 supported?",
            [
                Call("11 inputs", batch, EMBEDDINGS),
                Call("base64", {"model": embedding, "input": "text", "encoding_format": "base64"}, EMBEDDINGS),
            ],
            _embeddings,
        ),
        *endpoint_probes(model),
        Probe(
            "errors",
            "What do errors look like?",
            [
                chat("no key", key="", **_OFF),
                chat("wrong key", key=wrong_key, **_OFF),
                chat("unknown model", model=NO_MODEL, **_OFF),
                # Sent last, because so many tokens may exhaust the account's limit per minute.
                chat("over-long prompt", "a " * 1_050_000, max_tokens=1, **_OFF),
            ],
            _errors,
        ),
    ]


def _tool_loop(outcomes: Outcomes) -> str:
    without, empty, whole = (outcomes[label] for label in ("without", "empty", "with"))
    if without.refused and whole.accepted:
        fill = "accepted" if empty.accepted else "not accepted"
        return f"Enforced: a turn without reasoning_content is rejected; an empty reasoning_content is {fill}."
    if without.accepted and whole.accepted:
        return "Not enforced: the turn is accepted with and without reasoning_content."
    return f"Unclear. {each(outcomes, verdict)}"


def _tool_choice(outcomes: Outcomes) -> str:
    forced = [outcomes[f"{choice}, thinking"] for choice in ("required", "named")]
    if all(outcome.refused for outcome in forced):
        return "Forced choices are rejected while the model thinks."
    if all(outcome.accepted for outcome in forced):
        called = all(outcome.reply.tool_calls.calls for outcome in forced)
        reasoned = any(outcome.reasoning for outcome in forced)
        return (
            f"Forced choices are accepted: the tool is {'' if called else 'not always '}called, "
            f"{'with' if reasoned else 'without'} reasoning."
        )
    return f"Unclear. {each(outcomes, verdict)}"


def _response_format(outcomes: Outcomes) -> str:
    said = outcomes["catalogue"].first.get("structured_output", "nothing")
    return f"{each(outcomes, verdict)} The catalogue's structured_output: {said}."


def _controls(outcomes: Outcomes) -> str:
    def say(outcome: Outcome) -> str:
        thought = outcome.reasoning or (outcome.tokens and outcome.tokens.reasoning_tokens)
        return "reasoned" if thought else "did not reason" if outcome.accepted else verdict(outcome)

    return each(outcomes, say)


def _stream(outcomes: Outcomes) -> str:
    def say(outcome: Outcome) -> str:
        usage = outcome.reply.usage or {}
        keys = [*usage, *(f"{name}.{inner}" for name, v in usage.items() if isinstance(v, dict) for inner in v)]
        comments = len(re.findall(r"^:", outcome.text, re.MULTILINE))
        done = "[DONE]" if "[DONE]" in outcome.events else "no [DONE]"
        return f"{len(outcome.objects)} chunks, {comments} comments, {done}, usage keys {', '.join(keys) or 'none'}"

    return each(outcomes, say)


def _search(outcomes: Outcomes) -> str:
    def say(outcome: Outcome) -> str:
        text = outcome.reply.text
        heading = "sources heading" if re.search("(?i)sources|references", text) else "no sources heading"
        links = len(re.findall("https?://", text))
        return f"{heading}, {links} links, other keys {outcome.further_keys}, the text ends with {text[-80:]!r}"

    return each(outcomes, say)


def _fields(outcomes: Outcomes) -> str:
    short, inside = outcomes["max_tokens 16"], "Unclear whether reasoning counts"
    if short.tokens is not None and short.tokens.output_tokens > 16:
        inside = "Reasoning does not count"
    elif short.tokens is not None and short.reasoning and not short.reply.text:
        inside = "Reasoning counts"
    probs = any(choice.get("logprobs") for choice in choices_of(outcomes["logprobs"].first))
    return (
        f"{inside} towards max_tokens; n=2 returns {len(choices_of(outcomes['n=2'].first))} choices; logprobs "
        f"are {'' if probs else 'not '}returned. {each(outcomes, verdict)}"
    )


def _embeddings(outcomes: Outcomes) -> str:
    def say(outcome: Outcome) -> str:
        kinds = [type(entry.get("embedding")).__name__ for entry in outcome.first.get("data") or ()]
        return f"{verdict(outcome)}, {len(kinds)} vectors{f' as {kinds[0]}' if kinds else ''}"

    return each(outcomes, say)


def _errors(outcomes: Outcomes) -> str:
    def say(outcome: Outcome) -> str:
        keys = outcome.error if isinstance(outcome.error, Mapping) else ()
        return f"{outcome.status} with keys {', '.join(keys) or 'none'}, headers {', '.join(sorted(outcome.headers))}"

    return each(outcomes, say)
