"""An application on LangChain, as its author types it. It is both checked and run."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr
from typing_extensions import assert_type

from empiriolabs_core.catalog import ModelCard
from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from empiriolabs_core.settings import ReasoningEffort
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank


class Person(BaseModel):
    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"Sunny in {city}."


def spellings(url: str, key: str) -> list[ChatEmpirioLabs]:
    return [
        ChatEmpirioLabs(base_url=url, api_key=key, timeout=30, max_retries=0, stop="END", streaming=True),
        ChatEmpirioLabs(empiriolabs_api_base=url, empiriolabs_api_key=SecretStr(key), stop=["END"], tags=["t"]),
        ChatEmpirioLabs(api_base=url, api_key=key, request_timeout=30.0, model_name="deepseek-v4-pro"),
        ChatEmpirioLabs(base_url=url, api_key=key, model_kwargs={"seed": 7}, extra_body={"new": True}),
        ChatEmpirioLabs(base_url=url, api_key=key, max_tokens=100, temperature=0, web_search_linkup=True),
    ]


def calls(llm: ChatEmpirioLabs) -> None:
    answer = llm.invoke("Hello", temperature=0.5)
    assert_type(answer, AIMessage)
    for chunk in llm.stream("Hello", reasoning_effort="low"):
        assert_type(chunk, AIMessageChunk)
    assert_type(llm.bind_tools([get_weather], tool_choice="auto").invoke("Weather in Paris?"), AIMessage)
    person: Person = llm.with_structured_output(Person).invoke("Ada is 36.")
    assert person.age == 36
    assert_type(llm.batch(["Hello"]), list[AIMessage])
    assert_type(llm.reasoning_effort, ReasoningEffort | None)
    assert_type(llm.api_key, SecretStr | None)
    assert_type(llm.stop, list[str] | None)
    assert_type(llm.card, ModelCard | None)


async def async_calls(llm: ChatEmpirioLabs) -> None:
    assert_type(await llm.ainvoke("Hello"), AIMessage)
    async for chunk in llm.astream("Hello"):
        assert_type(chunk, AIMessageChunk)


def retrieval(url: str, key: str) -> None:
    embeddings = EmpirioLabsEmbeddings(api_base=url, api_key=key, dimensions=256, chunk_size=10)
    assert_type(embeddings.embed_query("Hello"), list[float])
    rerank = EmpirioLabsRerank(base_url=url, api_key=key, top_n=1)
    assert len(rerank.compress_documents([Document("Snow."), Document("Rain.")], "Snow?")) == 1


def main() -> None:
    with Sandbox() as sandbox, track_cost(budget_usd="0.50") as costs:
        sandbox.script(Answer("Blue.", reasoning="Skies are blue."))
        sandbox.fail(Fault("status", status=503, headers={"retry-after-ms": "1"}))
        llm = ChatEmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key)
        calls(llm)
        spellings(sandbox.base_url, sandbox.api_key)
        retrieval(sandbox.base_url, sandbox.api_key)
        bodies: list[Any] = [request.body for request in sandbox.requests]
        assert bodies
        assert_type(costs.total_usd, Decimal)
        assert_type(sandbox.ledger[0].prompt_tokens, int)
