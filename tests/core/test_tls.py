"""A real TLS handshake, with a certificate of the test, and with truststore injected, as `langgraph dev` does."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

REPLY = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
MODELS = {"data": [{"id": "some-model"}]}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(REPLY)

    def do_GET(self) -> None:
        self._answer(MODELS)

    def _answer(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Serve over TLS; yield the environment in which the server is found and trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {
                **os.environ,
                "EMPIRIOLABS_API_BASE": f"https://127.0.0.1:{server.server_port}/v1",
                "EMPIRIOLABS_API_KEY": "sk-x",
                "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
            }
        finally:
            server.shutdown()


CALLS = """
import asyncio
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
print(ChatEmpirioLabs(max_retries=0).invoke("Hello").content)
print(asyncio.run(ChatEmpirioLabs(max_retries=0).ainvoke("Hello")).content)
print(EmpirioLabs(max_retries=0).complete("Hello").text)
print(asyncio.run(EmpirioLabs(max_retries=0).acomplete("Hello")).text)
print(ChatEmpirioLabs.list_models()[0].id)
print(asyncio.run(ChatEmpirioLabs.alist_models())[0].id)
"""


@pytest.mark.parametrize("injected", [False, True], ids=["plain", "truststore"])
def test_both_adapters_over_tls(injected: bool, served: dict[str, str]) -> None:
    first = "import truststore; truststore.inject_into_ssl()\n" if injected else ""
    # The loops that end with an idle connection leave it to the garbage collector.
    command = [sys.executable, "-W", "ignore", "-c", first + CALLS]
    found = subprocess.run(command, env=served, capture_output=True, text=True, timeout=120)
    assert found.stdout.split() == ["Hi"] * 4 + ["some-model"] * 2, found.stderr[-3000:]


def test_a_certificate_that_is_not_trusted(served: dict[str, str]) -> None:
    first = "import truststore; truststore.inject_into_ssl()\n"
    del served["SSL_CERT_FILE"]
    command = [sys.executable, "-W", "ignore", "-c", first + CALLS]
    found = subprocess.run(command, env=served, capture_output=True, text=True, timeout=120)
    assert "EmpirioLabsConnectionError" in found.stderr
    assert "CERTIFICATE_VERIFY_FAILED" in found.stderr
