"""Puts the questions that the gateway's documents leave open to the gateway itself: python -m empiriolabs_core.probe.

Each probe is a question, the requests that settle it, and a function that reads the outcomes. Requests are sent as
they stand here, past the wire rules of `empiriolabs_core.settings`, and once: a refusal, a time-out or a broken stream
is an answer too, and never keeps the other probes from running.
"""
