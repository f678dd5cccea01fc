"""What the gateway refuses, and in which words. Checked before anything is answered."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from empiriolabs_core import catalog
from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.sandbox.answers import JSON, text_of
from empiriolabs_core.sandbox.messages import check_reasoning_is_back, check_tool_name, check_tool_results
from empiriolabs_core.sandbox.refusals import Refusal, bad, shown
from empiriolabs_core.sandbox.wire import prompt_tokens

_EFFORTS = ("none", "low", "medium", "high", "max")
_TOOL_CHOICES = ("auto", "none", "required")
_FORMATS = ("text", "json_object", "json_schema")
_BOOLEANS = ("enable_thinking", "web_search_linkup", "disable_formatting", "stream", "parallel_tool_calls", "logprobs")
_OBJECTS = ("response_format", "stream_options", "logit_bias")
_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
_WHOLE_NUMBERS = {"n": (1, 128), "top_logprobs": (0, 20), "seed": (-(2**63), 2**63 - 1)}
"""The first two and those of penalties and `logit_bias` are OpenAI's and DeepSeek's; for the gateway, inferred."""
_LIMITED = ("max_tokens", "max_completion_tokens", "thinking_budget")
"""Whole numbers from 1 up to the limit on the model's card."""
_MOST_TOOLS = 128
_ENDPOINTS = {"qwen3-rerank": ("POST /v1/reranks",)}
"""The routes of models that have no card."""


def read_body(raw: bytes) -> JSON:
    """Return the JSON object that a body holds.

    Raises:
        Refusal: it holds none, or a text in it cannot be sent back: a lone surrogate is no character.
    """
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:
        raise bad("body", f"The body is no JSON: {error}.") from None
    if not isinstance(body, dict):
        raise bad("body", "The body must be a JSON object.")
    # A surrogate can only come as an escape, so most bodies need no second look.
    for name in body if b"\\ud" in raw.lower() else ():
        try:
            json.dumps({name: body[name]}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            lone, field = ascii(error.object[error.start]), ascii(name)[1:-1]
            raise bad(field, f"{field} holds {lone}, half of a surrogate pair. Send both halves.") from None
    return body


def too_deep() -> Refusal:
    """Return the refusal of a body that is nested deeper than Python can follow."""
    return bad("body", "The body is nested too deeply. Send fewer lists and objects within each other.")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def check_key(headers: Mapping[str, str], key: str) -> None:
    """Refuse a request without the key, or with another one."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not given:
        raise Refusal(401, "missing_api_key", "No API key was sent. Send Authorization: Bearer <key>.")
    if given != key:
        raise Refusal(401, "invalid_api_key", "The API key is not known.")


def check_model(body: JSON, served: Collection[str], path: str) -> None:
    """Reject a request without a model, or for a model that is not served, or not by this route.

    That the catalogue says which routes serve a model is documented. The status is inferred: OpenAI's is 404.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad("model", f"model is required: pass a model id (got {shown(model)}).")
    if model not in served:
        told = f"The model {shown(model)} does not exist."
        hint = f"To serve it here, start Sandbox(models=[{shown(model)}]), or pass --model in a shell."
        raise Refusal(404, "model_not_found", f"{told} {hint}", "model")
    card = catalog.card(model)
    endpoints = _ENDPOINTS.get(model, card.endpoints if card else ())
    if endpoints and f"POST {path}" not in endpoints:
        told = f"The model {model!r} is not served by POST {path}. Use one of: {', '.join(endpoints)}."
        raise Refusal(404, "model_not_found", told, "model")


def check_parameters(body: JSON, card: ModelCard | None) -> None:
    """Refuse parameters of another type than documented, or out of the documented ranges."""
    for name in _BOOLEANS:
        check_boolean(body, name)
    for name in _OBJECTS:
        if not isinstance(body.get(name), dict | None):
            raise bad(name, f"{name}={shown(body[name])} must be an object.")
    for name, (low, high) in _NUMBERS.items():
        _check_number(body, name, low, high, float | int)
    limit = (card.max_output_tokens if card else None) or 10**9
    for name, (least, most) in {**_WHOLE_NUMBERS, **dict.fromkeys(_LIMITED, (1, limit))}.items():
        check_whole_number(body, name, least, most)
    if body.get("reasoning_effort") not in (None, *_EFFORTS):
        told = f"reasoning_effort={shown(body['reasoning_effort'])} must be one of {_EFFORTS}."
        raise bad("reasoning_effort", told)
    check_boolean(body.get("stream_options") or {}, "include_usage", "stream_options")
    _check_logit_bias(body.get("logit_bias") or {})
    _check_stop(body.get("stop"))
    _check_response_format(body.get("response_format") or {}, card)


def check_boolean(body: JSON, name: str, param: str | None = None) -> None:
    """Refuse what is neither true nor false. `1` is not, though it equals `True`."""
    if not isinstance(body.get(name), bool | None):
        raise bad(param or name, f"{name}={shown(body[name])} must be true or false.")


def check_whole_number(body: JSON, name: str, low: int, high: int) -> None:
    """Refuse what is no whole number in a range. `1.0` is none."""
    _check_number(body, name, low, high, int)


def _check_number(body: JSON, name: str, low: float, high: float, kind: Any) -> None:
    value = body.get(name)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high):
        return
    told = "whole number" if kind is int else "number"
    raise bad(name, f"{name}={shown(value)} must be a {told} from {low} to {high}.")


def _check_logit_bias(bias: JSON) -> None:
    for token in bias:
        _check_number(bias, token, -100, 100, float | int)


def _check_stop(stop: Any) -> None:
    stops = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if not all(isinstance(text, str) and text for text in stops):
        raise bad("stop", f"stop={shown(stop)} must be a text or a list of texts, none of them empty.")
    if len(stops) > 4:
        raise bad("stop", f"stop has {len(stops)} entries; at most 4 are taken.")


def _check_response_format(response_format: JSON, card: ModelCard | None) -> None:
    wanted = response_format.get("type")
    if response_format and wanted not in _FORMATS:
        told = f"response_format.type={shown(wanted)} must be one of {', '.join(_FORMATS)}."
        raise bad("response_format", told)
    if wanted != "json_schema":
        return
    if card and card.json_object_only:
        raise bad("response_format", f"response_format.type={wanted!r} is not supported by {card.id}.")
    given = response_format.get("json_schema")
    if not isinstance(given, dict) or not isinstance(given.get("schema"), dict | None):
        told = f"response_format.json_schema={shown(given)} must be an object, and so must its schema."
        raise bad("response_format", told)


def check_tools(body: JSON) -> None:
    """Refuse tools and a tool choice that upstreams refuse.

    Whether the gateway itself looks at them is not documented.
    """
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise bad("tools", f"tools={shown(tools)} must be a list of objects.")
    if len(tools) > _MOST_TOOLS:
        raise bad("tools", f"tools has {len(tools)} entries; at most {_MOST_TOOLS} are taken.")
    for number, tool in enumerate(tools):
        if tool.get("type") == "function":
            _check_function(tool.get("function"), f"tools[{number}].function")
    _check_tool_choice(body.get("tool_choice"), function_names(body))


def function_names(body: JSON) -> list[str]:
    """Return the names of a request's functions."""
    return [tool["function"]["name"] for tool in body.get("tools") or () if tool.get("type") == "function"]


def _check_function(function: Any, where: str) -> None:
    given = function if isinstance(function, dict) else {}
    check_tool_name("tools", f"{where}.name", given.get("name"))
    parameters = {} if given.get("parameters") is None else given["parameters"]
    if not isinstance(parameters, dict):
        raise bad("tools", f"{where}.parameters={shown(parameters)} must be a JSON schema, an object.")
    kind = parameters.get("type", "object")
    if kind != "object":
        raise bad("tools", f"{where}.parameters.type={shown(kind)} must be 'object'.")


def _check_tool_choice(choice: Any, names: list[str]) -> None:
    if choice == "required" and not names:
        raise bad("tool_choice", "tool_choice='required' needs tools to choose from, but tools is empty. Send some.")
    if choice is None or (isinstance(choice, str) and choice in _TOOL_CHOICES):
        return
    if choice not in [{"type": "function", "function": {"name": name}} for name in names]:
        raise bad(
            "tool_choice",
            f"tool_choice={shown(choice)} must be one of {', '.join(_TOOL_CHOICES)}, or "
            "{'type': 'function', 'function': {'name': ...}} with the name of one of the tools.",
        )


def check_window(body: JSON, card: ModelCard | None) -> None:
    """Refuse a conversation that is longer than the model's window, in DeepSeek's words."""
    window = card.context_window if card else None
    # A token has at least one character, so most requests need no counting.
    if window is None or sum(len(text_of(message.get("content"))) for message in body["messages"]) < window:
        return
    tokens = prompt_tokens(body)
    if tokens > window:
        raise bad(
            "messages",
            f"This model's maximum context length is {window} tokens. However, you requested {tokens} tokens "
            "in the messages. Please reduce the length of the messages.",
        )


def is_thinking(body: JSON, card: ModelCard | None) -> bool:
    """Tell whether the model would think. Which control wins is not documented: off wins here, an inference."""
    if body.get("enable_thinking") is False or body.get("reasoning_effort") == "none":
        return False
    asked = any(body.get(name) is not None for name in ("enable_thinking", "thinking_budget", "reasoning_effort"))
    return asked or bool(card and card.thinks)


def check_upstream(body: JSON, card: ModelCard | None, reasoned: Collection[str] = ()) -> None:
    """Reject what DeepSeek rejects, in its words. Whether the gateway does is not documented.

    Args:
        body: the request.
        card: the card of its model, if it has one.
        reasoned: the texts of answers whose reasoning must come back, besides that of turns with tool calls.
    """
    check_tool_results(body["messages"])
    _check_tools_upstream(body)
    if body.get("stream_options") is not None and not body.get("stream"):
        told = "stream_options should be set along with stream = true"
        raise Refusal(400, "invalid_request_error", told, "stream_options")
    wants_json = (body.get("response_format") or {}).get("type") == "json_object"
    if wants_json and not any("json" in text_of(message.get("content")).lower() for message in body["messages"]):
        raise bad("messages", "With response_format json_object, the messages must contain the word 'json'.")
    if not is_thinking(body, card):
        return
    check_reasoning_is_back(body, reasoned)
    if body.get("tool_choice") not in (None, "auto", "none"):
        raise Refusal(400, "invalid_request_error", "Thinking mode does not support this tool_choice", "tool_choice")


def _check_tools_upstream(body: JSON) -> None:
    for number, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") != "function":
            told = f"tools[{number}].type: unknown variant `{tool.get('type')}`, expected `function`"
            raise Refusal(400, "invalid_request_error", told, "tools")
    names = function_names(body)
    if len(set(names)) < len(names):
        raise Refusal(400, "invalid_request_error", "Tool names must be unique.", "tools")
