"""Start a sandbox if no key is set, for demos and notebooks that run with or without a key."""

from __future__ import annotations

import atexit
import os
from typing import Any

from empiriolabs_core.errors import BASE_VARIABLE, DEFAULT_API_BASE, KEY_VARIABLE
from empiriolabs_core.sandbox.server import Sandbox


def stand_in(**options: Any) -> Sandbox | None:
    """Start a sandbox unless `EMPIRIOLABS_API_KEY` is set, and print which endpoint is used.

    With a sandbox, sets `EMPIRIOLABS_API_KEY` and `EMPIRIOLABS_API_BASE`, so that every adapter created afterwards
    uses it. The sandbox runs until `stop()` is called or the process ends.

    Args:
        **options: arguments of `Sandbox`.

    Returns:
        The sandbox, or `None` if the key of the environment is used.
    """
    if os.environ.get(KEY_VARIABLE):
        print(f"Using {os.environ.get(BASE_VARIABLE) or DEFAULT_API_BASE}, because {KEY_VARIABLE} is set.")
        return None
    sandbox = Sandbox(**options).start()
    atexit.register(sandbox.stop)
    os.environ[KEY_VARIABLE], os.environ[BASE_VARIABLE] = sandbox.api_key, sandbox.base_url
    print(f"{KEY_VARIABLE} is not set: using the sandbox on this machine. {sandbox.voice}")
    return sandbox
