"""Typed errors.

`EmpirioLabsError` is the base of every error that this package raises. Errors of the gateway and of the connection
are subclasses of the OpenAI client's classes too (`openai.AuthenticationError`, `openai.RateLimitError`, ...), so code
written for that client keeps working.

Docstrings say when an error is raised, "Worth a retry" if a retry may help, and what to do.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import openai

JSON = dict[str, Any]
"""A JSON object."""

KEY_VARIABLE = "EMPIRIOLABS_API_KEY"
"""The environment variable for the API key."""
BASE_VARIABLE = "EMPIRIOLABS_API_BASE"
"""The environment variable that overrides the URL of the API."""
DEFAULT_API_BASE = "https://api.empiriolabs.ai/v1"
"""URL of the public gateway."""


class EmpirioLabsError(Exception):
    """Base of every error that this package raises.

    All these errors can be pickled and copied, as process pools do. Copies keep message, status, code, body and request
    id. They do not contain the HTTP request and response, which may contain the key.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep everything but the HTTP request and response."""
        state = {name: value for name, value in vars(self).items() if name not in ("request", "response")}
        return _rebuilt, (type(self), self.args, state)


def _rebuilt(kind: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = arguments
    vars(error).update(state)
    return error


class SettingsError(EmpirioLabsError, ValueError):
    """An argument is wrong. Nothing was sent.

    The message names the argument, its value and the accepted values.
    """


class UsageError(SettingsError, TypeError):
    """The package was used in an unsupported way. Nothing was sent.

    The message shows the supported way.
    """


class MissingKeyError(SettingsError):
    """No API key was given. Nothing was sent.

    Set `EMPIRIOLABS_API_KEY`, or pass `api_key`. Create a key at platform.empiriolabs.ai/dashboard/api-keys.
    """


class UnsupportedContentError(SettingsError):
    """A message contains content that cannot be sent. Nothing was sent.

    Remove the content, or choose a model whose card lists this type of content.
    """


class BudgetExceededError(EmpirioLabsError):
    """The budget of a `track_cost` block is spent. Nothing was sent.

    Raise `budget_usd`, or stop.
    """


class InvalidReplyError(EmpirioLabsError, openai.OpenAIError):
    """The gateway returned 200, but the body is not a chat completion. Worth a retry.

    Check that `base_url` ends with the API's path, such as `/v1`.
    """


class IncompleteStreamError(InvalidReplyError):
    """A stream ended before the model finished. Chunks that were received stay valid. Worth a retry.

    Retry to get a complete answer. A stream is never replayed.
    """


class ConnectionDroppedError(EmpirioLabsError, openai.APIConnectionError):
    """The connection could not be established, or was lost. Worth a retry.

    Check `base_url` and the network; raise `max_retries`.
    """


class NoAnswerInTimeError(EmpirioLabsError, openai.APITimeoutError):
    """The gateway sent nothing for `timeout` seconds. Worth a retry.

    Raise `timeout`, stream, or reduce thinking.
    """

    def __init__(self, message: str, request: Any) -> None:
        openai.APIConnectionError.__init__(self, message=message, request=request)


class ReportedError(EmpirioLabsError, openai.OpenAIError):
    """The gateway returned 200, then reported an error in the body or in the stream. Worth a retry.

    `code` and `body` contain the reported error.

    Attributes:
        code: the error's code, such as `"upstream_error"`, or its type if it has no code.
        body: the error object as received.
    """

    def __init__(self, message: str, body: object = None) -> None:
        super().__init__(message)
        self.body = body
        # On the endpoint "messages", an error has only a type.
        code = (body.get("code") or body.get("type")) if isinstance(body, Mapping) else None
        self.code: str | None = str(code) if code else None


class InterruptedAnswerError(ReportedError):
    """The model stopped generating before its answer was complete. Worth a retry.

    Retry. Chunks that were received stay valid. `code` is the `finish_reason`, such as
    `"insufficient_system_resource"`, or the code of the error that the gateway reported.
    """

    def __init__(self, message: str, body: object = None, reason: str | None = None) -> None:
        super().__init__(message, body)
        self.code = self.code or reason


class NoToolCallError(EmpirioLabsError, ValueError):
    """A tool call was required, but the model answered without one. Worth a retry.

    Retry, or accept answers without a call.
    """


class ToolRunError(EmpirioLabsError, ValueError):
    """A tool failed, or a call could not be run, in LlamaIndex's `predict_and_call` with `error_on_tool_error`.

    The message contains the tools' outputs. Fix the tool, or leave `error_on_tool_error` out.
    """


class StructuredOutputError(EmpirioLabsError, ValueError):
    """The model's answer does not match the requested schema. Worth a retry.

    Retry, simplify the schema, or raise `max_tokens` if the answer was truncated.
    """


class StatusError(EmpirioLabsError, openai.APIStatusError):
    """Any other HTTP error status.

    Check `status_code` and `body`.
    """


class RedirectError(StatusError):
    """3xx: the gateway redirected the request. Redirects are not followed.

    Set `base_url` to the URL in the message, if it belongs to the gateway.
    """


class InvalidRequestError(EmpirioLabsError, openai.BadRequestError):
    """400: a parameter or message was rejected.

    The message names it. The model's card lists the supported parameters.
    """


class ContextOverflowError(EmpirioLabsError, openai.BadRequestError):
    """400: the messages are longer than the model's context window.

    Shorten the conversation, or choose a model with a larger window.
    """


class AuthenticationError(EmpirioLabsError, openai.AuthenticationError):
    """401: the API key is missing, malformed, inactive or unknown.

    Check the key, and whether it still exists at platform.empiriolabs.ai/dashboard/api-keys.
    """


class InsufficientCreditsError(EmpirioLabsError, openai.APIStatusError):
    """402: the account has no credits left.

    Add credits to the account. A retry does not help before.
    """


class PermissionDeniedError(EmpirioLabsError, openai.PermissionDeniedError):
    """403: the key does not have this permission.

    Use a key with that permission.
    """


class NotFoundError(EmpirioLabsError, openai.NotFoundError):
    """404: the model or the path does not exist.

    Check that `base_url` ends with `/v1`, and check the model: `python -m empiriolabs_core.catalog --live` lists them.
    """


class RequestTimeoutError(EmpirioLabsError, openai.APIStatusError):
    """408: the gateway stopped waiting for the model. Worth a retry.

    Stream, or reduce thinking. The client retries `max_retries` times.
    """


class ConflictError(EmpirioLabsError, openai.ConflictError):
    """409: the request conflicted with another request. Worth a retry.

    Wait, then retry.
    """


class UnprocessableError(EmpirioLabsError, openai.UnprocessableEntityError):
    """422: a parameter or message was rejected.

    The message names it. The model's card lists the supported parameters.
    """


class RateLimitError(EmpirioLabsError, openai.RateLimitError):
    """429: more requests or tokens per minute than the account's limit. Worth a retry.

    Wait as long as `Retry-After` says, or send fewer requests at a time. The client waits and retries `max_retries`
    times.
    """


class ServerError(EmpirioLabsError, openai.InternalServerError):
    """5xx: the gateway or the model behind it failed. Worth a retry.

    Wait, then retry. The client retries `max_retries` times.
    """


_BY_STATUS: dict[int, type[EmpirioLabsError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: RequestTimeoutError,
    409: ConflictError,
    422: UnprocessableError,
    429: RateLimitError,
}


# All these wordings were observed: at DeepSeek and vLLM, OpenAI, DashScope, llama.cpp, Perplexity, Ollama, Anthropic
# and others. The gateway's own wording is undocumented, and it may pass on any of these.
_OVERFLOW_WORDINGS = (
    "maximum context length",
    "context_length_exceeded",
    "range of input length",
    "exceed_context_size",
    "exceeds the available context size",
    "too_many_prompt_tokens",
    "total length of all messages is too long",
    "prompt too long",
    "prompt is too long",
    "exceeded max context length",
    "exceeds the context window",
    "input tokens exceed",
)


def refine(error: openai.APIStatusError) -> openai.APIStatusError:
    """Convert an error to this module's class for its status, with the gateway's text as the message."""
    kind: Any = _BY_STATUS.get(error.status_code, ServerError if error.status_code >= 500 else StatusError)
    if kind is InvalidRequestError and _tells_of_overflow(error):
        kind = ContextOverflowError
    refined: openai.APIStatusError = kind(_message(error), response=error.response, body=error.body)
    return refined


def _message(error: openai.APIStatusError) -> str:
    """Return the error's message. It includes bodies in formats that version 3 of the OpenAI client leaves out."""
    message = excerpt(error.message, 2000)
    told = error.body.get("message") if isinstance(error.body, Mapping) else None
    text = excerpt(_text(error))
    return message if isinstance(told, str) or not text or text in message else f"{message} - {text}"


def _text(error: openai.APIStatusError) -> str:
    try:
        return error.response.text.strip()
    except RuntimeError:
        # The response was closed before it was read.
        return ""


def names_an_error(error: openai.APIStatusError) -> bool:
    """Return whether a body has an `error`: true for the gateway's own errors, false for a 404 from a wrong path."""
    try:
        body = json.loads(_text(error))
    except ValueError:
        return False
    return isinstance(body, Mapping) and bool(body.get("error"))


def _tells_of_overflow(error: openai.APIStatusError) -> bool:
    text = f"{error.message} {error.code} {error.type} {_text(error)}".lower()
    return any(wording in text for wording in _OVERFLOW_WORDINGS)


def excerpt(value: Any, limit: int = 200) -> str:
    """Return the start of a value's text, for use in an error message."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def described(error: Any) -> str:
    """Return the message of an error object, or the object itself if it has no message."""
    message = error.get("message") if isinstance(error, Mapping) else None
    return excerpt(message if isinstance(message, str) and message else error)


_MOST_WARNINGS = 500


@functools.lru_cache(_MOST_WARNINGS)
def warn_once(text: str) -> None:
    """Issue a warning once per process and text.

    The number of texts is limited: they may contain values of users, and Python's own registry never forgets a text.
    """
    shown = warn_once.cache_info().misses
    if shown < _MOST_WARNINGS:
        warnings.warn(excerpt(text, 1000), stacklevel=2)
    elif shown == _MOST_WARNINGS:
        warnings.warn(f"{excerpt(text, 1000)} Further warnings that appear once are not shown.", stacklevel=2)


_Read = TypeVar("_Read", bound=Callable[..., Any])


def readable(read: _Read) -> _Read:
    """Decorate a function that reads a reply: if the reply has an unexpected shape, `InvalidReplyError` is raised."""

    @functools.wraps(read)
    def wrapper(*arguments: Any) -> Any:
        try:
            return read(*arguments)
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            if isinstance(error, EmpirioLabsError):
                raise
            told = next((excerpt(argument) for argument in arguments if isinstance(argument, dict)), "")
            raise InvalidReplyError(f"The gateway's reply cannot be read: {error}. It is: {told}") from error

    return cast(_Read, wrapper)
