"""Ask the questions, print the answers and write the report."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import openai

from empiriolabs_core import __version__
from empiriolabs_core.catalog import card
from empiriolabs_core.costs import cost_of
from empiriolabs_core.errors import KEY_VARIABLE, SettingsError, excerpt
from empiriolabs_core.probe.outcomes import NO_MODEL, Call, Outcome, Outcomes, Probe, send, summary
from empiriolabs_core.probe.questions import probes
from empiriolabs_core.replies import Usage
from empiriolabs_core.settings import DEFAULT_MODEL, Settings

DEFAULT_BUDGET = 32_768
"""Reasoning tokens to assume in the estimate if a request does not limit them."""
PROMPT_ALLOWANCE, SEARCH_ALLOWANCE = 1_000, 50_000
"""Tokens to allow in the estimate for the gateway's additions to a prompt: its system message and search results."""
_ACCOUNT = "user|account|org|organization|project|team|customer|balance|credits"


def most_usd(call: Call) -> Decimal | None:
    """Return the most that a request may cost in US dollars, by the rates on the card, or `None` for unknown rates.

    The estimate assumes that a token has at least one byte, that a prompt does not exceed the context window, and that
    reasoning is billed in addition to `max_tokens`. Requests with an invalid key or model cost nothing.
    """
    body = call.body
    if body is None or call.key is not None or body["model"] == NO_MODEL:
        return Decimal(0)
    known = card(body["model"])
    allowed = PROMPT_ALLOWANCE + SEARCH_ALLOWANCE * ("web_search_linkup" in body)
    prompt = min(len(json.dumps(body)) + allowed, (known and known.context_window) or 10**9)
    budget = 0 if body.get("enable_thinking") is False else body.get("thinking_budget", DEFAULT_BUDGET)
    if "reasoning_effort" in body:
        # The precedence of effort and budget is one of the questions, so the higher one is assumed.
        budget = max(budget, DEFAULT_BUDGET)
    limit = body.get("max_tokens") or body.get("max_output_tokens")
    output = (limit + budget) * body.get("n", 1) if limit else 0
    cost = cost_of(body["model"], Usage(prompt, output, prompt + output), web_search="web_search_linkup" in body)
    return None if cost is None else cost.total


def shortened(value: Any) -> Any:
    """Return a JSON value with long strings and lists shortened."""
    if isinstance(value, Mapping):
        return {name: shortened(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shortened(inner) for inner in value[:20]] + ["..."] * (len(value) > 20)
    return excerpt(value) if isinstance(value, str) else value


def scrub(text: str, key: str) -> str:
    """Remove the key, strings that look like keys, e-mail addresses and URL credentials from a text."""
    text = text.replace(key, "<key>") if key else text
    text = re.sub(r"sk-[\w*.-]{6,}", "<key>", text)
    text = re.sub(r"//[^/@\s]+@", "//", re.sub(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]+", "<address>", text))
    return re.sub(rf'("(?:{_ACCOUNT})(?:_?id)?": *)("[^"]*"|[\d.]+)', r'\1"<account>"', text)


class Finding(NamedTuple):
    """A probe, its answer, and the outcomes of its requests."""

    probe: Probe
    answer: str
    outcomes: Outcomes


def ask(probe: Probe, send_one: Callable[[Call], Outcome]) -> Finding:
    """Send a probe's requests and interpret the outcomes. Unexpected replies also yield an answer."""
    outcomes = {call.label: send_one(call) for call in probe.calls}
    try:
        said = "No answer." if all(came.barred for came in outcomes.values()) else probe.read(outcomes)
    except Exception as error:  # No reply may stop the other probes.
        said = f"This probe cannot interpret the replies ({type(error).__name__}: {error})."
    return Finding(probe, said, outcomes)


def _safe_summary(outcome: Outcome) -> str:
    try:
        return summary(outcome)
    except Exception as error:  # No reply may stop the other probes.
        return f"{outcome.status}, unexpected format ({type(error).__name__})"


def report(settings: Settings, findings: Iterable[Finding]) -> str:
    """Return the report as Markdown. It contains only the names of headers, except for content type and retry delay."""
    now = datetime.datetime.now(datetime.timezone.utc)
    lines = [f"# Answers of {settings.base_url}"]
    lines += [f"{now:%Y-%m-%d %H:%M} UTC, model {settings.model}, empiriolabs-adapters {__version__}."]
    for number, (probe, said, outcomes) in enumerate(findings, 1):
        lines += [f"## {number}. {probe.name}", probe.question, f"**{said}**"]
        for call in probe.calls:
            came = outcomes[call.label]
            names = [
                f"{n}: {v}" if n in ("content-type", "retry-after") else n for n, v in sorted(came.headers.items())
            ]
            sent = "nothing" if call.body is None else json.dumps(shortened(call.body), indent=1, ensure_ascii=False)
            lines += [f"### {call.label}: {_safe_summary(came)}", f"```json\n{sent}\n```"]
            lines += [f"Headers: {', '.join(names) or 'none'}", f"````text\n{excerpt(came.text, 2000)}\n````"]
    return scrub("\n\n".join(lines) + "\n", _key(settings))


def _key(settings: Settings) -> str:
    return settings.api_key.get_secret_value() if settings.api_key else ""


def plan(chosen: Sequence[Probe]) -> str:
    """Return the list of questions, with the highest possible cost."""
    lines, sums = [], []
    for number, probe in enumerate(chosen, 1):
        amounts = [most_usd(call) for call in probe.calls]
        sums.append(None if None in amounts else sum(amount for amount in amounts if amount is not None))
        cost = "of unknown cost" if sums[-1] is None else f"at most ${sums[-1]:.4f}"
        lines.append(f"{number}. {probe.name}: {probe.question} {len(probe.calls)} requests, {cost}.")
    total = "an unknown amount (the model has no card)" if None in sums else f"${sum(s for s in sums if s):.4f}"
    return "\n".join([*lines, f"Total at the catalogue's rates: at most {total}."])


def _barred(settings: Settings, first: Outcome) -> str:
    """Return why no further request is sent."""
    if first.status is None:
        return f"{settings.base_url} does not respond ({first.failure}). No report was written."
    what = "reports that the account has no credits" if first.status == 402 else "rejected the key"
    return (
        f"The gateway {what} ({summary(first)}). No further request was sent, and no report was written. "
        f"Check {KEY_VARIABLE} and the account."
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 to 3600, got {text}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask all the questions, print the answers and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m empiriolabs_core.probe", description="Check against the gateway what its documents leave open."
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation before spending money")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("probe-report.md"),
        help="file to write the report to (default: probe-report.md)",
    )
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"chat model with reasoning (default: {DEFAULT_MODEL})")
    parser.add_argument(
        "--pause", type=_seconds, default=1.3, help="seconds between requests (default: 1.3, 46 a minute)"
    )
    parser.add_argument("--timeout", type=_seconds, default=120, help="timeout of a request in seconds (default: 120)")
    given = parser.parse_args(arguments)
    if not given.report.parent.is_dir() or given.report.is_dir():
        parser.error(f"--report must be a file in an existing folder, got {given.report}")
    try:
        settings = Settings(model=given.model)
    except SettingsError as error:
        sys.exit(str(error))
    chosen = probes(given.model)
    print(plan(chosen))
    if settings.api_key is None:
        print(f"Nothing was sent. Set {KEY_VARIABLE} to send the requests.")
        return
    if not given.yes:
        if not sys.stdin.isatty():
            sys.exit("Nothing was sent. Pass --yes to agree to the cost.")
        if input(f"Send these requests to {scrub(settings.base_url, '')}? [y/N] ").strip().lower() not in ("y", "yes"):
            sys.exit("Nothing was sent.")
    findings: list[Finding] = []
    with openai.DefaultHttpxClient() as http:
        first = send(http, settings.base_url, _key(settings), chosen[0].calls[0], given.timeout)
        if first.status in (401, 402, 403) or (first.failure or "").startswith("Connect"):
            sys.exit(scrub(f"\n{_barred(settings, first)}", _key(settings)))

        def send_one(call: Call) -> Outcome:
            if call is chosen[0].calls[0]:
                return first
            time.sleep(given.pause)
            return send(http, settings.base_url, _key(settings), call, given.timeout)

        for number, probe in enumerate(chosen, 1):
            findings.append(ask(probe, send_one))
            shown = [f"{label}: {_safe_summary(outcome)}" for label, outcome in findings[-1].outcomes.items()]
            print(scrub("\n   ".join([f"\n{number}. {probe.name}: {findings[-1].answer}", *shown]), _key(settings)))
            given.report.write_text(report(settings, findings), encoding="utf-8")
    print(f"\nThe report is in {given.report}.")


if __name__ == "__main__":
    main()
