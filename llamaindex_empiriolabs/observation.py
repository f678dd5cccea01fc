"""Emit LlamaIndex's events only if something listens to them.

LlamaIndex builds an event for every delta of a stream, and validates the whole conversation again for every event.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import callbacks
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler
from llama_index_instrumentation.span_handlers import NullSpanHandler

from empiriolabs_core.arguments import hide_headers

_Method = TypeVar("_Method", bound=Callable[..., Any])
_COPIED = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")


def observed(decorator: Callable[..., Any]) -> Callable[[_Method], _Method]:
    """Return LlamaIndex's decorator of calls, without events if nothing listens when the call starts.

    The model's rate limiter applies in both cases.
    """

    def decorate(method: _Method) -> _Method:
        told = decorator(method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            hide_headers(kwargs)
            if is_observed(self):
                return told(self, *args, **kwargs)
            if self.rate_limiter is not None:
                self.rate_limiter.acquire()
            return method(self, *args, **kwargs)

        async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
            hide_headers(kwargs)
            if is_observed(self):
                return await told(self, *args, **kwargs)
            if self.rate_limiter is not None:
                await self.rate_limiter.async_acquire()
            return await method(self, *args, **kwargs)

        chosen: Any = acall if inspect.iscoroutinefunction(method) else call
        for name in _COPIED:
            setattr(chosen, name, getattr(method, name))
        chosen.__signature__ = inspect.Signature.from_callable(method, follow_wrapped=False)
        typed: _Method = chosen
        return typed

    return decorate


def is_observed(llm: Any) -> bool:
    """Return whether an event handler, a span handler or a callback handler listens to a model."""
    manager = llm.callback_manager
    if isinstance(manager, CallbackManager) and manager.handlers:
        return True
    return _has_handler(callbacks.dispatcher) or _has_handler(get_dispatcher(type(llm).__module__))


def _has_handler(dispatcher: Dispatcher) -> bool:
    while True:
        if not all(type(handler) is NullEventHandler for handler in dispatcher.event_handlers):
            return True
        if not all(type(handler) is NullSpanHandler for handler in dispatcher.span_handlers):
            return True
        if not dispatcher.propagate:
            return False
        dispatcher = dispatcher.parent
