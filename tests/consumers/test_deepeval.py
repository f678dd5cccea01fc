"""DeepEval, through its class for models of one's own, over either adapter."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consumers import kit

metrics = kit("deepeval.metrics")
models = kit("deepeval.models")
test_cases = kit("deepeval.test_case")

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs
from llamaindex_empiriolabs import EmpirioLabs

pytestmark = pytest.mark.usefixtures("loop_to_close")

QUESTION, ANSWER = "What is the generator named?", "It is named Gertrude. Snow is white."
PROMPT = PromptTemplate("{said}")


class LangChainJudge(models.DeepEvalBaseLLM):  # type: ignore[misc, name-defined]
    def __init__(self, llm: ChatEmpirioLabs) -> None:
        self.llm = llm
        super().__init__(llm.model)

    def load_model(self) -> ChatEmpirioLabs:
        return self.llm

    def get_model_name(self) -> str:
        return self.llm.model

    def generate(self, prompt: str, schema: Any = None) -> Any:
        if schema is None:
            return self.llm.invoke(prompt).text
        return self.llm.with_structured_output(schema).invoke(prompt)

    async def a_generate(self, prompt: str, schema: Any = None) -> Any:
        if schema is None:
            return (await self.llm.ainvoke(prompt)).text
        return await self.llm.with_structured_output(schema).ainvoke(prompt)


class LlamaIndexJudge(LangChainJudge):
    llm: Any

    def generate(self, prompt: str, schema: Any = None) -> Any:
        if schema is None:
            return self.llm.chat([ChatMessage(prompt)]).message.content
        return self.llm.structured_predict(schema, PROMPT, said=prompt)

    async def a_generate(self, prompt: str, schema: Any = None) -> Any:
        if schema is None:
            return (await self.llm.achat([ChatMessage(prompt)])).message.content
        return await self.llm.astructured_predict(schema, PROMPT, said=prompt)


@pytest.fixture(params=[(LangChainJudge, ChatEmpirioLabs), (LlamaIndexJudge, EmpirioLabs)], ids=["langchain", "llama"])
def judge(request: pytest.FixtureRequest, where: dict[str, Any]) -> Any:
    made, adapter = request.param
    return made(adapter(**where))


def makes(schema: str, **values: Any) -> Answer:
    return Answer(None, tool_calls=[{"name": schema, "arguments": values}])


def measure(metric: Any) -> Any:
    metric.measure(test_cases.LLMTestCase(input=QUESTION, actual_output=ANSWER), _show_indicator=False)
    return metric


@pytest.mark.parametrize("async_mode", [False, True])
def test_relevancy(judge: Any, sandbox: Sandbox, async_mode: bool) -> None:
    sandbox.script(
        makes("Statements", statements=["It is named Gertrude.", "Snow is white."]),
        makes("Verdicts", verdicts=[{"verdict": "yes"}, {"verdict": "no", "reason": "Not asked."}]),
        makes("AnswerRelevancyScoreReason", reason="Half of it was not asked."),
    )
    metric = measure(metrics.AnswerRelevancyMetric(threshold=0.7, model=judge, async_mode=async_mode))
    assert (metric.score, metric.success, metric.reason) == (0.5, False, "Half of it was not asked.")
    assert QUESTION in str(sandbox.requests[1].body["messages"])
    assert [request.body["enable_thinking"] for request in sandbox.requests] == [False] * 3


def test_criteria_of_ones_own(judge: Any, sandbox: Sandbox) -> None:
    sandbox.script(makes("Steps", steps=["Look for a name."]), makes("ReasonScore", reason="There is one.", score=8))
    seen = [test_cases.SingleTurnParams.ACTUAL_OUTPUT]
    metric = measure(metrics.GEval(name="Named", criteria="Is it named?", evaluation_params=seen, model=judge))
    assert (metric.score, metric.reason) == (0.8, "There is one.")
    assert "Look for a name." in str(sandbox.requests[1].body["messages"])


def test_plain_text(judge: Any) -> None:
    assert judge.generate("Hello").startswith("You said: Hello")
