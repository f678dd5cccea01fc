"""The endpoints of the gateway. They translate between wire formats and the internal form.

The internal form is the chat-completions dictionary. An endpoint's module contains `write_body`, `read_reply`,
`read_usage` and a `StreamReader`. All other code in this package uses only the internal form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from empiriolabs_core.endpoints import chat_completions, messages, responses
from empiriolabs_core.errors import JSON

EndpointName = Literal["chat/completions", "responses", "messages"]


class Reader(Protocol):
    """Reads the events of one stream, in order."""

    def read(self, event: Any) -> JSON | None:
        """Convert an event to a chunk in the internal form; `None` if the event adds nothing."""


@dataclass(frozen=True)
class Endpoint:
    """Functions and properties of one endpoint.

    Attributes:
        name: name of the endpoint, the last part of its path.
        path: path below the base URL.
        headers: required HTTP headers.
        write_body: translates a request body from the internal form.
        read_reply: translates a complete reply to the internal form.
        read_usage: translates token counts to the internal form.
        reader: creates the reader for one stream; `None` if events are already chunks.
    """

    name: str
    path: str
    headers: Mapping[str, str]
    write_body: Callable[[JSON], JSON]
    read_reply: Callable[[JSON], JSON]
    read_usage: Callable[[Any], Any]
    reader: Callable[[], Reader] | None


CHAT = Endpoint(
    chat_completions.NAME,
    chat_completions.PATH,
    chat_completions.HEADERS,
    chat_completions.write_body,
    chat_completions.read_reply,
    chat_completions.read_usage,
    None,
)
"""The default endpoint."""

ENDPOINTS: dict[str, Endpoint] = {
    CHAT.name: CHAT,
    **{
        module.NAME: Endpoint(
            module.NAME,
            module.PATH,
            module.HEADERS,
            module.write_body,
            module.read_reply,
            module.read_usage,
            module.StreamReader,
        )
        for module in (responses, messages)
    },
}
"""The endpoints by name."""
