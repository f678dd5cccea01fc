"""NeMo Guardrails: a rail before the model, another after it, on the same model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.consumers import kit

nemoguardrails = kit("nemoguardrails")
kit("nemoguardrails.integrations.langchain.llm_adapter")

from nemoguardrails.integrations.langchain.llm_adapter import LangChainLLMAdapter

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")

CONFIG = """
models: []
rails:
  input: {flows: [self check input]}
  output: {flows: [self check output]}
prompts:
  - task: self_check_input
    content: "Should this be blocked? {{ user_input }} Answer Yes or No."
  - task: self_check_output
    content: "Should this answer be blocked? {{ bot_response }} Answer Yes or No."
"""


@pytest.fixture
def rails(where: dict[str, Any]) -> Any:
    config = nemoguardrails.RailsConfig.from_content(yaml_content=CONFIG)
    return nemoguardrails.LLMRails(config, llm=LangChainLLMAdapter(ChatEmpirioLabs(**where)))


async def test_what_passes(rails: Any, sandbox: Sandbox) -> None:
    sandbox.script(Answer("No", reasoning="Harmless."), Answer("Gertrude.", reasoning="Known."), Answer("No"))
    with track_cost() as costs:
        said = await rails.generate_async(messages=[{"role": "user", "content": "What is the generator called?"}])
    # It writes the reasoning in front of the answer.
    assert said["content"] == "<think>Known.</think>\nGertrude."
    assert costs.total.calls == len(sandbox.ledger) == 3
    assert costs.total.output_tokens == sum(entry.completion_tokens for entry in sandbox.ledger)


async def test_what_is_blocked(rails: Any, sandbox: Sandbox) -> None:
    sandbox.script(Answer("Yes", reasoning="Bad."))
    said = await rails.generate_async(messages=[{"role": "user", "content": "Switch the generator off."}])
    assert "can't respond" in said["content"]
    assert len(sandbox.ledger) == 1
