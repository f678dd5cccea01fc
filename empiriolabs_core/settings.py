"""Define the typed request fields of both adapters, and build request bodies.

`RequestFields` contains the fields that constructors and calls share. `Settings` adds the connection;
both adapters inherit it. `Settings.request` applies the wire rules:

* Only fields that the user set are sent; `None` is never sent. The gateway's own fields are top-level keys.
* Values out of range and contradictory thinking controls are rejected before anything is sent.
* In a conversation with tools, every assistant turn is sent with its reasoning.
* A forced tool choice turns thinking off if the model would reject it otherwise.
* JSON output together with web search turns the Sources footer off, which would break the JSON.
* If the model supports JSON mode but no schemas, a JSON schema is sent in a system message.
* Content that the model's card does not list, such as an image, is rejected; in a tool's result, text replaces it.
* A stream requests usage.
* Arguments that the endpoint cannot express are rejected.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from empiriolabs_core import catalog
from empiriolabs_core.arguments import OPTIONS, merge, request_options, sentences, sort_arguments
from empiriolabs_core.catalog import ModelCard, Parameter, card
from empiriolabs_core.connection import ConnectionFields
from empiriolabs_core.content import join_parts
from empiriolabs_core.endpoints import ENDPOINTS, EndpointName
from empiriolabs_core.errors import JSON, SettingsError, UnsupportedContentError, excerpt, warn_once
from empiriolabs_core.gateway import Request
from empiriolabs_core.tool_calls import plain_name

DEFAULT_MODEL = "deepseek-v4-flash"
"""The default model."""

ReasoningEffort = Literal["none", "low", "medium", "high", "max"]
SendBackReasoning = Literal["tool_calls", "always", "never"]

_THINKING = ("enable_thinking", "thinking_budget", "reasoning_effort")

_MODALITIES = {"image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file"}
"""Maps the types of content parts that are not text to modalities."""

_Self = TypeVar("_Self", bound="RequestFields")
_Bool = Annotated[bool, Field(strict=True)]
_Tokens = Annotated[int, Field(strict=True, ge=1)]


class RequestFields(BaseModel):
    """The fields that can be set in the constructor and in a single call."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model: str = Field(default=DEFAULT_MODEL, min_length=1, validation_alias=AliasChoices("model", "model_name"))
    """Model id, such as `"deepseek-v4-pro"` or `"deepseek-v4-flash:variant1"`. Any id is accepted. Default:
    `"deepseek-v4-flash"`."""

    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    """Sampling temperature, 0 to 2. Gateway default: 0.7. DeepSeek V4 ignores it while thinking. (Model pages)"""

    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    """Nucleus sampling probability mass, 0 to 1. Gateway default: 0.9. (Model pages)"""

    max_tokens: _Tokens | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Maximum number of tokens of an answer, 1 to the limit on the model's card (393,216 for V4). Gateway default:
    4096. (Model pages) DeepSeek's own API counts reasoning too. (DeepSeek; undocumented for the gateway)"""

    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    """A string, or a list of up to 4 strings, at which generation stops. (Model pages)"""

    enable_thinking: _Bool | None = None
    """Whether the model reasons before it answers. Gateway default for V4: true. (Model pages)"""

    thinking_budget: _Tokens | None = None
    """Maximum number of reasoning tokens, 1 to the limit on the model's card. Gateway default: 32768. (Model pages)"""

    reasoning_effort: ReasoningEffort | None = None
    """`"none"` turns thinking off; `"low"`, `"medium"`, `"high"`, `"max"` set a budget. Gateway default:
    `"medium"`. (Model pages) Precedence over an explicit `thinking_budget` is undocumented."""

    web_search_linkup: _Bool | None = None
    """Whether Linkup searches the web for the latest user message. Billed per request. Gateway default:
    false. (Model pages)"""

    disable_formatting: _Bool | None = None
    """Whether the gateway leaves out the Sources footer of a web search. Gateway default: false. (Model
    pages) If unset, true is sent for JSON output with web search."""

    send_back_reasoning: SendBackReasoning = "tool_calls"
    """When the reasoning of earlier assistant turns is sent back, as `reasoning_content`. Default: `"tool_calls"`.

    `"tool_calls"`: if the request has tools or the history has a tool call, on every assistant turn that has
    reasoning. Otherwise it is not sent, since DeepSeek ignores it. `"always"`: in every request. `"never"`: not at all.

    With the first two, a turn with tool calls but without reasoning gets an empty `reasoning_content` if the model's
    card requires the key, unless thinking is off. (DeepSeek documents this and rejects such turns without the key;
    undocumented for the gateway)"""

    endpoint: EndpointName = Field(
        default="chat/completions", validation_alias=AliasChoices("endpoint", "use_responses_api")
    )
    """The gateway's endpoint to call: `"chat/completions"`, `"responses"` or `"messages"`. Default:
    `"chat/completions"`. The model's card lists the endpoints that it supports. (Model pages) Messages and answers are
    the same on all endpoints. An argument that an endpoint cannot express raises a `SettingsError`. On `"responses"`,
    `store: false` is sent unless `store` is set, since OpenAI's own endpoint stores conversations by default.
    `use_responses_api=True`, the official package's argument, also selects `"responses"`."""

    stream_usage: _Bool = True
    """Whether a stream requests token usage. Default: true. It is undocumented whether the gateway reports it."""

    extra_body: dict[str, Any] | None = None
    """Extra request fields: top-level keys of the JSON body that this package does not define. Values of the
    constructor and of the call are merged; the call takes precedence."""

    model_kwargs: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("model_kwargs", "additional_kwargs")
    )
    """Other standard Chat Completions fields for every request, such as `{"seed": 7}`."""

    @model_validator(mode="before")
    @classmethod
    def _sort_arguments(cls, data: Any) -> Any:
        return sort_arguments(data, cls, RequestFields) if isinstance(data, dict) else data

    @field_validator("stop", mode="before")
    @classmethod
    def _list_of_stops(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: list[str] | None) -> list[str] | None:
        if value and len(value) > 4:
            raise ValueError(f"stop must have at most 4 entries, got {len(value)}.")
        if value and not all(value):
            raise ValueError("stop must not contain an empty string. Leave it out.")
        return value

    @field_validator("endpoint", mode="before")
    @classmethod
    def _known_endpoint(cls, value: Any) -> Any:
        if isinstance(value, bool):
            # The values of `use_responses_api`.
            return "responses" if value else "chat/completions"
        if isinstance(value, str) and value in ENDPOINTS:
            return value
        is_url = isinstance(value, str) and re.match(r"/|\w+://|[\w-]+(\.[\w-]+)+(:\d+)?(/|$)", value[:200]) is not None
        got = "a URL or path. Set the URL of the API with base_url" if is_url else excerpt(repr(value))
        raise ValueError(f"endpoint must be one of {', '.join(map(repr, ENDPOINTS))}, got {got}.")

    @model_validator(mode="after")
    def _no_contradictions(self: _Self) -> _Self:
        wanted = self.enable_thinking or self.thinking_budget or self.reasoning_effort not in (None, "none")
        if self.reasoning_effort == "none" and wanted:
            raise ValueError(
                f"reasoning_effort='none' turns thinking off, but {_said(self, 'enable_thinking', 'thinking_budget')} "
                "turns it on. Set one of them."
            )
        if self.enable_thinking is False and wanted:
            raise ValueError(
                f"enable_thinking=False turns thinking off, but {_said(self, 'thinking_budget', 'reasoning_effort')} "
                "turns it on. Set one of them."
            )
        return self

    @model_validator(mode="after")
    def _on_card(self: _Self) -> _Self:
        known = card(self.model)
        if known and known.endpoints and not any(entry.endswith(f"/{self.endpoint}") for entry in known.endpoints):
            raise ValueError(
                f"{self.model} does not support endpoint={self.endpoint!r}. It supports: {', '.join(known.endpoints)}."
            )
        return self

    @model_validator(mode="after")
    def _within_card(self: _Self) -> _Self:
        for parameter in _limits(card(self.model)):
            value = getattr(self, parameter.name, None)
            if value is None:
                continue
            low, high = parameter.minimum, parameter.maximum
            if isinstance(value, int | float) and not (low is None or value >= low):
                raise ValueError(f"{parameter.name} must be at least {low:g} for {self.model}, got {value}.")
            if isinstance(value, int | float) and not (high is None or value <= high):
                raise ValueError(f"{parameter.name} must be at most {high:.10g} for {self.model}, got {value}.")
            if parameter.options and value not in parameter.options:
                taken = ", ".join(parameter.options)
                raise ValueError(f"{parameter.name} must be one of {taken} for {self.model}, got {value!r}.")
        return self

    @property
    def thinking_off(self) -> bool:
        """Whether the user turned thinking off."""
        return self.enable_thinking is False or self.reasoning_effort == "none"

    @property
    def thinking_asked_for(self) -> bool:
        """Whether the user turned thinking on, or set its budget or effort."""
        return not self.thinking_off and any(getattr(self, name) is not None for name in _THINKING)


class Settings(ConnectionFields, RequestFields):
    """Base class of both adapters: the request fields, the connection, and `request`.

    Raises:
        SettingsError: if an argument is misspelt or out of range, or contradicts another argument.
    """

    @property
    def card(self) -> ModelCard | None:
        """The model's card; `None` if there is no card."""
        return card(self.model)

    @classmethod
    def list_models(cls, base_url: str | None = None) -> list[ModelCard]:
        """Read the gateway's catalogue, which requires no key; see `empiriolabs_core.catalog.fetch`."""
        return catalog.fetch(base_url)

    @classmethod
    async def alist_models(cls, base_url: str | None = None) -> list[ModelCard]:
        """Read the gateway's catalogue, which requires no key; see `empiriolabs_core.catalog.fetch`."""
        return await catalog.afetch(base_url)

    def fields(self, call: Mapping[str, Any]) -> RequestFields:
        """Return the request fields for a call. Its values override the constructor's and are checked the same way.

        If a call sets any thinking control, all thinking controls of the constructor are ignored.

        Raises:
            SettingsError: if a value is out of range, or contradicts another value.
        """
        named = {name: value for name, value in call.items() if value is not None}
        for name in named.keys() - RequestFields.model_fields.keys():
            raise SettingsError(f"{name!r} is a constructor argument and cannot be set in a call.")
        dropped = _THINKING if any(name in named for name in _THINKING) else ()
        values = {name: getattr(self, name) for name in RequestFields.model_fields if name not in dropped}
        if "extra_body" in named and values["extra_body"]:
            named["extra_body"] = merge(values["extra_body"], named["extra_body"])
        if "model_kwargs" in named and values["model_kwargs"]:
            named["model_kwargs"] = {**values["model_kwargs"], **named["model_kwargs"]}
        try:
            return RequestFields.model_validate(values | named)
        except ValidationError as error:
            raise SettingsError(sentences(error, type(self))) from None

    def request(self, messages: Sequence[JSON], call: Mapping[str, Any], *, stream: bool) -> Request:
        """Build the request for a conversation.

        Args:
            messages: wire messages. Assistant messages contain `reasoning_content` if the model returned reasoning.
            call: the arguments of this call: typed fields, standard Chat Completions fields, and `timeout`,
                `max_retries`, `extra_headers`. `None` means not set.
            stream: whether to stream the answer.

        Raises:
            SettingsError: if `messages` is empty, or an argument in `call` is unknown, out of range or contradictory.
        """
        if not messages:
            raise SettingsError("messages must not be empty. Pass at least one message.")
        options = request_options(call)
        fields = self.fields(
            sort_arguments({k: v for k, v in call.items() if k not in OPTIONS}, type(self), RequestFields)
        )
        known = card(fields.model)
        further = _further_fields(fields)
        messages = _checked(messages, fields.model, known)
        if known is not None and known.json_object_only:
            messages = _schema_into_messages(messages, further, fields.model)
        thinking = _thinking_controls(fields, known, further.get("tool_choice"))
        has_tools = bool(further.get("tools") or (fields.extra_body or {}).get("tools"))
        off = fields.thinking_off or thinking.get("enable_thinking") is False
        body: JSON = {
            "model": fields.model,
            "messages": _with_reasoning(messages, fields.send_back_reasoning, known, off, has_tools=has_tools),
            **_sampling(fields),
            **thinking,
            **_search(fields, further),
            **further,
        }
        _warn_of_doubtful(body, fields, known)
        # OpenAI and DeepSeek reject stream_options without a stream.
        body.pop("stream_options", None)
        if stream:
            body |= {"stream": True, **_stream_options(fields, further)}
        body |= {name: value for name, value in (fields.extra_body or {}).items() if value is not None}
        endpoint = ENDPOINTS[fields.endpoint]
        return Request(body, options, endpoint, endpoint.write_body(body))


def _further_fields(fields: RequestFields) -> JSON:
    """Return the standard fields to send. An empty list of tools and the default tool choice are left out."""
    further = {name: value for name, value in (fields.model_kwargs or {}).items() if value is not None}
    if not further.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            further.pop(name, None)
    if further.get("tool_choice") == "auto":
        del further["tool_choice"]
    if isinstance(further.get("response_format"), type):
        further["response_format"] = _format_of(further["response_format"])
    return further


def _format_of(output_cls: type) -> JSON:
    """Return the response format for a pydantic class."""
    write = getattr(output_cls, "model_json_schema", None) or getattr(output_cls, "schema", None)
    if not callable(write):
        raise SettingsError(f"response_format must be a dict or a pydantic class, got the class {output_cls.__name__}.")
    return {"type": "json_schema", "json_schema": {"name": plain_name(output_cls.__name__), "schema": write()}}


def _stream_options(fields: RequestFields, further: JSON) -> JSON:
    """Return `stream_options` as a field of the body: what the user set, and the request for usage."""
    options = further.get("stream_options") or {}
    if not isinstance(options, Mapping):
        raise SettingsError(f"stream_options must be a dict, such as {{'include_usage': True}}, got {options!r}.")
    usage = {"include_usage": True} if fields.stream_usage else {}
    return {"stream_options": {**usage, **options}} if usage or options else {}


def _sampling(fields: RequestFields) -> JSON:
    named = {name: getattr(fields, name) for name in ("temperature", "top_p", "max_tokens", "stop")}
    return {name: value for name, value in named.items() if value is not None and value != []}


def _thinking_controls(fields: RequestFields, known: ModelCard | None, tool_choice: Any) -> JSON:
    """Return the thinking controls to send. Thinking is turned off if the tool choice requires it."""
    asked = fields.thinking_asked_for
    forced = tool_choice not in (None, "auto", "none")
    refused = not fields.thinking_off and (asked or (known is not None and known.refuses_forced_tools))
    if forced and refused:
        if asked:
            warnings.warn(
                f"{fields.model} cannot think while a tool is forced (tool_choice={excerpt(tool_choice)}). This "
                "request is sent with enable_thinking=False. Leave tool_choice out to keep thinking on.",
                stacklevel=2,
            )
        return {"enable_thinking": False}
    return {name: getattr(fields, name) for name in _THINKING if getattr(fields, name) is not None}


def _search(fields: RequestFields, further: JSON) -> JSON:
    search: JSON = {}
    if fields.web_search_linkup is not None:
        search["web_search_linkup"] = fields.web_search_linkup
    if fields.disable_formatting is not None:
        search["disable_formatting"] = fields.disable_formatting
    elif fields.web_search_linkup and _wants_json(further.get("response_format")):
        search["disable_formatting"] = True
    return search


def _wants_json(response_format: Any) -> bool:
    return isinstance(response_format, Mapping) and response_format.get("type") in ("json_object", "json_schema")


def _checked(messages: Sequence[JSON], model: str, known: ModelCard | None) -> Sequence[JSON]:
    """Replace content of tool results that the model does not accept.

    The tool has already run, and its result is sent again in every later turn. An error would end the conversation
    permanently, so a line of text replaces the content.

    Raises:
        UnsupportedContentError: if another message has content of a type that the model's card does not list.
    """
    if known is None or known.input_modalities is None:
        return messages
    accepted = known.input_modalities
    return [_accepted(message, number, model, accepted) for number, message in enumerate(messages)]


def _accepted(message: JSON, number: int, model: str, accepted: Sequence[str]) -> JSON:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    kinds = [_MODALITIES.get(part["type"]) for part in parts]
    rejected = sorted({kind for kind in kinds if kind is not None and kind not in accepted})
    if not rejected:
        return message
    only = f"{model} accepts {' and '.join(accepted)} only"
    if message["role"] != "tool":
        part = next(part["type"] for part, kind in zip(parts, kinds, strict=True) if kind in rejected)
        raise UnsupportedContentError(
            f"{only}, but message {number} ({message['role']}) contains {rejected[0]} content ({part!r}). Remove it, "
            "or choose another model."
        )
    warn_once(f"{only}. {' and '.join(rejected)} content of tool results was replaced by a line of text.")
    shown = [
        {"type": "text", "text": f"[{kind} content was left out: {only}.]"} if kind in rejected else part
        for part, kind in zip(parts, kinds, strict=True)
    ]
    return {**message, "content": join_parts(shown, "\n")}


def _schema_into_messages(messages: Sequence[JSON], further: JSON, model: str) -> Sequence[JSON]:
    """Move a JSON schema that the model would reject into a system message, and request a JSON object."""
    response_format = further.get("response_format")
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return messages
    given = response_format.get("json_schema")
    if not isinstance(given, Mapping) or not isinstance(given.get("schema"), Mapping):
        raise SettingsError(f"response_format has no schema under json_schema.schema: {excerpt(response_format)}.")
    if given.get("strict"):
        warn_once(f"strict was not sent: {model} does not support JSON schemas. The schema is in a system message.")
    further["response_format"] = {"type": "json_object"}
    try:
        text = json.dumps(given["schema"], ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"response_format cannot be sent as JSON: {error}.") from None
    said = {"role": "system", "content": f"Answer with one JSON object that conforms to this JSON schema: {text}"}
    leading = next((n for n, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return [*messages[:leading], said, *messages[leading:]]


def _with_reasoning(
    messages: Sequence[JSON],
    policy: SendBackReasoning,
    known: ModelCard | None,
    thinking_off: bool,
    *,
    has_tools: bool,
) -> list[JSON]:
    """Apply `send_back_reasoning` to the assistant turns. The given dictionaries are not changed."""
    in_loop = has_tools or any(message.get("tool_calls") or message["role"] == "tool" for message in messages)
    sent = policy == "always" or (policy == "tool_calls" and in_loop)
    fill_in = policy != "never" and not thinking_off and known is not None and known.needs_reasoning_back
    return [_reasoned(message, sent, fill_in) if message["role"] == "assistant" else message for message in messages]


def _reasoned(message: JSON, sent: bool, fill_in: bool) -> JSON:
    """Return an assistant turn with its reasoning, with empty reasoning, or without."""
    if message.get("reasoning_content") and sent:
        return message
    rest = {name: value for name, value in message.items() if name != "reasoning_content"}
    # Turns without calls never get empty reasoning: one report says it is rejected, and no recording requires it.
    return {**rest, "reasoning_content": ""} if fill_in and message.get("tool_calls") else rest


_ALWAYS_TAKEN = frozenset(
    {"model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream_options", "user"}
)
"""Fields that cards may omit, because they belong to the gateway and not to a model."""


def _limits(known: ModelCard | None) -> list[Parameter]:
    """Return the parameters of a card. The card's limit on output applies to the two that it does not list."""
    if known is None:
        return []
    listed = {parameter.name for parameter in known.parameters}
    implied = [
        Parameter(n, None, 1, known.max_output_tokens) for n in ("max_tokens", "thinking_budget") if n not in listed
    ]
    return [*known.parameters, *implied]


def _warn_of_doubtful(body: JSON, fields: RequestFields, known: ModelCard | None) -> None:
    """Warn, once per text, about settings that are sent but may not do what the user expects."""
    budget, limit = body.get("thinking_budget"), body.get("max_tokens")
    if budget is not None and limit is not None and limit < budget:
        warn_once(
            f"max_tokens={limit} is smaller than thinking_budget={budget}: reasoning may leave nothing for the answer."
        )
    if known is not None and known.parameters:
        listed = {parameter.name for parameter in known.parameters} | _ALWAYS_TAKEN
        for name in sorted(body.keys() - listed):
            warn_once(f"The card of {fields.model} does not list the parameter {name!r}. It is sent anyway.")


def _said(fields: RequestFields, *names: str) -> str:
    said = {name: getattr(fields, name) for name in names}
    return " and ".join(f"{name}={value!r}" for name, value in said.items() if value)
