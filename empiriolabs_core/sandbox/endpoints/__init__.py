"""The three chat endpoints. Each endpoint reads its own requests and writes its own replies, streams and errors.

Internally, the sandbox uses only the form of chat completions. The translation shares no code with the adapters. If it
did, both would make the same mistakes, and no test would find them.
"""

from empiriolabs_core.sandbox.endpoints.base import Endpoint, Head, Writer
from empiriolabs_core.sandbox.endpoints.chat_completions import CHAT, ChatCompletions
from empiriolabs_core.sandbox.endpoints.messages import Messages
from empiriolabs_core.sandbox.endpoints.responses import Responses

ENDPOINTS: tuple[Endpoint, ...] = (CHAT, Responses(), Messages())
"""The endpoints, each served by `POST` at its `path`."""

__all__ = ["CHAT", "ENDPOINTS", "ChatCompletions", "Endpoint", "Head", "Messages", "Responses", "Writer"]
