"""An application on LlamaIndex, as its author types it. It is both checked and run."""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.prompts import PromptTemplate
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel, SecretStr
from typing_extensions import assert_type

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Sandbox
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding, EmpirioLabsRerank


class Person(BaseModel):
    name: str
    age: int


def spellings(url: str, key: str) -> list[EmpirioLabs]:
    return [
        EmpirioLabs(api_base=url, api_key=key, additional_kwargs={"seed": 7}, context_window=32_000),
        EmpirioLabs(base_url=url, api_key=SecretStr(key), thinking_budget=8192, stop="END"),
        EmpirioLabs(api_base=url, api_key=key, system_prompt="Be brief.", completion_to_prompt=str.strip),
    ]


def calls(llm: EmpirioLabs) -> None:
    history = [ChatMessage("Hello")]
    assert_type(llm.chat(history, reasoning_effort="low"), ChatResponse)
    for response in llm.stream_chat(history):
        assert_type(response, ChatResponse)
    assert_type(llm.complete("Hello"), CompletionResponse)
    for completion in llm.stream_complete("Hello"):
        assert_type(completion, CompletionResponse)
    assert_type(llm.structured_predict(Person, PromptTemplate("{text}"), text="Ada is 36."), Person)
    assert_type(llm.metadata, LLMMetadata)
    assert_type(llm.api_key, SecretStr | None)


async def async_calls(llm: EmpirioLabs) -> None:
    assert_type(await llm.achat([ChatMessage("Hello")]), ChatResponse)
    async for response in await llm.astream_chat([ChatMessage("Hello")]):
        assert_type(response, ChatResponse)
    assert_type(await llm.acomplete("Hello"), CompletionResponse)
    assert_type(await llm.astructured_predict(Person, PromptTemplate("{text}"), text="Ada is 36."), Person)


def retrieval(url: str, key: str) -> None:
    embedding = EmpirioLabsEmbedding(api_base=url, api_key=key, embed_batch_size=10, dimensions=256)
    assert_type(embedding.get_text_embedding("Hello"), list[float])
    rerank = EmpirioLabsRerank(base_url=url, api_key=key, top_n=1)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("Snow.", "Rain.")]
    assert_type(rerank.postprocess_nodes(nodes, query_str="Snow?"), list[NodeWithScore])


def main() -> None:
    with Sandbox() as sandbox, track_cost() as costs:
        calls(EmpirioLabs(api_base=sandbox.base_url, api_key=sandbox.api_key))
        spellings(sandbox.base_url, sandbox.api_key)
        retrieval(sandbox.base_url, sandbox.api_key)
        assert costs.total.calls
