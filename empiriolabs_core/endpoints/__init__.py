"""The endpoints of the gateway. Each translates between its wire and the internal form, chat-completions dictionaries.

An endpoint's module contains `write_body`, `read_reply`, `read_usage` and a `StreamReader`. Everything else in this
package sees the internal form only.
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
        """Return the chunk that an event stands for, in the internal form; `None` if it adds nothing."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint, as the gateway uses it.

    Attributes:
        name: its name, the last part of its path.
        path: its path below the base URL.
        headers: HTTP headers that it needs.
        write_body: translates a request body from the internal form.
        read_reply: translates a whole reply to the internal form.
        read_usage: translates token counts to the internal form.
        reader: creates the reader for one stream; `None` if events are chunks already.
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
"""Chat completions, the default."""

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
