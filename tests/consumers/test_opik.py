"""Opik's judges, through its class for LangChain's models. They pass a Pydantic class as `response_format`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.consumers import kit

metrics = kit("opik.evaluation.metrics")
models = kit("opik.evaluation.models.langchain.langchain_chat_model")

from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")


@pytest.mark.parametrize("how", ["score", "ascore"])
async def test_a_judge(where: dict[str, Any], sandbox: Sandbox, how: str) -> None:
    judge = models.LangchainChatModel(ChatEmpirioLabs(**where), track=False)
    metric = metrics.AnswerRelevance(model=judge, track=False, require_context=False)
    verdict = {"answer_relevance_score": 0.75, "reason": "It names it."}
    sandbox.script(Answer(json.dumps(verdict), reasoning="Look."))
    result = getattr(metric, how)(input="What is the generator called?", output="Gertrude.")
    result = await result if how == "ascore" else result
    assert (result.value, result.reason) == (0.75, "It names it.")
    sent = sandbox.requests[-1].body["response_format"]
    assert sent["type"] in ("json_schema", "json_object")
    assert len(sandbox.ledger) == 1
