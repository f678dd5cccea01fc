"""Ask the gateway the questions that its documents leave open: python -m empiriolabs_core.probe.

Each probe consists of a question, the requests that answer it, and a function that interprets the outcomes. Requests
are sent exactly as written here, without the rules of `empiriolabs_core.settings` and without retries. A rejected
request, a timeout or a broken stream is also a result, and the other probes still run.
"""
