"""The command `empiriolabs`: list models, serve the sandbox, probe the gateway, or stream one answer.

It is the same as `python -m empiriolabs_core`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from importlib import import_module
from typing import get_args

from empiriolabs_core import __version__
from empiriolabs_core.costs import cost_of_call
from empiriolabs_core.errors import JSON, EmpirioLabsError
from empiriolabs_core.replies import StreamedReply, read_usage
from empiriolabs_core.settings import DEFAULT_MODEL, ReasoningEffort, Settings

_MODULES = {
    "models": "empiriolabs_core.catalog.__main__",
    "sandbox": "empiriolabs_core.sandbox.__main__",
    "probe": "empiriolabs_core.probe.__main__",
}

_HELP = """\
commands:
  models    list models with region, limits and prices
  sandbox   serve an offline copy of the gateway
  probe     check against the live gateway what its documents leave open
  chat      stream one answer with reasoning, tokens and cost, to check a key

'empiriolabs COMMAND --help' lists the options of a command.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: the words after `empiriolabs`. Default: those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="empiriolabs",
        description="Use EmpirioLabs models from a shell.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=[*_MODULES, "chat"], metavar="COMMAND", help="one of the commands below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    sys.argv = [f"empiriolabs {chosen.command}", *chosen.options]
    run: Callable[[], None] = chat if chosen.command == "chat" else import_module(_MODULES[chosen.command]).main
    run()


def chat() -> None:
    """Stream one answer to the shell, or exit with a one-line error."""
    parser = argparse.ArgumentParser(
        prog="empiriolabs chat", description="Stream one answer with reasoning, tokens and cost."
    )
    parser.add_argument("prompt", nargs="*", help="question to ask (default: a greeting)")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model id (default: %(default)s)")
    parser.add_argument("--effort", choices=get_args(ReasoningEffort), help="reasoning effort")
    parser.add_argument("--search", action="store_true", help="search the web first, for a fee")
    chosen = parser.parse_args()
    prompt = " ".join(chosen.prompt) or "Say hello in one sentence."
    try:
        settings = Settings(model=chosen.model, reasoning_effort=chosen.effort, web_search_linkup=chosen.search or None)
        request = settings.request([{"role": "user", "content": prompt}], {}, stream=True)
        with closing(settings.gateway.stream(request)) as chunks:
            _show(chunks, request.body)
    except EmpirioLabsError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _show(chunks: Iterable[JSON], body: JSON) -> None:
    """Print the reasoning, the answer, the tokens and the cost."""
    reply, heading = StreamedReply(), ""
    for chunk in chunks:
        delta = reply.read(chunk)
        for kind, text in (("reasoning", delta.reasoning), ("answer", delta.text)) if delta else ():
            if text and kind != heading:
                print(f"{heading and chr(10)}[{kind}]", flush=True)
                heading = kind
            print(text, end="", flush=True)
    usage, cost = read_usage(reply.usage), cost_of_call(body, reply.usage)
    tokens = "not reported" if usage is None else f"{usage.input_tokens} prompt, {usage.output_tokens} answer"
    if usage is not None and usage.reasoning_tokens:
        tokens += f" ({usage.reasoning_tokens} of them reasoning)"
    print(f"\n[tokens] {tokens}\n[cost] {'unknown' if cost is None else f'${cost.total:f}'}")


if __name__ == "__main__":
    main()
