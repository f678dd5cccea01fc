"""Build the errors with which the gateway rejects a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empiriolabs_core.errors import excerpt


class Refusal(Exception):
    """A rejected request: a status and the documented error envelope."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})
        self.kind = kind or ("invalid_request_error" if status < 500 else "api_error")

    def envelope(self) -> dict[str, Any]:
        """Return the body of the error. The keys beyond the documented ones are inferred from OpenAI's."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def bad(param: str, message: str) -> Refusal:
    """Return the error for a field with an invalid value."""
    return Refusal(400, "invalid_parameter_error", message, param)


def shown(value: Any) -> str:
    """Return the repr of a value, shortened for use in a sentence."""
    return excerpt(repr(value))
