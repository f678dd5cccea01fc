"""Read the rest of a response whose answer is complete, so that its connection can be reused.

`[DONE]` ends an answer, but not the body of its response. A connection whose body was not read to the end is closed,
and the next request pays for a new one, with a TLS handshake.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

SECONDS = 0.1
"""Maximum time for reading the rest, in case a server keeps the body open after `[DONE]`."""
BYTES = 65_536
"""Maximum number of bytes to read."""


def is_possible(response: Any) -> bool:
    """Return whether reads can be limited in time. With HTTP/2, connections are reused without reading the rest."""
    return response.http_version == "HTTP/1.1" and response.extensions.get("network_stream") is not None


@contextlib.contextmanager
def limited(response: Any) -> Iterator[Callable[[bytes], None]]:
    """Limit the reads in the block. Errors end the block silently, since the answer is already complete.

    Yields:
        A function to call with each chunk that was read. It ends the block after too many bytes.
    """
    # The HTTP library reads the timeout of a request once, before its first read, so it cannot be lowered. The network
    # stream is public, and its `read` has a timeout. Sync and async, it is called with the same arguments.
    network, until, left = response.extensions["network_stream"], time.monotonic() + SECONDS, BYTES
    read = network.read

    def read_in_time(max_bytes: int, timeout: float | None = None) -> Any:
        rest = max(until - time.monotonic(), 0.001)
        return read(max_bytes, rest if timeout is None else min(timeout, rest))

    def spend(piece: bytes) -> None:
        nonlocal left
        left -= len(piece)
        if left < 0:
            raise OverflowError

    network.read = read_in_time
    try:
        with contextlib.suppress(Exception):
            yield spend
    finally:
        # Restore the method of the class.
        del network.read
