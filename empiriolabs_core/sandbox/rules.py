"""Reject requests that the gateway would reject, before answering."""

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
"""The ranges of `n`, `top_logprobs`, penalties and `logit_bias` are OpenAI's and DeepSeek's. For the gateway, they are
inferred."""
_LIMITED = ("max_tokens", "max_completion_tokens", "thinking_budget")
"""Integers from 1 to the limit on the model's card."""
_MOST_TOOLS = 128
_ENDPOINTS = {"qwen3-rerank": ("POST /v1/reranks",)}
"""The routes of models without a card."""


def read_body(raw: bytes) -> JSON:
    """Parse the JSON object in a request body.

    Raises:
        Refusal: if the body is not a JSON object, or contains half of a surrogate pair, which cannot be sent back.
    """
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:
        raise bad("body", f"The body is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise bad("body", "The body must be a JSON object.")
    # A surrogate can arrive only as an escape, so most bodies need no further check.
    for name in body if b"\\ud" in raw.lower() else ():
        try:
            json.dumps({name: body[name]}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            lone, field = ascii(error.object[error.start]), ascii(name)[1:-1]
            raise bad(field, f"{field} contains {lone}, half of a surrogate pair. Send both halves.") from None
    return body


def too_deep() -> Refusal:
    """Return the error for a body that is nested too deeply for Python's parser."""
    return bad("body", "The body is nested too deeply. Reduce the nesting of lists and objects.")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a valid JSON number")


def check_key(headers: Mapping[str, str], key: str) -> None:
    """Reject a request without an API key or with a wrong one."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not given:
        raise Refusal(401, "missing_api_key", "No API key was sent. Send Authorization: Bearer <key>.")
    if given != key:
        raise Refusal(401, "invalid_api_key", "The API key is invalid. Send the sandbox's api_key.")


def check_model(body: JSON, served: Collection[str], path: str) -> None:
    """Reject a request without a model, or for a model that is not served, or not served by this route.

    The catalogue documents which routes serve a model. The status 404 is inferred from OpenAI's.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad("model", f"model is required: pass a model id (got {shown(model)}).")
    if model not in served:
        problem = f"The model {shown(model)} does not exist."
        hint = f"To serve it here, start Sandbox(models=[{shown(model)}]), or pass --model in a shell."
        raise Refusal(404, "model_not_found", f"{problem} {hint}", "model")
    card = catalog.card(model)
    endpoints = _ENDPOINTS.get(model, card.endpoints if card else ())
    if endpoints and f"POST {path}" not in endpoints:
        problem = f"The model {model!r} is not served by POST {path}. Use one of: {', '.join(endpoints)}."
        raise Refusal(404, "model_not_found", problem, "model")


def check_parameters(body: JSON, card: ModelCard | None) -> None:
    """Reject parameters with a wrong type or outside the documented range."""
    for name in _BOOLEANS:
        check_boolean(body, name)
    for name in _OBJECTS:
        if not isinstance(body.get(name), dict | None):
            raise bad(name, f"{name} must be an object, got {shown(body[name])}.")
    for name, (low, high) in _NUMBERS.items():
        _check_number(body, name, low, high, float | int)
    limit = (card.max_output_tokens if card else None) or 10**9
    for name, (least, most) in {**_WHOLE_NUMBERS, **dict.fromkeys(_LIMITED, (1, limit))}.items():
        check_whole_number(body, name, least, most)
    if body.get("reasoning_effort") not in (None, *_EFFORTS):
        given = shown(body["reasoning_effort"])
        raise bad("reasoning_effort", f"reasoning_effort must be one of {', '.join(_EFFORTS)}, got {given}.")
    check_boolean(body.get("stream_options") or {}, "include_usage", "stream_options")
    _check_logit_bias(body.get("logit_bias") or {})
    _check_stop(body.get("stop"))
    _check_response_format(body.get("response_format") or {}, card)


def check_boolean(body: JSON, name: str, param: str | None = None) -> None:
    """Reject a value other than true, false or null. `1` is rejected, although it equals `True`."""
    if not isinstance(body.get(name), bool | None):
        raise bad(param or name, f"{name} must be true or false, got {shown(body[name])}.")


def check_whole_number(body: JSON, name: str, low: int, high: int) -> None:
    """Reject a value that is not an integer from `low` to `high`. `1.0` is not an integer here."""
    _check_number(body, name, low, high, int)


def _check_number(body: JSON, name: str, low: float, high: float, kind: Any) -> None:
    value = body.get(name)
    if value is None or (isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high):
        return
    wanted = "an integer" if kind is int else "a number"
    raise bad(name, f"{name} must be {wanted} from {low} to {high}, got {shown(value)}.")


def _check_logit_bias(bias: JSON) -> None:
    for token in bias:
        _check_number(bias, token, -100, 100, float | int)


def _check_stop(stop: Any) -> None:
    stops = [] if stop is None else stop if isinstance(stop, list) else [stop]
    if not all(isinstance(text, str) and text for text in stops):
        raise bad("stop", f"stop must be a non-empty string or a list of non-empty strings, got {shown(stop)}.")
    if len(stops) > 4:
        raise bad("stop", f"stop must have at most 4 entries, got {len(stops)}.")


def _check_response_format(response_format: JSON, card: ModelCard | None) -> None:
    wanted = response_format.get("type")
    if response_format and wanted not in _FORMATS:
        problem = f"response_format.type must be one of {', '.join(_FORMATS)}, got {shown(wanted)}."
        raise bad("response_format", problem)
    if wanted != "json_schema":
        return
    if card and card.json_object_only:
        raise bad("response_format", f"response_format.type={wanted!r} is not supported by {card.id}.")
    given = response_format.get("json_schema")
    if not isinstance(given, dict) or not isinstance(given.get("schema"), dict | None):
        problem = f"response_format.json_schema must be an object that contains a schema object, got {shown(given)}."
        raise bad("response_format", problem)


def check_tools(body: JSON) -> None:
    """Reject tools and a tool choice that upstream models reject.

    Whether the gateway itself checks them is not documented.
    """
    tools = [] if body.get("tools") is None else body["tools"]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise bad("tools", f"tools must be a list of objects, got {shown(tools)}.")
    if len(tools) > _MOST_TOOLS:
        raise bad("tools", f"tools must have at most {_MOST_TOOLS} entries, got {len(tools)}.")
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
        raise bad("tools", f"{where}.parameters must be a JSON schema object, got {shown(parameters)}.")
    kind = parameters.get("type", "object")
    if kind != "object":
        raise bad("tools", f"{where}.parameters.type must be 'object', got {shown(kind)}.")


def _check_tool_choice(choice: Any, names: list[str]) -> None:
    if choice == "required" and not names:
        raise bad("tool_choice", "tool_choice='required' needs at least one tool, but tools is empty.")
    if choice is None or (isinstance(choice, str) and choice in _TOOL_CHOICES):
        return
    if choice not in [{"type": "function", "function": {"name": name}} for name in names]:
        raise bad(
            "tool_choice",
            f"tool_choice must be one of {', '.join(_TOOL_CHOICES)}, or {{'type': 'function', 'function': "
            f"{{'name': ...}}}} with the name of one of the tools, got {shown(choice)}.",
        )


def check_window(body: JSON, card: ModelCard | None) -> None:
    """Reject a conversation that is longer than the model's context window, in DeepSeek's words."""
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
    """Return whether the model would think.

    The precedence of contradicting controls is not documented. Here, off takes precedence; this is inferred.
    """
    if body.get("enable_thinking") is False or body.get("reasoning_effort") == "none":
        return False
    asked = any(body.get(name) is not None for name in ("enable_thinking", "thinking_budget", "reasoning_effort"))
    return asked or bool(card and card.thinks)


def check_upstream(body: JSON, card: ModelCard | None, reasoned: Collection[str] = ()) -> None:
    """Reject requests that DeepSeek rejects, in its words. Whether the gateway rejects them too is not documented.

    Args:
        body: the request.
        card: the card of the model, if there is one.
        reasoned: the texts of answers whose reasoning must be sent back, in addition to that of turns with tool calls.
    """
    check_tool_results(body["messages"])
    _check_tools_upstream(body)
    if body.get("stream_options") is not None and not body.get("stream"):
        problem = "stream_options should be set along with stream = true"
        raise Refusal(400, "invalid_request_error", problem, "stream_options")
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
            problem = f"tools[{number}].type: unknown variant `{tool.get('type')}`, expected `function`"
            raise Refusal(400, "invalid_request_error", problem, "tools")
    names = function_names(body)
    if len(set(names)) < len(names):
        raise Refusal(400, "invalid_request_error", "Tool names must be unique.", "tools")
