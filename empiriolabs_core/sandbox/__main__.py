"""Serve the sandbox from a shell: python -m empiriolabs_core.sandbox."""

from __future__ import annotations

import argparse
import errno
import sys
import threading

from empiriolabs_core.sandbox import Sandbox


def main() -> None:
    """Serve until interrupted."""
    chosen = _parser().parse_args()
    try:
        sandbox = Sandbox(
            port=chosen.port,
            local_model=chosen.local_model,
            strict=not chosen.lenient,
            models=chosen.model,
            verbose=chosen.verbose,
        ).start()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"The sandbox cannot start: {_explained(error, chosen.port)}")
    print(f"export EMPIRIOLABS_API_BASE={sandbox.base_url}\nexport EMPIRIOLABS_API_KEY={sandbox.api_key}", flush=True)
    print("Serving. Ctrl-C stops it.", file=sys.stderr)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sandbox.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m empiriolabs_core.sandbox", description="Run an offline copy of the gateway."
    )
    parser.add_argument("--port", type=int, default=8089, help="port to listen on (default: 8089; 0 for a free one)")
    parser.add_argument("--local-model", action="store_true", help="answer with a small language model")
    parser.add_argument("--lenient", action="store_true", help="accept requests that DeepSeek's own API rejects")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="ID",
        help="serve this model too; repeat the option for more models",
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for each request")
    return parser


def _explained(error: Exception, port: int) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {port} is in use. Choose another one with --port, or a free one with --port 0."
    return str(error)


if __name__ == "__main__":
    main()
