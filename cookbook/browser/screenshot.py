"""Take the two screenshots of the page, in Debian's chromium, against the sandbox: python screenshot.py."""

import base64
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from empiriolabs_core.sandbox import Answer, Fault, stand_in

HERE = Path(__file__).parent
SERVE = [
    sys.executable,
    "-m",
    "uvicorn",
    "app:app",
    "--app-dir",
    str(HERE),
    "--port",
    "0",
]
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=760,570 --remote-debugging-pipe"
)
ANSWER = Answer(
    "Air scatters short waves of light much more than long ones, so the blue of sunlight reaches us from all over "
    "the sky.\n\nIn the evening the light comes a longer way through the air. Most of the blue is scattered out of "
    "it before it arrives, and red is what is left.",
    reasoning="Rayleigh scattering: its strength goes with the inverse fourth power of the wavelength. For the "
    "evening, compare the length of the path through the air. Two short paragraphs should do.",
)
ASK = """(async () => {
  const until = async ready => { while (!ready()) await new Promise(done => setTimeout(done, 20)) }
  await until(() => document.readyState == "complete")
  document.querySelector("input").value = "Why is the sky blue, and the evening red?"
  document.querySelector("form").requestSubmit()
  await until(() => document.querySelector("button").textContent == "Ask")
  document.activeElement.blur()
  return document.querySelector("article").innerText
})()"""


class Browser:
    """A separate chromium process, controlled by its debugging pipe: JSON messages that end with a zero byte."""

    def __init__(self, profile: str) -> None:
        reads, to_browser = os.pipe()
        from_browser, writes = os.pipe()
        command = [
            "bash",
            "-c",
            f"exec {CHROMIUM} --user-data-dir={profile} 3<&{reads} 4>&{writes}",
        ]
        self.process = subprocess.Popen(
            command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL
        )
        os.close(reads)
        os.close(writes)
        self.to_browser, self.from_browser = (
            os.fdopen(to_browser, "wb", 0),
            os.fdopen(from_browser, "rb"),
        )
        self.numbers = itertools.count(1)
        self.session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {
            "sessionId": self.call(
                "Target.attachToTarget", targetId=target, flatten=True
            )["sessionId"]
        }

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the browser and return its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params, **self.session}
        self.to_browser.write(json.dumps(message).encode() + b"\0")
        while message.get("id") != number or "method" in message:
            message = json.loads(
                b"".join(iter(lambda: self.from_browser.read(1) or b"\0", b"\0"))
            )
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]


def main() -> None:
    """Ask twice; the second time, the connection is lost in the middle of the answer."""
    sandbox = stand_in()
    if sandbox is None:
        sys.exit("The screenshots show the sandbox: unset EMPIRIOLABS_API_KEY.")
    server = subprocess.Popen(
        SERVE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    url = next(
        word
        for line in server.stderr
        for word in line.split()
        if word.startswith("http://127")
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            for name, fault in (
                ("screenshot.png", None),
                ("broken.png", Fault("cut", after=75)),
            ):
                sandbox.script(ANSWER)
                sandbox.fail(fault)
                browser.call("Page.navigate", url=url)
                shown = browser.call(
                    "Runtime.evaluate", expression=ASK, awaitPromise=True
                )["result"]
                print(shown["value"], end="\n\n")
                (HERE / name).write_bytes(
                    base64.b64decode(browser.call("Page.captureScreenshot")["data"])
                )
        finally:
            browser.process.terminate()
            browser.process.wait()
            server.terminate()


if __name__ == "__main__":
    main()
