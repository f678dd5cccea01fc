"""Tracers with exporters in memory: OpenInference and OpenTelemetry for LangChain, and Langfuse."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.consumers import kit

openinference_langchain = kit("openinference.instrumentation.langchain")
otel_langchain = kit("opentelemetry.instrumentation.langchain")
langfuse = kit("langfuse")
langfuse_langchain = kit("langfuse.langchain")
trace = kit("opentelemetry.sdk.trace")
export = kit("opentelemetry.sdk.trace.export")
memory = kit("opentelemetry.sdk.trace.export.in_memory_span_exporter")

from llama_index.core.base.llms.types import ChatMessage

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs
from tests.langchain.tools import get_weather

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

CALL = Answer(
    None,
    reasoning="Look.",
    tool_calls=[{"name": "get_weather", "arguments": {"city": "Paris"}}],
    usage={"prompt_tokens_details": {"cached_tokens": 3}},
)
WAYS = ["invoke", "stream", "ainvoke", "astream"]


@contextmanager
def collected() -> Iterator[Any]:
    """Yield an exporter in memory; its `provider` is what instrumentors want."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OTEL_SDK_DISABLED", raising=False)
        exporter, provider = memory.InMemorySpanExporter(), trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    exporter.provider = provider
    yield exporter
    provider.shutdown()


@pytest.fixture
def spans() -> Iterator[Any]:
    with collected() as exporter:
        yield exporter


@pytest.fixture(scope="module")
def _otel() -> Iterator[Any]:
    """Instrument once: after `uninstrument`, this one sees nothing when it is instrumented again."""
    with collected() as exporter:
        instrumentor = otel_langchain.LangchainInstrumentor()
        instrumentor.instrument(tracer_provider=exporter.provider)
        yield exporter
        instrumentor.uninstrument()


@pytest.fixture
def otel_spans(_otel: Any) -> Any:
    _otel.clear()
    return _otel


@pytest.fixture
def llm(where: dict[str, Any]) -> Any:
    return ChatEmpirioLabs(**where, model="deepseek-v4-pro").bind_tools([get_weather])


async def run(llm: Any, how: str, config: Any = None) -> None:
    if how == "invoke":
        llm.invoke("Weather in Paris?", config)
    elif how == "stream":
        list(llm.stream("Weather in Paris?", config))
    elif how == "ainvoke":
        await llm.ainvoke("Weather in Paris?", config)
    else:
        [chunk async for chunk in llm.astream("Weather in Paris?", config)]


def attributes(spans: Any, name: str) -> dict[str, Any]:
    """Return the attributes of the one span, without its parents, that has this attribute."""
    found = [span for span in spans.get_finished_spans() if name in span.attributes]
    parents = {span.parent.span_id for span in found if span.parent}
    (innermost,) = [dict(span.attributes) for span in found if span.context.span_id not in parents]
    return innermost


def check_openinference(told: dict[str, Any], sandbox: Sandbox) -> None:
    billed = sandbox.ledger[-1]
    assert told["llm.model_name"] == "deepseek-v4-pro"
    assert told["llm.token_count.prompt"] == billed.prompt_tokens
    assert told["llm.token_count.completion"] == billed.completion_tokens
    call = "llm.output_messages.0.message.tool_calls.0.tool_call.function"
    assert told[f"{call}.name"] == "get_weather"
    assert json.loads(told[f"{call}.arguments"]) == {"city": "Paris"}


@pytest.mark.parametrize("how", WAYS)
async def test_openinference_for_langchain(llm: Any, spans: Any, sandbox: Sandbox, how: str) -> None:
    instrumentor = openinference_langchain.LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    try:
        sandbox.script(CALL)
        await run(llm, how)
    finally:
        instrumentor.uninstrument()
    told = attributes(spans, "llm.model_name")
    check_openinference(told, sandbox)
    assert told["llm.provider"] == "empiriolabs"
    assert told["llm.token_count.prompt_details.cache_read"] == 3
    assert told["llm.token_count.completion_details.reasoning"] == sandbox.ledger[-1].reasoning_tokens > 0


@pytest.mark.parametrize("how", WAYS)
async def test_opentelemetry_for_langchain(llm: Any, otel_spans: Any, sandbox: Sandbox, how: str) -> None:
    sandbox.script(CALL)
    await run(llm, how)
    told, billed = attributes(otel_spans, "gen_ai.request.model"), sandbox.ledger[-1]
    assert told["gen_ai.response.model"] == "deepseek-v4-pro"
    assert told["gen_ai.usage.input_tokens"] == billed.prompt_tokens
    assert told["gen_ai.usage.output_tokens"] == billed.completion_tokens
    said = json.loads(told["gen_ai.output.messages"])
    assert said[0]["finish_reason"] in ("tool_call", "tool_calls")
    assert '"Paris"' in json.dumps(said)


@pytest.mark.parametrize("how", WAYS)
async def test_langfuse(llm: Any, spans: Any, sandbox: Sandbox, how: str) -> None:
    client = langfuse.Langfuse(
        public_key=f"pk-{how}",
        secret_key="sk",
        base_url="http://127.0.0.1:9",
        tracer_provider=spans.provider,
        span_exporter=spans,
    )
    handler = langfuse_langchain.CallbackHandler(public_key=f"pk-{how}")
    sandbox.script(CALL)
    await run(llm, how, {"callbacks": [handler]})
    client.flush()
    found = [dict(span.attributes) for span in spans.get_finished_spans()]
    told = next(each for each in found if "langfuse.observation.usage_details" in each)
    billed = sandbox.ledger[-1]
    usage = json.loads(told["langfuse.observation.usage_details"])
    assert told["langfuse.observation.model.name"] == "deepseek-v4-pro"
    assert usage["input"] + usage.get("input_cache_read", 0) == billed.prompt_tokens
    assert usage["output"] + usage.get("output_reasoning", 0) == billed.completion_tokens
    assert "get_weather" in told["langfuse.observation.output"]
    assert os.environ.get("EMPIRIOLABS_API_KEY", sandbox.api_key) not in str(found)


def test_the_instrumentation_of_the_openai_package_sees_no_call(where: Any, spans: Any) -> None:
    """Its wrappers are around the typed methods of the client, which the adapters do not use. The guide says so."""
    openai_instrumentation = kit("opentelemetry.instrumentation.openai")
    instrumentor = openai_instrumentation.OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    try:
        ChatEmpirioLabs(**where).invoke("Hello")
        EmpirioLabs(**where).chat([ChatMessage("Hello")])
    finally:
        instrumentor.uninstrument()
    assert spans.get_finished_spans() == ()
