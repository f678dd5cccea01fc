"""ragas, through both of its wrappers: its LangChain and LlamaIndex models and embeddings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.consumers import kit

kit("ragas")
kit("ragas.embeddings")
metrics = kit("ragas.metrics")

from ragas import EvaluationDataset, RunConfig, SingleTurnSample, evaluate
from ragas.embeddings import LangchainEmbeddingsWrapper, LlamaIndexEmbeddingsWrapper
from ragas.llms import LangchainLLMWrapper, LlamaIndexLLMWrapper

from empiriolabs_core.costs import track_cost
from empiriolabs_core.errors import SettingsError
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding

pytestmark = [
    # ragas deprecates its wrappers, and the metrics that take them, in favour of the bare OpenAI client.
    pytest.mark.filterwarnings("ignore:(LangchainLLM|LlamaIndexLLM|LangchainEmbeddings)Wrapper is:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:LlamaIndexEmbeddingsWrapper is:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Importing .* from 'ragas.metrics' is:DeprecationWarning"),
    pytest.mark.filterwarnings(r"ignore:a?evaluate\(\) is:DeprecationWarning"),
    # It never closes the file with the number that it gives to each user.
    pytest.mark.filterwarnings("ignore:unclosed file .*ragas:ResourceWarning"),
]

QUESTION = "What is the generator named?"
SAMPLE = SingleTurnSample(
    user_input=QUESTION,
    response="It is named Gertrude. It is red.",
    retrieved_contexts=["The generator is named Gertrude."],
    reference="The generator is named Gertrude.",
)
VERDICTS = [("It is named Gertrude.", 1), ("It is red.", 0)]


def says(**values: Any) -> Answer:
    return Answer(json.dumps(values), reasoning="Let me see.")


def faithful() -> list[Answer]:
    """Return the answers to the two requests of `Faithfulness`: half of what was said is in the context."""
    verdicts = [{"statement": text, "reason": "r", "verdict": verdict} for text, verdict in VERDICTS]
    return [says(statements=[text for text, _ in VERDICTS]), says(statements=verdicts)]


@pytest.fixture(params=["langchain", "llamaindex"])
def judge(request: pytest.FixtureRequest, where: dict[str, Any]) -> Any:
    if request.param == "langchain":
        return LangchainLLMWrapper(ChatEmpirioLabs(**where))
    return LlamaIndexLLMWrapper(EmpirioLabs(**where))


@pytest.fixture(params=["langchain", "llamaindex"])
def embeddings(request: pytest.FixtureRequest, where: dict[str, Any]) -> Any:
    if request.param == "langchain":
        return LangchainEmbeddingsWrapper(EmpirioLabsEmbeddings(**where))
    return LlamaIndexEmbeddingsWrapper(EmpirioLabsEmbedding(**where))


async def test_faithfulness(judge: Any, sandbox: Sandbox) -> None:
    sandbox.script(*faithful())
    assert await metrics.Faithfulness(llm=judge).single_turn_ascore(SAMPLE) == 0.5
    assert [request.body["temperature"] for request in sandbox.requests] == [0.01, 0.01]


@pytest.mark.usefixtures("loop_to_close")
def test_an_evaluation_of_a_data_set(judge: Any, sandbox: Sandbox) -> None:
    sandbox.script(*faithful(), *faithful())
    settings: Any = {"run_config": RunConfig(max_workers=1), "show_progress": False, "raise_exceptions": True}
    with track_cost() as costs:
        found = evaluate(EvaluationDataset([SAMPLE, SAMPLE]), [metrics.Faithfulness()], llm=judge, **settings)
    assert found["faithfulness"] == [0.5, 0.5]
    assert costs.total.calls == 4


async def test_relevancy_needs_model_and_embeddings(judge: Any, embeddings: Any, sandbox: Sandbox) -> None:
    sandbox.script(says(question=QUESTION, noncommittal=0))
    metric = metrics.ResponseRelevancy(llm=judge, embeddings=embeddings, strictness=1)
    assert await metric.single_turn_ascore(SAMPLE) == pytest.approx(1.0)
    assert {request.path for request in sandbox.requests} == {"/v1/chat/completions", "/v1/embeddings"}


async def test_similarity_needs_embeddings_only(embeddings: Any, sandbox: Sandbox) -> None:
    score = await metrics.SemanticSimilarity(embeddings=embeddings).single_turn_ascore(SAMPLE)
    assert 0.3 < score < 0.9
    assert {request.path for request in sandbox.requests} == {"/v1/embeddings"}


async def test_several_answers_at_once_come_one_by_one_through_langchain(
    where: dict[str, Any], sandbox: Sandbox
) -> None:
    sandbox.script(*[says(question=QUESTION, noncommittal=0)] * 3)
    judge = LangchainLLMWrapper(ChatEmpirioLabs(**where))
    metric = metrics.ResponseRelevancy(llm=judge, embeddings=LangchainEmbeddingsWrapper(EmpirioLabsEmbeddings(**where)))
    assert await metric.single_turn_ascore(SAMPLE) == pytest.approx(1.0)
    assert not any("n" in request.body for request in sandbox.requests)


async def test_several_answers_at_once_are_refused_through_llamaindex(where: dict[str, Any], sandbox: Sandbox) -> None:
    """ragas asks for n=3 although it reads one answer of LlamaIndex: three would be paid for."""
    judge = LlamaIndexLLMWrapper(EmpirioLabs(**where), run_config=RunConfig(max_retries=1))
    metric = metrics.ResponseRelevancy(llm=judge, embeddings=LlamaIndexEmbeddingsWrapper(EmpirioLabsEmbedding(**where)))
    with pytest.raises(SettingsError, match="n must be 1, got 3: a LlamaIndex response contains one answer"):
        await metric.single_turn_ascore(SAMPLE)
    assert sandbox.requests == []


async def test_the_temperature_of_ragas_stays_on_a_langchain_model(where: dict[str, Any], sandbox: Sandbox) -> None:
    """ragas sets it on the model, and sets back only what was not None: so it should be given a copy."""
    llm = ChatEmpirioLabs(**where)
    sandbox.script(*faithful(), *faithful())
    await metrics.Faithfulness(llm=LangchainLLMWrapper(llm.model_copy())).single_turn_ascore(SAMPLE)
    assert llm.temperature is None
    await metrics.Faithfulness(llm=LangchainLLMWrapper(llm)).single_turn_ascore(SAMPLE)
    assert llm.temperature == 0.01
