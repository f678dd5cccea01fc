"""Serve the sandbox from a shell: python -m empiriolabs_core.sandbox."""

from __future__ import annotations

import argparse
import sys
import threading

from empiriolabs_core.sandbox import Sandbox


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m empiriolabs_core.sandbox", description="The gateway, offline.")
    parser.add_argument("--port", type=int, default=8089, help="port to listen on (default: 8089; 0 for a free one)")
    parser.add_argument("--local-model", action="store_true", help="let a small language model answer")
    parser.add_argument("--lenient", action="store_true", help="allow what DeepSeek's own API refuses")
    chosen = parser.parse_args()
    try:
        sandbox = Sandbox(port=chosen.port, local_model=chosen.local_model, strict=not chosen.lenient).start()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"The sandbox cannot start: {error}")
    print(f"export EMPIRIOLABS_API_BASE={sandbox.base_url}\nexport EMPIRIOLABS_API_KEY={sandbox.api_key}", flush=True)
    print("Serving. Ctrl-C stops it.", file=sys.stderr)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sandbox.stop()


if __name__ == "__main__":
    main()
