"""An application of the built distributions: `make release` runs it in an environment of their own, and mypy reads it.

That environment has `llama-index-llms-openai` too, which shares the namespace package `llama_index.llms`.
"""

from llama_index.llms.empiriolabs import EmpirioLabs
from llama_index.llms.openai import OpenAI

import llamaindex_empiriolabs
from empiriolabs_core.sandbox import Sandbox


def main() -> None:
    """Check that both import paths give one class, beside OpenAI's, and that it answers."""
    assert EmpirioLabs is llamaindex_empiriolabs.EmpirioLabs
    assert OpenAI.class_name() != EmpirioLabs.class_name()
    with Sandbox() as sandbox:
        llm = EmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key)
        answer: str = llm.complete("Hello").text
        assert answer.startswith("You said: Hello"), answer
        assert len(sandbox.ledger) == 1
    print("llama_index.llms.empiriolabs and llamaindex_empiriolabs give the same class, and it answers.")


if __name__ == "__main__":
    main()
