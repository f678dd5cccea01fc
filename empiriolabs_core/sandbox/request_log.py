"""Print a line for each request, for people who run the sandbox in a shell."""

from __future__ import annotations

import sys
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MODEL = "empiriolabs.model"
"""The key of the ASGI scope that holds the model of a request."""


class RequestLog:
    """ASGI middleware that logs each request to standard error: method, path, model, status and seconds.

    It does not wrap `receive`, because faults need the server's own function.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and print its line when the answer ends."""
        began, status = time.monotonic(), "no answer"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            model = scope.get(MODEL)
            shown = f" {model}" if isinstance(model, str) else ""
            seconds = time.monotonic() - began
            print(f"{scope['method']} {scope['path']}{shown}: {status}, {seconds:.2f} s", file=sys.stderr, flush=True)
