"""Errors that are both the OpenAI client's class and LangChain's, so that either way of catching them works.

LangChain's retry, fallback and summarisation middleware act on its own classes and their `is_retryable`.

Docstrings say when an error is raised, and "Worth a retry" where one may help; then, what to do, unless the class of
the core says it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import openai
from langchain_core import exceptions as langchain

from empiriolabs_core import errors as core

_Error = TypeVar("_Error", bound=openai.OpenAIError)


class EmpirioLabsAuthenticationError(openai.AuthenticationError, langchain.ModelAuthenticationError, core.Portable):
    """401: the API key is missing, malformed, inactive or unknown.

    Check the key, and whether the account still has it.
    """


class EmpirioLabsInsufficientCreditsError(core.InsufficientCreditsError, langchain.ModelPermissionDeniedError):
    """402: the account has no credits left."""


class EmpirioLabsPermissionDeniedError(
    openai.PermissionDeniedError, langchain.ModelPermissionDeniedError, core.Portable
):
    """403: the key may not do this.

    Use a key that may.
    """


class EmpirioLabsInvalidRequestError(openai.BadRequestError, langchain.ModelInvalidRequestError, core.Portable):
    """400: a parameter or message was refused.

    The message says which; see the fields that the model's card lists.
    """


class EmpirioLabsUnprocessableError(openai.UnprocessableEntityError, langchain.ModelInvalidRequestError, core.Portable):
    """422: a parameter or message was refused.

    The message says which; see the fields that the model's card lists.
    """


class EmpirioLabsContextOverflowError(core.ContextOverflowError, langchain.ContextOverflowError):
    """400: the messages are longer than the model's context window."""


class EmpirioLabsNotFoundError(openai.NotFoundError, langchain.ModelNotFoundError, core.Portable):
    """404: there is no such model, or no such path.

    Check `base_url`, which ends with `/v1`, and the model: `python -m empiriolabs_core.catalog --live` lists what there
    is.
    """


class EmpirioLabsRequestTimeoutError(core.RequestTimeoutError, langchain.ModelTimeoutError):
    """408: the gateway gave up waiting. Worth a retry."""


class EmpirioLabsConflictError(openai.ConflictError, langchain.ModelAPIError, core.Portable):
    """409: the request collided with another. Worth a retry.

    Wait, then ask again.
    """


class EmpirioLabsRateLimitError(openai.RateLimitError, langchain.ModelRateLimitError, core.Portable):
    """429: more requests or tokens per minute than the account may have. Worth a retry.

    Wait as long as `Retry-After` says, or send less at a time. The client does so `max_retries` times.
    """


class EmpirioLabsServerError(openai.InternalServerError, langchain.ModelAPIError, core.Portable):
    """5xx: the gateway or the model behind it failed. Worth a retry.

    Wait, then ask again. The client does so `max_retries` times.
    """


class EmpirioLabsStatusError(openai.APIStatusError, langchain.ModelInvalidRequestError, core.Portable):
    """Any other status.

    Look at `status_code` and `body`.
    """


class EmpirioLabsTimeoutError(core.NoAnswerInTimeError, langchain.ModelTimeoutError):
    """The gateway did not answer in time. Worth a retry."""


class EmpirioLabsConnectionError(core.ConnectionDroppedError, langchain.ModelConnectionError):
    """The connection could not be made, or broke. Worth a retry."""


class EmpirioLabsReplyError(core.InvalidReplyError, langchain.ModelAPIError):
    """The gateway answered 200, but not with a chat completion. Worth a retry."""


class EmpirioLabsIncompleteStreamError(core.IncompleteStreamError, langchain.ModelAPIError):
    """A stream ended before the model had finished. Worth a retry."""


class EmpirioLabsReportedError(core.ReportedError, langchain.ModelAPIError):
    """The gateway answered 200, then reported an error in the body or in mid-stream. Worth a retry."""


# The more exact class comes first: an error becomes the first one whose OpenAI or core class it is.
_CLASSES: tuple[tuple[type[openai.OpenAIError], type[openai.OpenAIError]], ...] = (
    (core.InsufficientCreditsError, EmpirioLabsInsufficientCreditsError),
    (core.ContextOverflowError, EmpirioLabsContextOverflowError),
    (core.RequestTimeoutError, EmpirioLabsRequestTimeoutError),
    (openai.AuthenticationError, EmpirioLabsAuthenticationError),
    (openai.PermissionDeniedError, EmpirioLabsPermissionDeniedError),
    (openai.BadRequestError, EmpirioLabsInvalidRequestError),
    (openai.UnprocessableEntityError, EmpirioLabsUnprocessableError),
    (openai.NotFoundError, EmpirioLabsNotFoundError),
    (openai.ConflictError, EmpirioLabsConflictError),
    (openai.RateLimitError, EmpirioLabsRateLimitError),
    (openai.InternalServerError, EmpirioLabsServerError),
    (openai.APIStatusError, EmpirioLabsStatusError),
    (openai.APITimeoutError, EmpirioLabsTimeoutError),
    (openai.APIConnectionError, EmpirioLabsConnectionError),
    (core.IncompleteStreamError, EmpirioLabsIncompleteStreamError),
    (core.InvalidReplyError, EmpirioLabsReplyError),
    (core.ReportedError, EmpirioLabsReportedError),
)


@contextlib.contextmanager
def langchain_errors() -> Iterator[None]:
    """Raise the OpenAI client's and the core's errors as the classes of this module."""
    try:
        yield
    except openai.OpenAIError as error:
        for theirs, ours in _CLASSES:
            if isinstance(error, theirs):
                raise _as(ours, error) from error
        raise


def _as(kind: type[_Error], error: Any) -> _Error:
    """Return the error as another class, with everything that it holds: response, body, code, request id."""
    converted = kind.__new__(kind)
    converted.args = error.args
    vars(converted).update(vars(error))
    return converted
