"""Errors of both adapters: one base, the classes of the OpenAI client and of the frameworks, and pickling."""

from __future__ import annotations

import concurrent.futures
import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from typing import Any

import openai
import pytest
from langchain_core import exceptions as langchain
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import Document
from pydantic import BaseModel

import empiriolabs_core
import langchain_empiriolabs
import llamaindex_empiriolabs
from empiriolabs_core import errors as core
from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import KEY_VARIABLE, EmpirioLabsError
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank
from tests.core.fixed import answering
from tests.drivers import DRIVERS, Case

TELLING = ("status_code", "code", "body", "message", "request_id", "type", "param", "llm_output")
STATUSES: dict[int, tuple[type[Exception], type[Exception]]] = {
    400: (openai.BadRequestError, langchain.ModelInvalidRequestError),
    401: (openai.AuthenticationError, langchain.ModelAuthenticationError),
    402: (openai.APIStatusError, langchain.ModelPermissionDeniedError),
    403: (openai.PermissionDeniedError, langchain.ModelPermissionDeniedError),
    404: (openai.NotFoundError, langchain.ModelNotFoundError),
    408: (openai.APIStatusError, langchain.ModelTimeoutError),
    409: (openai.ConflictError, langchain.ModelAPIError),
    413: (openai.APIStatusError, langchain.ModelInvalidRequestError),
    422: (openai.UnprocessableEntityError, langchain.ModelInvalidRequestError),
    429: (openai.RateLimitError, langchain.ModelRateLimitError),
    503: (openai.InternalServerError, langchain.ModelAPIError),
}


class Weather(BaseModel):
    """The weather."""

    degrees: int


def assert_travels(error: BaseException) -> None:
    """Check that an error belongs to this package, and that its pickle and copies keep all its data."""
    assert isinstance(error, EmpirioLabsError)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert {n: getattr(again, n, None) for n in TELLING} == {n: getattr(error, n, None) for n in TELLING}
        assert not hasattr(again, "response")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("status", STATUSES)
def test_every_status(status: int, driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    sandbox.fail(Fault("status", status=status, code="some_code", message="Some message."))
    with pytest.raises(openai.APIStatusError) as raised:
        DRIVERS[driver](Case("x"), where, stream)
    theirs, of_langchain = STATUSES[status]
    assert isinstance(raised.value, theirs)
    assert isinstance(raised.value, of_langchain) == driver.startswith("langchain")
    assert (raised.value.status_code, raised.value.code) == (status, "some_code")
    assert "Some message." in raised.value.message
    assert_travels(raised.value)


OTHER = {
    "refused": core.ConnectionDroppedError,
    "timeout": core.NoAnswerInTimeError,
    "no JSON": core.InvalidReplyError,
    "reported": core.ReportedError,
    "argument": core.SettingsError,
    "unsendable": core.SettingsError,
    "budget": core.BudgetExceededError,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("fault", OTHER)
def test_every_other_error(fault: str, driver: str, stream: bool, sandbox: Sandbox, where: dict[str, Any]) -> None:
    case, arguments = Case("x"), dict(where)
    if fault == "refused":
        arguments["base_url"] = "http://127.0.0.1:9/v1"
    elif fault == "timeout":
        sandbox.fail(Fault("timeout", seconds=0.5))
        arguments["timeout"] = 0.1
    elif fault == "no JSON":
        sandbox.fail(Fault("html"))
    elif fault == "reported":
        sandbox.fail(Fault("error_body"))
    elif fault == "argument":
        case = Case("x", call={"temperature": 3})
    elif fault == "unsendable":
        case = Case("x", call={"extra_body": {"x": {1}}})
    with track_cost(budget_usd=0 if fault == "budget" else None), pytest.raises(EmpirioLabsError) as raised:
        DRIVERS[driver](case, arguments, stream)
    assert isinstance(raised.value, OTHER[fault])
    assert_travels(raised.value)


@pytest.mark.parametrize(
    "kind",
    [ChatEmpirioLabs, EmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsEmbedding, EmpirioLabsRerank, LlamaIndexRerank],
)
def test_wrong_use(kind: Any, where: dict[str, Any]) -> None:
    llm = kind(**where)
    for wrong in (lambda: kind("deepseek-v4-pro"), lambda: kind(modle="x"), lambda: pickle.dumps(llm.gateway)):
        with pytest.raises(EmpirioLabsError) as raised:
            wrong()
        assert_travels(raised.value)


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_structured_output_of_langchain(
    method: Any, asynchronous: bool, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    broken: Any = [{"name": "Weather", "arguments": '{"degrees": '}]
    sandbox.script(Answer(tool_calls=broken) if method == "function_calling" else Answer(content='{"degrees": '))
    asked = ChatEmpirioLabs(**where).with_structured_output(Weather, method=method)
    with pytest.raises(EmpirioLabsError) as raised:
        await asked.ainvoke("JSON, please") if asynchronous else asked.invoke("JSON, please")
    assert isinstance(raised.value, langchain.OutputParserException)
    assert "degrees" in str(raised.value.llm_output)
    assert_travels(raised.value)


async def _predict(way: str, llm: EmpirioLabs, prompt: PromptTemplate) -> Any:
    if way == "async":
        return await llm.astructured_predict(Weather, prompt)
    return (llm.structured_predict if way == "whole" else lambda *a: list(llm.stream_structured_predict(*a)))(
        Weather, prompt
    )


@pytest.mark.parametrize("answer", [Answer(content="No."), Answer(tool_calls=[{"name": "Weather", "arguments": {}}])])
@pytest.mark.parametrize("way", ["whole", "async", "stream"])
async def test_structured_output_of_llamaindex(
    answer: Answer, way: str, sandbox: Sandbox, where: dict[str, Any]
) -> None:
    sandbox.script(answer)
    with pytest.raises(EmpirioLabsError) as raised:
        await _predict(way, EmpirioLabs(**where), PromptTemplate("Weather?"))
    assert isinstance(raised.value, ValueError)
    assert_travels(raised.value)


def test_an_answer_without_a_call_in_llamaindex(where: dict[str, Any]) -> None:
    llm = EmpirioLabs(**where)
    with pytest.raises(EmpirioLabsError) as raised:
        llm.get_tool_calls_from_response(llm.chat([ChatMessage("Hello")]))
    assert isinstance(raised.value, ValueError)
    assert_travels(raised.value)


def test_every_class_has_the_base() -> None:
    found = []
    for package in (empiriolabs_core, langchain_empiriolabs, llamaindex_empiriolabs):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__") or ".sandbox" in module.name or ".probe" in module.name:
                continue
            names = vars(importlib.import_module(module.name)).values()
            found += [
                n for n in names if isinstance(n, type) and issubclass(n, Exception) and n.__module__ == module.name
            ]
    assert len(found) > 30
    assert [kind for kind in found if not issubclass(kind, EmpirioLabsError)] == []


def _fails(base_url: str, adapter: Any) -> None:
    llm = adapter(base_url=base_url, api_key="sk-empiriolabs-wrong", max_retries=0)
    llm.invoke("Hello") if adapter is ChatEmpirioLabs else llm.complete("Hello")


@pytest.mark.parametrize("adapter", [ChatEmpirioLabs, EmpirioLabs])
def test_a_process_pool(adapter: Any, sandbox: Sandbox) -> None:
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(openai.AuthenticationError) as raised:
            pool.submit(_fails, sandbox.base_url, adapter).result()
        assert (raised.value.status_code, raised.value.code) == (401, "invalid_api_key")
        # The pool makes the traceback of the other process the cause.
        assert "_fails" in str(raised.value.__cause__)
        with pytest.raises(openai.APIConnectionError):
            pool.submit(_fails, "http://127.0.0.1:9/v1", adapter).result()
        assert pool.submit(len, "abc").result() == 3


@pytest.mark.parametrize("status", [401, 404, 429])
def test_an_ingestion_pipeline_with_workers(
    status: int, sandbox: Sandbox, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, sandbox.api_key)
    sandbox.fail(*[Fault("status", status=status, code="some_code")] * 2)
    pipeline = IngestionPipeline(transformations=[EmpirioLabsEmbedding(**where)], disable_cache=True)
    with pytest.raises(openai.APIStatusError) as raised:
        pipeline.run(documents=[Document(text="Snow"), Document(text="Rain")], num_workers=2)
    assert (raised.value.status_code, raised.value.code) == (status, "some_code")
    assert isinstance(raised.value, EmpirioLabsError)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("settings", [{}, {"total_timeout": 60}], ids=["plain", "limited"])
def test_a_204_is_not_called_a_200(settings: dict[str, Any], driver: str, stream: bool, where: dict[str, Any]) -> None:
    with answering(204, {}) as server, pytest.raises(core.InvalidReplyError, match="returned 204 with an empty body"):
        DRIVERS[driver](Case("x", settings=settings), {**where, "base_url": server.base_url}, stream)
