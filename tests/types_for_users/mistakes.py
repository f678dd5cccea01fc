"""Mistakes that a type checker must report: just those lines that end in "# wrong", and no others."""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage, CompletionResponse

from empiriolabs_core.costs import track_cost
from empiriolabs_core.sandbox import Answer, Fault, Sandbox
from langchain_empiriolabs import ChatEmpirioLabs, EmpirioLabsEmbeddings, EmpirioLabsRerank
from llamaindex_empiriolabs import EmpirioLabs, EmpirioLabsEmbedding
from llamaindex_empiriolabs import EmpirioLabsRerank as LlamaIndexRerank

ChatEmpirioLabs(reasoning_effort="huge")  # wrong
ChatEmpirioLabs(temprature=0.5)  # wrong
ChatEmpirioLabs(max_tokens="many")  # wrong
ChatEmpirioLabs("deepseek-v4-pro")  # wrong
ChatEmpirioLabs(send_back_reasoning=True)  # wrong
EmpirioLabs(reasoning_effort="huge")  # wrong
EmpirioLabs(api_bass="http://127.0.0.1/v1")  # wrong
EmpirioLabs(thinking_budget="8k")  # wrong
EmpirioLabsEmbeddings(dimensions=1000)  # wrong
EmpirioLabsEmbedding(batchsize=10)  # wrong
EmpirioLabsRerank(top_n="all")  # wrong
LlamaIndexRerank(topn=1)  # wrong
llm = EmpirioLabs()
text: str = llm.chat([ChatMessage("Hello")])  # wrong
llm.chat("Hello")  # wrong
answer: CompletionResponse = llm.structured_predict(int, "Hello")  # wrong
number: int = ChatEmpirioLabs().invoke("Hello")  # wrong
ChatEmpirioLabs().with_structured_output(dict, method="yaml")  # wrong
Sandbox(strikt=True)  # wrong
Answer(text="Hello")  # wrong
Fault(503)  # wrong
with track_cost(budget_usd=[1]) as costs:  # wrong
    print(costs.total_eur)  # wrong
