"""Errors that inherit from both the core's class and LangChain's, so that code can catch either.

LangChain's retry, fallback and summarisation middleware check for its own classes and their `is_retryable`.

Docstrings say when an error is raised, and "Worth a retry" if a retry may help. The docstring of the core's class
says what to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from langchain_core import exceptions as langchain

from empiriolabs_core import errors as core

if TYPE_CHECKING:
    from langchain_core.exceptions import ModelRefusalError as _ModelRefusal
else:
    _ModelRefusal = getattr(langchain, "ModelRefusalError", langchain.OutputParserException)


class EmpirioLabsAuthenticationError(core.AuthenticationError, langchain.ModelAuthenticationError):
    """401: the API key is missing, malformed, inactive or unknown."""


class EmpirioLabsInsufficientCreditsError(core.InsufficientCreditsError, langchain.ModelPermissionDeniedError):
    """402: the account has no credits left."""


class EmpirioLabsPermissionDeniedError(core.PermissionDeniedError, langchain.ModelPermissionDeniedError):
    """403: the key does not have this permission."""


class EmpirioLabsInvalidRequestError(core.InvalidRequestError, langchain.ModelInvalidRequestError):
    """400: a parameter or message was rejected."""


class EmpirioLabsUnprocessableError(core.UnprocessableError, langchain.ModelInvalidRequestError):
    """422: a parameter or message was rejected."""


class EmpirioLabsContextOverflowError(core.ContextOverflowError, langchain.ContextOverflowError):
    """400: the messages are longer than the model's context window."""


class EmpirioLabsNotFoundError(core.NotFoundError, langchain.ModelNotFoundError):
    """404: the model or the path does not exist."""


class EmpirioLabsRequestTimeoutError(core.RequestTimeoutError, langchain.ModelTimeoutError):
    """408: the gateway stopped waiting for the model. Worth a retry."""


class EmpirioLabsConflictError(core.ConflictError, langchain.ModelAPIError):
    """409: the request conflicted with another request. Worth a retry."""


class EmpirioLabsRateLimitError(core.RateLimitError, langchain.ModelRateLimitError):
    """429: more requests or tokens per minute than the account's limit. Worth a retry."""


class EmpirioLabsServerError(core.ServerError, langchain.ModelAPIError):
    """5xx: the gateway or the model behind it failed. Worth a retry."""


class EmpirioLabsStatusError(core.StatusError, langchain.ModelInvalidRequestError):
    """Any other HTTP error status."""


class EmpirioLabsRedirectError(core.RedirectError, langchain.ModelInvalidRequestError):
    """3xx: the gateway redirected the request. Redirects are not followed."""


class EmpirioLabsTimeoutError(core.NoAnswerInTimeError, langchain.ModelTimeoutError):
    """The gateway did not answer in time. Worth a retry."""


class EmpirioLabsConnectionError(core.ConnectionDroppedError, langchain.ModelConnectionError):
    """The connection could not be established, or was lost. Worth a retry."""


class EmpirioLabsReplyError(core.InvalidReplyError, langchain.ModelAPIError):
    """The gateway returned 200, but the body is not a chat completion. Worth a retry."""


class EmpirioLabsIncompleteStreamError(core.IncompleteStreamError, langchain.ModelAPIError):
    """A stream ended before the model finished. Worth a retry."""


class EmpirioLabsReportedError(core.ReportedError, langchain.ModelAPIError):
    """The gateway returned 200, then reported an error in the body or in the stream. Worth a retry."""


class EmpirioLabsStructuredOutputError(core.StructuredOutputError, langchain.OutputParserException):
    """The model's answer does not match the requested schema. Worth a retry."""

    is_retryable = True
    """Whether a retry may help: always true."""

    def __init__(self, message: str, llm_output: str | None = None) -> None:
        langchain.OutputParserException.__init__(self, message, llm_output=llm_output)


class EmpirioLabsInterruptedAnswerError(core.InterruptedAnswerError, langchain.ModelAPIError):
    """The model stopped generating before its answer was complete. Worth a retry."""


class EmpirioLabsRefusalError(core.StructuredOutputError, _ModelRefusal):
    """Structured output was requested, but the model refused to answer or its answer was filtered.

    Rephrase the request; an unchanged retry is unlikely to help. `raw_message` is the model's message. The class is a
    `ModelRefusalError` with langchain-core 1.7.5 or later, an `OutputParserException` with earlier versions.
    """

    def __init__(self, message: str, raw_message: Any = None) -> None:
        Exception.__init__(self, message)
        self.raw_message = raw_message


_CLASSES: dict[type[BaseException], type[core.EmpirioLabsError]] = {
    core.AuthenticationError: EmpirioLabsAuthenticationError,
    core.InsufficientCreditsError: EmpirioLabsInsufficientCreditsError,
    core.PermissionDeniedError: EmpirioLabsPermissionDeniedError,
    core.InvalidRequestError: EmpirioLabsInvalidRequestError,
    core.UnprocessableError: EmpirioLabsUnprocessableError,
    core.ContextOverflowError: EmpirioLabsContextOverflowError,
    core.NotFoundError: EmpirioLabsNotFoundError,
    core.RequestTimeoutError: EmpirioLabsRequestTimeoutError,
    core.ConflictError: EmpirioLabsConflictError,
    core.RateLimitError: EmpirioLabsRateLimitError,
    core.ServerError: EmpirioLabsServerError,
    core.RedirectError: EmpirioLabsRedirectError,
    core.StatusError: EmpirioLabsStatusError,
    core.NoAnswerInTimeError: EmpirioLabsTimeoutError,
    core.ConnectionDroppedError: EmpirioLabsConnectionError,
    core.InvalidReplyError: EmpirioLabsReplyError,
    core.IncompleteStreamError: EmpirioLabsIncompleteStreamError,
    core.ReportedError: EmpirioLabsReportedError,
    core.InterruptedAnswerError: EmpirioLabsInterruptedAnswerError,
}
"""Maps the core's classes to LangChain's. A class that is missing here uses the entry of its nearest base."""


@contextlib.contextmanager
def langchain_errors() -> Iterator[None]:
    """Convert errors of the core, raised inside the block, to the classes of this module."""
    try:
        yield
    except core.EmpirioLabsError as error:
        ours = next((_CLASSES[kind] for kind in type(error).__mro__ if kind in _CLASSES), None)
        if ours is None or isinstance(error, langchain.LangChainException):
            raise
        raise _as(ours, error) from error


def _as(kind: type[core.EmpirioLabsError], error: Any) -> core.EmpirioLabsError:
    """Return the error as another class, with all its attributes: response, body, code, request id."""
    converted = kind.__new__(kind)
    converted.args = error.args
    vars(converted).update(vars(error))
    return converted
