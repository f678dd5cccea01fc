"""LangChain's complete standard test suites, over a socket against the strict sandbox.

The suites' methods are not overridden. Content that V4 does not support (images, audio, PDF) keeps the suites'
default, "not supported".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from langchain_core.load import load as loading
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from empiriolabs_core.endpoints import EndpointName
from empiriolabs_core.errors import SettingsError
from empiriolabs_core.sandbox import Sandbox
from langchain_empiriolabs import ChatEmpirioLabs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def _loadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the class for `load`, which finds only classes of LangChain's own packages."""
    import sys

    module = sys.modules["langchain_core.load.load"]
    path = ("langchain_empiriolabs", "chat_models", "ChatEmpirioLabs")
    monkeypatch.setitem(module.ALL_SERIALIZABLE_MAPPINGS, path, path)  # type: ignore[attr-defined]
    for name in ("_default_class_paths_cache", "_DEFAULT_CLASS_PATHS_CACHE"):
        cache = getattr(module, name, None)
        if cache is not None:
            monkeypatch.setattr(module, name, type(cache)())
    assert loading


@pytest.mark.usefixtures("_loadable")
class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatEmpirioLabs]:
        return ChatEmpirioLabs

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "deepseek-v4-flash"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"EMPIRIOLABS_API_KEY": "key", "EMPIRIOLABS_API_BASE": "https://gateway.invalid/v1"},
            {},
            {"empiriolabs_api_key": "key", "empiriolabs_api_base": "https://gateway.invalid/v1"},
        )


class Integration(ChatModelIntegrationTests):
    __test__ = False
    endpoint: EndpointName = "chat/completions"

    @pytest.fixture(autouse=True)
    def _sandbox(self, running: Sandbox) -> None:
        self.running = running

    @pytest.fixture(autouse=True)
    def _repeat_the_measured_call(self, request: pytest.FixtureRequest) -> None:
        if request.node.name == "test_stream_time":
            request.getfixturevalue("vcr").allow_playback_repeats = True

    @property
    def chat_model_class(self) -> type[ChatEmpirioLabs]:
        return ChatEmpirioLabs

    @property
    def chat_model_params(self) -> dict[str, Any]:
        where = {"base_url": self.running.base_url, "api_key": self.running.api_key}
        return {"model": "deepseek-v4-flash", "endpoint": self.endpoint, **where}

    @property
    def model_override_value(self) -> str:
        return "deepseek-v4-pro"

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(
        self,
    ) -> dict[
        Literal["invoke", "stream"],
        list[Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]],
    ]:
        return {
            "invoke": ["reasoning_output", "cache_read_input"],
            "stream": ["reasoning_output", "cache_read_input"],
        }

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> Any:
        return self._ask("Hello", stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        long = "A long beginning. " * 60
        self._ask(long, stream=stream)
        return self._ask(long, stream=stream)

    def _ask(self, text: str, *, stream: bool) -> Any:
        return ChatEmpirioLabs(**self.chat_model_params, streaming=stream).invoke(text)


class TestIntegration(Integration):
    __test__ = True
    """Structured output by function calling, the default."""


class TestIntegrationWithJsonSchema(Integration):
    __test__ = True
    """Structured output by JSON schema."""

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}


class TestIntegrationOnMessages(Integration):
    __test__ = True
    endpoint = "messages"
    """The endpoint `messages`."""


class TestIntegrationOnResponses(Integration):
    __test__ = True
    endpoint = "responses"
    """The endpoint `responses`."""

    @pytest.mark.xfail(
        reason="The endpoint has no `stop`, so it raises a SettingsError.", raises=SettingsError, strict=True
    )
    def test_stop_sequence(self, model: Any) -> None:
        super().test_stop_sequence(model)
