"""Connection settings: the fields that all classes of this package share."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)
from typing_extensions import Never

from empiriolabs_core.arguments import (
    DEFAULT_TIMEOUT,
    check_headers,
    check_http_client,
    check_key,
    check_retries,
    check_timeout,
    check_total_timeout,
    check_url,
    sentences,
)
from empiriolabs_core.clients import Connection, adopt
from empiriolabs_core.costs import Bill
from empiriolabs_core.errors import (
    BASE_VARIABLE,
    DEFAULT_API_BASE,
    KEY_VARIABLE,
    MissingKeyError,
    SettingsError,
    UsageError,
)
from empiriolabs_core.gateway import Gateway, one_at_a_time

_STAYS_HERE = ("api_key", "default_headers", "http_client", "http_async_client")


def _looks_like_a_model(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.:-]{1,60}", value) is not None and not value.startswith("sk-")


class ConnectionFields(BaseModel):
    """The connection fields, and the transport that uses them.

    Raises:
        SettingsError: if an argument is misspelt or out of range, or contradicts another argument.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    api_key: SecretStr | None = Field(
        default=None,
        validate_default=True,
        validation_alias=AliasChoices("api_key", "empiriolabs_api_key"),
        exclude=True,
        repr=False,
    )
    """API key. Default: the environment variable `EMPIRIOLABS_API_KEY`. It never appears in a repr, dump or pickle."""

    base_url: str = Field(
        default="",
        validate_default=True,
        validation_alias=AliasChoices("base_url", "empiriolabs_api_base", "api_base"),
    )
    """URL of the API. Default: the environment variable `EMPIRIOLABS_API_BASE`, or the public gateway."""

    timeout: Any = Field(default=DEFAULT_TIMEOUT, validation_alias=AliasChoices("timeout", "request_timeout"))
    """Read timeout: the longest wait between two bytes, in seconds, or an `openai.Timeout`. Default: 900."""

    total_timeout: float | None = None
    """Seconds for a complete call, more than 0: from the first attempt to the end of the answer or stream, including
    retries and the waits between them. Exact in async code. In sync code, a call may end one read late, and a broken
    reply is not retried. Default: no limit."""

    max_retries: Annotated[int, Field(strict=True, ge=0)] = 2
    """Maximum number of retries after 408, 409, 429, 5xx or a lost connection, 0 or more. The OpenAI client retries.
    Default: 2."""

    default_headers: dict[str, str] | None = Field(default=None, exclude=True, repr=False)
    """Additional HTTP headers for every request. They may contain credentials: reprs, dumps and pickles omit them."""

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

    def __init__(self, *positional: Never, **arguments: Any) -> None:
        if positional:
            name = type(self).__name__
            first: object = positional[0]
            shown = f"{name}(model={first!r})" if _looks_like_a_model(first) else f"{name}(model=...)"
            del positional, first, arguments
            raise UsageError(f"{name} accepts only keyword arguments: {shown}.")
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            # pydantic's error would contain all arguments, including the key, in its text and in errors(). Tools that
            # report local variables would show the key too.
            told = sentences(error, type(self))
        else:
            return
        del arguments
        raise SettingsError(told)

    def model_post_init(self, context: Any, /) -> None:
        """Call the framework's own method. Pydantic's method, which exists because of `_gateway`, would not call it."""
        super().model_post_init(context)

    @field_validator("api_key", mode="before")
    @classmethod
    def _key_from_environment(cls, value: Any) -> Any:
        return os.environ.get(KEY_VARIABLE) or None if value is None else value

    @field_validator("api_key")
    @classmethod
    def _sendable_key(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else check_key(value)

    @field_validator("base_url", mode="before")
    @classmethod
    def _absolute_url(cls, value: Any) -> Any:
        return check_url(_url(value))

    @field_validator("timeout", mode="before")
    @classmethod
    def _finite_timeout(cls, value: Any) -> Any:
        return check_timeout(value)

    @field_validator("total_timeout", mode="before")
    @classmethod
    def _usable_total(cls, value: Any) -> Any:
        return check_total_timeout(value)

    @field_validator("default_headers")
    @classmethod
    def _sendable_headers(cls, value: Any) -> Any:
        return value if value is None else check_headers(value, "default_headers")

    @field_serializer("timeout")
    def _timeout_as_json(self, value: Any) -> Any:
        return value.as_dict() if hasattr(value, "as_dict") else value

    @field_validator("http_client", "http_async_client")
    @classmethod
    def _an_http_client(cls, value: Any, field: ValidationInfo) -> Any:
        value = check_http_client(value, str(field.field_name))
        adopt(value)
        return value

    def __repr_args__(self) -> Any:
        """Hide an assigned URL that contains a user name, a password or a query."""
        for name, value in super().__repr_args__():
            yield name, "<hidden>" if name == "base_url" and set(str(value)) & set("@?#") else value

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the key, and values that cannot be pickled."""
        state = super().__getstate__()
        values = {name: None if name in _STAYS_HERE else value for name, value in state["__dict__"].items()}
        private = {**(state.get("__pydantic_private__") or {}), "_gateway": None}
        return {**state, "__dict__": values, "__pydantic_private__": private}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Read the key from the environment."""
        super().__setstate__(state)
        if self.api_key is None and os.environ.get(KEY_VARIABLE):
            self.api_key = SecretStr(os.environ[KEY_VARIABLE])

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """Copy everything except the HTTP clients, which cannot be copied. The copy uses the same clients."""
        memo = {} if memo is None else memo
        memo.update({id(client): client for client in (self.http_client, self.http_async_client) if client is not None})
        return super().__deepcopy__(memo)

    @property
    def gateway(self) -> Gateway:
        """The transport for the current settings. It is recreated when they change.

        Raises:
            MissingKeyError: if there is no API key.
        """
        connection, gateway = self._connection(), self._gateway
        if gateway is None or gateway.connection != connection:
            with one_at_a_time():
                gateway = self._gateway
                if gateway is None or gateway.connection != connection:
                    gateway = self._gateway = Gateway(connection, Bill)
        return gateway

    def _connection(self) -> Connection:
        # Values that were assigned, copied or unpickled are not validated yet.
        if self.api_key is None:
            raise MissingKeyError(
                f"No API key. Set {KEY_VARIABLE}, or pass api_key. Create a key at "
                "https://platform.empiriolabs.ai/dashboard/api-keys."
            )
        return Connection(
            base_url=check_url(_url(self.base_url)),
            api_key=check_key(self.api_key if isinstance(self.api_key, SecretStr) else SecretStr(self.api_key)),
            timeout=check_timeout(self.timeout),
            total_timeout=check_total_timeout(self.total_timeout),
            max_retries=check_retries(self.max_retries),
            headers=check_headers({} if self.default_headers is None else self.default_headers, "default_headers"),
            http_client=check_http_client(self.http_client, "http_client"),
            http_async_client=check_http_client(self.http_async_client, "http_async_client"),
        )


def _url(value: Any) -> Any:
    """Return the URL of the API. If it is not set, use the environment variable, or else the public gateway."""
    return value or os.environ.get(BASE_VARIABLE) or DEFAULT_API_BASE
