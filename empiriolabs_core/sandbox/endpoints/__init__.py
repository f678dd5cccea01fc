"""The three endpoints of chat: each reads its own requests and writes its own replies, streams and errors.

Inside, the sandbox uses the form of chat completions only. The translation is written for the sandbox alone: if it
shared code with the adapters, both would make the same mistakes and no test would see them.
"""

from empiriolabs_core.sandbox.endpoints.base import Endpoint, Head, Writer
from empiriolabs_core.sandbox.endpoints.chat_completions import CHAT, ChatCompletions
from empiriolabs_core.sandbox.endpoints.messages import Messages
from empiriolabs_core.sandbox.endpoints.responses import Responses

ENDPOINTS: tuple[Endpoint, ...] = (CHAT, Responses(), Messages())
"""What answers chats, by `POST` to their `path`."""

__all__ = ["CHAT", "ENDPOINTS", "ChatCompletions", "Endpoint", "Head", "Messages", "Responses", "Writer"]
