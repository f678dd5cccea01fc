"""The typed request fields of both adapters, and the one place that builds a request body.

`RequestFields` are the fields that a constructor and a single call share; `Settings` adds the
connection and is what both adapters inherit. `Settings.request` applies the wire rules:

* Only what the user set is sent, `None` never. The gateway's own fields are plain top-level keys.
* Values out of range and contradictory thinking controls are refused before anything is sent.
* An assistant turn with tool calls carries the reasoning that it came with.
* A forced tool choice goes out with thinking off, where the model would refuse it otherwise.
* JSON output together with web search asks for no Sources footer, which would break the JSON.
* A JSON schema goes into a system message where the model takes JSON mode, but no schemas.
* Content that the model's card does not list, such as an image, is refused.
* A stream asks for usage.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from empiriolabs_core import catalog
from empiriolabs_core.catalog import BASE_VARIABLE, DEFAULT_API_BASE, ModelCard, Parameter, card
from empiriolabs_core.costs import ContextMeter
from empiriolabs_core.errors import MissingKeyError, SettingsError, UnsupportedContentError, excerpt
from empiriolabs_core.gateway import Connection, Gateway, Request
from empiriolabs_core.replies import JSON

DEFAULT_MODEL = "deepseek-v4-flash"
DEFAULT_TIMEOUT = 900.0
"""Seconds: the gateway's own limit for one request is 15 minutes."""
KEY_VARIABLE = "EMPIRIOLABS_API_KEY"

ReasoningEffort = Literal["none", "low", "medium", "high", "max"]
SendBackReasoning = Literal["tool_calls", "always", "never"]

_THINKING = ("enable_thinking", "thinking_budget", "reasoning_effort")
_OPTIONS = ("timeout", "max_retries", "extra_headers")
_OURS = ("messages", "stream")
_STAYS_HERE = ("api_key", "default_headers", "http_client", "http_async_client")
_HIDDEN = ("api_key", "default_headers", "extra_headers", "extra_body", "model_kwargs")

_MODALITIES = {"image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file"}
"""What a content part that is no text holds."""

_METER = ContextMeter()

_Self = TypeVar("_Self", bound="RequestFields")
_Bool = Annotated[bool, Field(strict=True)]
_Tokens = Annotated[int, Field(strict=True, ge=1)]


class RequestFields(BaseModel):
    """The fields that can be set on the model and on a single call."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model: str = Field(default=DEFAULT_MODEL, min_length=1, validation_alias=AliasChoices("model", "model_name"))
    """Model id, such as `"deepseek-v4-pro"` or `"deepseek-v4-flash:variant1"`. Any id is accepted."""

    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    """Sampling temperature, 0 to 2. Gateway's default: 0.7. DeepSeek V4 ignores it while it thinks. (Model pages)"""

    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    """Nucleus sampling probability mass, 0 to 1. Gateway's default: 0.9. (Model pages)"""

    max_tokens: _Tokens | None = Field(
        default=None, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    """Most tokens of an answer, 1 to the limit on the model's card (393,216 for V4). Gateway's default: 4096.
    (Model pages) Upstream, reasoning counts too. (DeepSeek; not documented for the gateway)"""

    stop: list[str] | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    """One string or up to 4 at which the answer ends. (Model pages)"""

    enable_thinking: _Bool | None = None
    """Whether the model reasons before it answers. Gateway's default for V4: true. (Model pages)"""

    thinking_budget: _Tokens | None = None
    """Most tokens of reasoning, 1 to the limit on the model's card. Gateway's default: 32768. (Model pages)"""

    reasoning_effort: ReasoningEffort | None = None
    """`"none"` turns thinking off; `"low"`, `"medium"`, `"high"`, `"max"` set a budget. Gateway's default:
    `"medium"`. (Model pages) What wins if a budget is sent too is not documented."""

    web_search_linkup: _Bool | None = None
    """Whether Linkup searches the web for the latest user message. Billed per request. Gateway's default:
    false. (Model pages)"""

    disable_formatting: _Bool | None = None
    """Whether the gateway leaves out the Sources footer of a web search. Gateway's default: false. (Model
    pages) Sent as true with JSON output and web search together, unless set."""

    send_back_reasoning: SendBackReasoning = "tool_calls"
    """Which earlier assistant turns carry their `reasoning_content` in the next request: those with
    `"tool_calls"`, which DeepSeek V4 insists on, `"always"` all, or `"never"` any."""

    stream_usage: _Bool = True
    """Whether a stream asks for token usage."""

    extra_body: dict[str, Any] | None = None
    """Further top-level keys of the JSON body, which this package does not know. The model's and the call's
    are merged; the call's win."""

    model_kwargs: dict[str, Any] | None = Field(
        default=None, validation_alias=AliasChoices("model_kwargs", "additional_kwargs")
    )
    """Further standard Chat Completions fields for every request, such as `{"seed": 7}`."""

    @model_validator(mode="before")
    @classmethod
    def _sort_arguments(cls, data: Any) -> Any:
        return sort_arguments(data, cls) if isinstance(data, dict) else data

    @field_validator("stop", mode="before")
    @classmethod
    def _list_of_stops(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: list[str] | None) -> list[str] | None:
        if value and len(value) > 4:
            raise ValueError(f"stop has {len(value)} entries. The gateway takes at most 4.")
        if value and not all(value):
            raise ValueError("stop has an empty string. Leave it out.")
        return value

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
    def _within_card(self: _Self) -> _Self:
        for parameter in _limits(card(self.model)):
            value = getattr(self, parameter.name, None)
            if value is None:
                continue
            low, high = parameter.minimum, parameter.maximum
            if isinstance(value, int | float) and not (low is None or value >= low):
                raise ValueError(
                    f"{parameter.name}={value} is less than {self.model} can do: it takes {low:g} or more."
                )
            if isinstance(value, int | float) and not (high is None or value <= high):
                raise ValueError(
                    f"{parameter.name}={value} is more than {self.model} can do: its limit is {high:.10g}."
                )
            if parameter.options and value not in parameter.options:
                taken = ", ".join(parameter.options)
                raise ValueError(f"{parameter.name}={value!r} is not among what {self.model} takes: {taken}.")
        return self

    @property
    def thinking_off(self) -> bool:
        """Whether the user turned thinking off."""
        return self.enable_thinking is False or self.reasoning_effort == "none"

    @property
    def thinking_asked_for(self) -> bool:
        """Whether the user turned thinking on, or set how much of it there should be."""
        return not self.thinking_off and any(getattr(self, name) is not None for name in _THINKING)


class Settings(RequestFields):
    """What both adapters inherit: the request fields, the connection, and `request`.

    Raises:
        SettingsError: an argument is misspelt, out of range or contradicts another.
    """

    api_key: SecretStr | None = Field(
        default=None,
        validate_default=True,
        validation_alias=AliasChoices("api_key", "empiriolabs_api_key"),
        exclude=True,
        repr=False,
    )
    """API key. Default: the environment variable `EMPIRIOLABS_API_KEY`. Never in a repr, dump or pickle."""

    base_url: str = Field(
        default="",
        validate_default=True,
        validation_alias=AliasChoices("base_url", "empiriolabs_api_base", "api_base"),
    )
    """URL of the API. Default: the environment variable `EMPIRIOLABS_API_BASE`, or the public gateway."""

    timeout: Any = Field(default=DEFAULT_TIMEOUT, validation_alias=AliasChoices("timeout", "request_timeout"))
    """Seconds without a byte after which a request fails, or an `openai.Timeout`. Default: 900."""

    max_retries: Annotated[int, Field(strict=True, ge=0)] = 2
    """How often the OpenAI client repeats a request after 408, 409, 429, 5xx or a lost connection."""

    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    """Further HTTP headers of every request. They may hold credentials, so they are in no repr, dump or pickle."""

    http_client: Any = Field(default=None, exclude=True, repr=False)
    """HTTP client for synchronous calls, such as `openai.DefaultHttpxClient(proxy=...)`."""

    http_async_client: Any = Field(
        default=None,
        validation_alias=AliasChoices("http_async_client", "async_http_client"),
        exclude=True,
        repr=False,
    )
    """HTTP client for asynchronous calls, such as `openai.DefaultAsyncHttpxClient(...)`. Use it in one event loop."""

    _gateway: Gateway | None = PrivateAttr(default=None)

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            # pydantic's error would print, and hand on in errors(), all that was passed: the key too.
            raise SettingsError(_sentences(error, type(self))) from None

    def model_post_init(self, context: Any, /) -> None:
        """Go on to the framework's own. Without this, pydantic's, which is made for `_gateway`, would be the last."""
        super().model_post_init(context)

    @field_validator("api_key", mode="before")
    @classmethod
    def _key_from_environment(cls, value: Any) -> Any:
        return os.environ.get(KEY_VARIABLE) or None if value is None else value

    @field_validator("api_key")
    @classmethod
    def _printable_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = "-" if value is None else value.get_secret_value()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"The API key is empty, or has a character that no key has, such as a space or a line break, among "
                f"its {len(key)}. Check api_key or {KEY_VARIABLE}."
            )
        return value

    @field_validator("base_url", mode="before")
    @classmethod
    def _url_from_environment(cls, value: Any) -> Any:
        return value or os.environ.get(BASE_VARIABLE) or DEFAULT_API_BASE

    @field_validator("base_url")
    @classmethod
    def _absolute_url(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+\S*$", value):
            raise ValueError(f"base_url={value!r} is no URL. Write it in full, such as {DEFAULT_API_BASE}.")
        return value.rstrip("/")

    @field_validator("timeout", mode="before")
    @classmethod
    def _finite_timeout(cls, value: Any) -> Any:
        return check_timeout(value)

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the key, and what cannot travel."""
        state = super().__getstate__()
        values = {name: None if name in _STAYS_HERE else value for name, value in state["__dict__"].items()}
        private = {**(state.get("__pydantic_private__") or {}), "_gateway": None}
        return {**state, "__dict__": values, "__pydantic_private__": private}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Take the key from the environment."""
        super().__setstate__(state)
        if self.api_key is None and os.environ.get(KEY_VARIABLE):
            self.api_key = SecretStr(os.environ[KEY_VARIABLE])

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy all but the HTTP clients, which cannot be copied: the copy uses the same ones."""
        memo = {} if memo is None else memo
        memo.update({id(client): client for client in (self.http_client, self.http_async_client) if client is not None})
        return super().__deepcopy__(memo)

    @property
    def gateway(self) -> Gateway:
        """The transport for the present settings. Made anew when they change.

        Raises:
            MissingKeyError: there is no API key.
        """
        connection = self._connection()
        if self._gateway is None or self._gateway.connection != connection:
            self._gateway = Gateway(connection, _METER)
        return self._gateway

    def _connection(self) -> Connection:
        if self.api_key is None:
            raise MissingKeyError(f"There is no API key. Set the environment variable {KEY_VARIABLE} or pass api_key.")
        return Connection(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            timeout=self.timeout,
            max_retries=self.max_retries,
            headers=tuple((self.default_headers or {}).items()),
            http_client=self.http_client,
            http_async_client=self.http_async_client,
        )

    @property
    def card(self) -> ModelCard | None:
        """The model's card, if it has one."""
        return card(self.model)

    @classmethod
    def list_models(cls, base_url: str | None = None) -> list[ModelCard]:
        """Read the gateway's catalogue, which needs no key; see `empiriolabs_core.catalog.fetch`."""
        return catalog.fetch(base_url)

    @classmethod
    async def alist_models(cls, base_url: str | None = None) -> list[ModelCard]:
        """Read the gateway's catalogue, which needs no key; see `empiriolabs_core.catalog.fetch`."""
        return await catalog.afetch(base_url)

    def fields(self, call: Mapping[str, Any]) -> RequestFields:
        """Return the request fields with a call's values over the model's, checked like a constructor's.

        A call that names one thinking control replaces all the model's thinking controls.

        Raises:
            SettingsError: a value is out of range, or contradicts another.
        """
        named = {name: value for name, value in call.items() if value is not None}
        dropped = _THINKING if any(name in named for name in _THINKING) else ()
        values = {name: getattr(self, name) for name in RequestFields.model_fields if name not in dropped}
        for name in ("extra_body", "model_kwargs"):
            if name in named and values[name]:
                named[name] = merge(values[name], named[name])
        try:
            return RequestFields.model_validate(values | named)
        except ValidationError as error:
            raise SettingsError(_sentences(error, type(self))) from None

    def request(self, messages: Sequence[JSON], call: Mapping[str, Any], *, stream: bool) -> Request:
        """Build the request for a conversation.

        Args:
            messages: wire messages; an assistant's holds its `reasoning_content` if there was any.
            call: what this call sets: typed fields, standard Chat Completions fields, and `timeout`,
                `max_retries`, `extra_headers`. `None` means not set.
            stream: whether the answer is to be streamed.

        Raises:
            SettingsError: anything in `call` is unknown, out of range or contradictory, or there are no messages.
        """
        if not messages:
            raise SettingsError("There are no messages to send. Pass at least one.")
        options = request_options(call)
        fields = self.fields(sort_arguments({k: v for k, v in call.items() if k not in _OPTIONS}, type(self)))
        known = card(fields.model)
        further = _further_fields(fields)
        messages = _checked(messages, fields.model, known)
        if known is not None and known.json_object_only:
            messages = _schema_into_messages(messages, further)
        thinking = _thinking_controls(fields, known, further.get("tool_choice"))
        off = fields.thinking_off or thinking.get("enable_thinking") is False
        body: JSON = {
            "model": fields.model,
            "messages": _with_reasoning(messages, fields.send_back_reasoning, known, off),
            **_sampling(fields),
            **thinking,
            **_search(fields, further),
            **further,
        }
        _warn_of_doubtful(body, fields, known)
        if stream:
            body["stream"] = True
            if fields.stream_usage:
                body["stream_options"] = {"include_usage": True, **(further.get("stream_options") or {})}
        return Request({**body, **(fields.extra_body or {})}, options)


@functools.cache
def _standard_fields() -> frozenset[str]:
    """Names of the standard Chat Completions fields. The OpenAI client's own parameter types list them."""
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Parameters

    return frozenset(Parameters.__required_keys__ | Parameters.__optional_keys__)


@functools.cache
def _field_names(owner: type[BaseModel]) -> dict[str, str]:
    """Every accepted spelling of a model's fields, with the name of the field."""
    names: dict[str, str] = {}
    for name, field in owner.model_fields.items():
        names[name] = name
        if field.alias:
            names[field.alias] = name
        if isinstance(field.validation_alias, AliasChoices):
            names.update({str(choice): name for choice in field.validation_alias.choices})
    return names


def sort_arguments(data: Mapping[str, Any], owner: type[BaseModel]) -> dict[str, Any]:
    """Put each argument where it belongs: typed fields by name, standard fields in `model_kwargs`.

    Names that this package knows are taken out of `extra_body` and `model_kwargs` too, so that the rules
    see them wherever they were given. A field given by name wins.

    Raises:
        SettingsError: a name is unknown, or given under two spellings.
    """
    names = _field_names(owner)
    given = _by_field_name(data, names, owner)
    extra, more = given.pop("extra_body", None), given.pop("model_kwargs", None)
    for source in (extra, more):
        if source is not None and not isinstance(source, Mapping):
            raise SettingsError(f"extra_body and model_kwargs take a dict, not {type(source).__name__}.")
    typed = _field_names(RequestFields)
    standard: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in [*(extra or {}).items(), *(more or {}).items()]:
        if name in _OURS:
            raise SettingsError(f"{name!r} is set by the adapter and cannot be given in extra_body or model_kwargs.")
        if name in typed:
            given.setdefault(typed[name], value)
        elif name in _standard_fields():
            standard[name] = value
        elif name in (extra or {}):
            unknown[name] = value
        else:
            raise SettingsError(_unknown_argument(name, owner))
    for name in [name for name in given if name not in names]:
        standard[name] = given.pop(name)
    if standard:
        given["model_kwargs"] = standard
    if unknown:
        given["extra_body"] = unknown
    return given


def _by_field_name(data: Mapping[str, Any], names: dict[str, str], owner: type[BaseModel]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for spelling, value in data.items():
        name = names.get(spelling, spelling)
        if name not in names and (name in _OURS or name not in _standard_fields()):
            raise SettingsError(_unknown_argument(name, owner))
        if given.get(name) is not None and value is not None:
            raise SettingsError(f"{name!r} was given twice, once as {spelling!r}. Give it once.")
        if value is not None or name not in given:
            given[name] = value
    return given


def request_options(call: Mapping[str, Any]) -> JSON:
    """Return the OpenAI client's options for one request that a call names."""
    options: JSON = {}
    if call.get("timeout") is not None:
        options["timeout"] = check_timeout(call["timeout"])
    if call.get("max_retries") is not None:
        options["max_retries"] = call["max_retries"]
    if call.get("extra_headers"):
        options["headers"] = call["extra_headers"]
    return options


def check_timeout(value: Any) -> Any:
    """Return a usable timeout; `None` is the default, since waiting for ever is never wanted."""
    if value is None:
        return DEFAULT_TIMEOUT
    if hasattr(value, "connect") and hasattr(value, "read"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise SettingsError(f"timeout={value!r} is no positive number of seconds, nor an openai.Timeout.")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top, dictionaries within them merged likewise."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _further_fields(fields: RequestFields) -> JSON:
    """Return the standard fields to send. An empty list of tools sends nothing, nor does the default choice."""
    further = {name: value for name, value in (fields.model_kwargs or {}).items() if value is not None}
    if not further.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            further.pop(name, None)
    if further.get("tool_choice") == "auto":
        del further["tool_choice"]
    return further


def _sampling(fields: RequestFields) -> JSON:
    named = {name: getattr(fields, name) for name in ("temperature", "top_p", "max_tokens", "stop")}
    return {name: value for name, value in named.items() if value is not None and value != []}


def _thinking_controls(fields: RequestFields, known: ModelCard | None, tool_choice: Any) -> JSON:
    """Return the thinking controls to send. Thinking is turned off for a tool choice that it forbids."""
    asked = fields.thinking_asked_for
    forced = tool_choice not in (None, "auto", "none")
    refused = not fields.thinking_off and (asked or (known is not None and known.refuses_forced_tools))
    if forced and refused:
        if asked:
            warnings.warn(
                f"{fields.model} cannot think while a tool is forced (tool_choice={excerpt(tool_choice)}): this "
                "request goes out with enable_thinking=False. Leave tool_choice out to keep thinking on.",
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
    """Return the messages if the model can take what is in them.

    Raises:
        UnsupportedContentError: a part is of a kind that the model's card does not list.
    """
    if known is None:
        return messages
    for number, message in enumerate(messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            modality = _MODALITIES.get(part["type"])
            if modality is not None and modality not in known.input_modalities:
                raise UnsupportedContentError(
                    f"{model} takes {' and '.join(known.input_modalities)} only, but message {number} "
                    f"({message['role']}) holds {modality} content, a {part['type']!r} part. Leave it out, or choose "
                    "another model."
                )
    return messages


def _schema_into_messages(messages: Sequence[JSON], further: JSON) -> Sequence[JSON]:
    """Put a JSON schema that the model would refuse into a system message, and ask for a JSON object."""
    response_format = further.get("response_format")
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return messages
    schema = (response_format.get("json_schema") or {}).get("schema") or {}
    further["response_format"] = {"type": "json_object"}
    text = json.dumps(schema, ensure_ascii=False)
    said = {"role": "system", "content": f"Answer with one JSON object that conforms to this JSON schema: {text}"}
    leading = next((n for n, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return [*messages[:leading], said, *messages[leading:]]


def _with_reasoning(
    messages: Sequence[JSON], policy: SendBackReasoning, known: ModelCard | None, thinking_off: bool
) -> list[JSON]:
    """Apply `send_back_reasoning` to the assistant turns. The given dictionaries are left as they are."""
    fill_in = policy != "never" and not thinking_off and known is not None and known.needs_reasoning_back
    out = []
    for message in messages:
        if message["role"] == "assistant":
            called, reasoned = bool(message.get("tool_calls")), "reasoning_content" in message
            if reasoned and (policy == "never" or (policy == "tool_calls" and not called)):
                message = {name: value for name, value in message.items() if name != "reasoning_content"}
            elif called and not reasoned and fill_in:
                message = {**message, "reasoning_content": ""}
        out.append(message)
    return out


_ALWAYS_TAKEN = frozenset(
    {"model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stream_options", "user"}
)
"""Fields that cards need not list: they are the gateway's, not the model's."""


def _limits(known: ModelCard | None) -> list[Parameter]:
    """Return the parameters of a card; the limit on output stands for the two that it does not list."""
    if known is None:
        return []
    listed = {parameter.name for parameter in known.parameters}
    implied = [
        Parameter(n, None, 1, known.max_output_tokens) for n in ("max_tokens", "thinking_budget") if n not in listed
    ]
    return [*known.parameters, *implied]


def _warn_of_doubtful(body: JSON, fields: RequestFields, known: ModelCard | None) -> None:
    """Warn, once each, of what is sent although it may not do what the user expects."""
    budget, limit = body.get("thinking_budget"), body.get("max_tokens")
    if budget is not None and limit is not None and limit < budget:
        _warn_once(
            f"max_tokens={limit} is smaller than thinking_budget={budget}: reasoning may leave nothing for the answer."
        )
    if known is not None and known.parameters:
        listed = {parameter.name for parameter in known.parameters} | _ALWAYS_TAKEN
        for name in sorted(body.keys() - listed):
            _warn_once(f"The card of {fields.model} does not list the parameter {name!r}. It is sent all the same.")


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _said(fields: RequestFields, *names: str) -> str:
    said = {name: getattr(fields, name) for name in names}
    return " and ".join(f"{name}={value!r}" for name, value in said.items() if value)


def _unknown_argument(name: str, owner: type[BaseModel]) -> str:
    close = difflib.get_close_matches(name, [*_field_names(owner), *_standard_fields()], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{owner.__name__} knows no argument {name!r}.{hint} A body field that it does not know goes in extra_body."


def _sentences(error: ValidationError, owner: type[BaseModel]) -> str:
    """Say what is wrong with the arguments, a sentence each, without the values that may be secret."""
    return " ".join(_sentence(dict(detail), owner) for detail in error.errors())


def _sentence(detail: dict[str, Any], owner: type[BaseModel]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return _unknown_argument(name, owner)
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    shown = type(detail["input"]).__name__ if name in _HIDDEN else excerpt(repr(detail["input"]))
    return f"{name}={shown} is refused: {detail['msg'][0].lower()}{detail['msg'][1:]}."
