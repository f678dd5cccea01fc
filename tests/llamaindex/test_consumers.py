"""LlamaIndex's engines, agents and memories end to end: against the strict sandbox, and once the local model."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import CondensePlusContextChatEngine, SimpleChatEngine
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.selectors import LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import QueryEngineTool

from empiriolabs_core.sandbox import Answer, Sandbox
from llamaindex_empiriolabs import EmpirioLabs
from tests.llamaindex.conformance import Person, get_time, get_weather

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)


@pytest.fixture
def llm(where: dict[str, Any]) -> EmpirioLabs:
    return EmpirioLabs(**where)


@pytest.fixture
def index() -> SummaryIndex:
    return SummaryIndex.from_documents([Document(text="The generator is named Gertrude."), Document(text="Snow.")])


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "refine"])
def test_query_engine(llm: EmpirioLabs, index: SummaryIndex, mode: Any, sandbox: Sandbox) -> None:
    response = index.as_query_engine(llm=llm, response_mode=mode).query("Name?")
    assert "Gertrude" in str(sandbox.requests[0].body)
    assert str(response)
    streaming: Any = index.as_query_engine(llm=llm, streaming=True, response_mode=mode).query("Name?")
    assert "".join(streaming.response_gen) == str(response)


async def test_async_query_engine(llm: EmpirioLabs, index: SummaryIndex) -> None:
    assert str(await index.as_query_engine(llm=llm).aquery("Name?"))


@pytest.mark.parametrize("selector", [LLMSingleSelector, PydanticSingleSelector])
def test_router(llm: EmpirioLabs, index: SummaryIndex, sandbox: Sandbox, selector: Any) -> None:
    tools = [
        QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name=name, description=f"About {name}.")
        for name in ("power", "water")
    ]
    chosen = Answer('[{"choice": 2, "reason": "r"}]')
    if selector is PydanticSingleSelector:
        chosen = Answer(None, tool_calls=[call("SingleSelection", index=2, reason="r")])
    sandbox.script(chosen)
    response = RouterQueryEngine.from_defaults(tools, llm=llm, selector=selector.from_defaults(llm=llm)).query("Name?")
    assert response.metadata is not None
    assert response.metadata["selector_result"].ind == 1


def test_chat_engine(llm: EmpirioLabs, index: SummaryIndex, sandbox: Sandbox) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    engine = CondensePlusContextChatEngine.from_defaults(index.as_retriever(), llm=llm, memory=memory)
    first = engine.chat("What is the generator named?")
    assert str(first).startswith("You said")
    assert memory.token_limit == 750_000
    streamed = engine.stream_chat("And the snow?")
    assert "".join(streamed.response_gen)
    assert not any("tool_calls" in str(request.body["messages"]) for request in sandbox.requests)
    assert len(engine.chat_history) == 4


def test_a_chat_engine_that_streams_an_answer_with_reasoning(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(*[Answer("It is sunny.", reasoning="Hm.")] * 2)
    engine = SimpleChatEngine.from_defaults(llm=llm)
    for _ in range(2):
        assert "".join(engine.stream_chat("Weather?").response_gen) == "It is sunny."
    assert [message.content for message in engine.chat_history[1::2]] == ["It is sunny."] * 2


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
async def test_parallel_tool_calls_are_the_agents_choice(
    llm: EmpirioLabs, sandbox: Sandbox, streaming: bool, parallel: bool
) -> None:
    sandbox.script(Answer(None, tool_calls=[call("get_weather", city="Paris"), call("get_time", city="Rome")]))
    agent = FunctionAgent(
        llm=llm, tools=[get_weather, get_time], allow_parallel_tool_calls=parallel, streaming=streaming
    )
    response = await agent.run("Weather and time?")
    assert [made.tool_name for made in response.tool_calls] == ["get_weather", "get_time"][: 1 + parallel]


async def test_function_agent(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    agent = FunctionAgent(llm=llm, tools=[get_weather, get_time])
    handler = agent.run("Weather and time in Paris?")
    thoughts = [event.thinking_delta async for event in handler.stream_events() if isinstance(event, AgentStream)]
    response = await handler
    assert "".join(filter(None, thoughts)).startswith("I should call")
    assert [made.tool_name for made in response.tool_calls] == ["get_weather", "get_time"]
    assert str(response) == "The tools say: Sunny in Paris. | Noon in Paris."
    assert sandbox.requests[-1].body["messages"][-3]["reasoning_content"].startswith("I should call")


async def test_function_agent_with_structured_output(llm: EmpirioLabs) -> None:
    response = await FunctionAgent(llm=llm, tools=[get_weather], output_cls=Person).run("Describe Ada, who is 36.")
    assert response.structured_response == {"name": "Ada", "age": 36}


async def test_three_steps(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(
        Answer(None, reasoning="One.", tool_calls=[call("get_weather", city="Paris")]),
        Answer("Next.", reasoning="", tool_calls=[call("get_time", city="Paris")]),
        Answer(None, reasoning="Three.", tool_calls=[call("get_time", city="Rome")]),
    )
    response = await FunctionAgent(llm=llm, tools=[get_weather, get_time]).run("Plan.")
    assert str(response) == "The tools say: Noon in Rome."
    turns = [turn for turn in sandbox.requests[-1].body["messages"] if turn["role"] == "assistant"]
    assert [turn["reasoning_content"] for turn in turns] == ["One.", "", "Three."]


@pytest.mark.parametrize("kind", ["streaming", "not streaming", "workflow"])
async def test_an_agent_outlives_arguments_that_are_no_json(llm: EmpirioLabs, sandbox: Sandbox, kind: str) -> None:
    deleted = []

    def delete_files(pattern: str = "*", **options: Any) -> str:
        """Delete files."""
        deleted.append((pattern, options))
        return "Gone."

    broken = {"id": "a", "name": "delete_files", "arguments": '{"pattern": "*.tm'}
    whole = {"id": "b", "name": "delete_files", "arguments": '{"pattern": "*.tmp"}'}
    time = {"id": "c", "name": "get_time", "arguments": '{"city": "Rome"}'}
    sandbox.script(Answer(None, tool_calls=[broken, time]), Answer(None, tool_calls=[whole]))

    tools = [delete_files, get_time]
    agent: Any = FunctionAgent(llm=llm, tools=tools, streaming=kind == "streaming")
    if kind == "workflow":
        agent = AgentWorkflow.from_tools_or_functions(tools, llm=llm)
    assert str(await agent.run("Tidy up.")) == "The tools say: Gone."
    assert deleted == [("*.tmp", {})]
    _, turn, *told = sandbox.requests[1].body["messages"]
    assert [call["id"] for call in turn["tool_calls"]] == [result["tool_call_id"] for result in told] == ["a", "c"]
    assert turn["tool_calls"][0]["function"] == {"name": "delete_files", "arguments": '{"pattern": "*.tm'}
    assert told[0]["content"].startswith("Tool delete_files (not run: its arguments are not a JSON object: ")
    assert told[1]["content"] == "Noon in Rome."


async def test_workflow_with_hand_off(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    writer = FunctionAgent(name="writer", description="Writes.", llm=llm, tools=[get_time])
    first = FunctionAgent(
        name="first", description="Asks.", llm=llm, tools=[get_weather], can_handoff_to=["writer"], system_prompt="Ask."
    )
    sandbox.script(Answer(None, reasoning="His turn.", tool_calls=[call("handoff", to_agent="writer", reason="r")]))
    response = await AgentWorkflow(agents=[first, writer], root_agent="first").run("Time in Paris?")
    assert "writer" in response.current_agent_name
    assert str(response)


async def test_react_agent(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    sandbox.script(
        Answer('Thought: I need a tool.\nAction: get_weather\nAction Input: {"city": "Paris"}', reasoning="Hm."),
        Answer("Thought: I can answer.\nAnswer: It is sunny.", reasoning="Now I know."),
    )
    response = await ReActAgent(llm=llm, tools=[get_weather]).run("Weather?")
    assert str(response) == "It is sunny."
    assert "Sunny in Paris." in str(sandbox.requests[-1].body["messages"])


async def test_code_act_agent(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    ran: list[str] = []

    async def execute(code: str) -> str:
        ran.append(code)
        return "4"

    sandbox.script(Answer("<execute>\nprint(2 + 2)\n</execute>"), Answer("It is four."))
    response = await CodeActAgent(llm=llm, code_execute_fn=execute).run("2 + 2?")
    assert ran == ["print(2 + 2)"]
    assert str(response) == "It is four."


def test_extraction_over_documents(llm: EmpirioLabs) -> None:
    program = FunctionCallingProgram.from_defaults(Person, prompt_template_str="Who is in this: {text}", llm=llm)
    people = [program(text=text) for text in ("we met Ada, who is 36.", "we met Alan, who is 41.")]
    assert people == [Person(name="Ada", age=36), Person(name="Alan", age=41)]


def test_evaluation(llm: EmpirioLabs, index: SummaryIndex, sandbox: Sandbox) -> None:
    response = index.as_query_engine(llm=llm).query("Name?")
    sandbox.script(Answer("YES"))
    assert FaithfulnessEvaluator(llm=llm).evaluate_response(response=response).passing


async def test_memory_of_an_agent(llm: EmpirioLabs, sandbox: Sandbox) -> None:
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    agent = FunctionAgent(llm=llm, tools=[get_weather])
    await agent.run("Weather in Paris?", memory=memory)
    await agent.run("Thanks.", memory=memory)
    turns = [turn for turn in sandbox.requests[-1].body["messages"] if turn.get("tool_calls")]
    assert all(turn["reasoning_content"].startswith("I should call") for turn in turns)
    assert isinstance(memory.get()[0], ChatMessage)


@pytest.mark.real_model
async def test_the_agent_on_the_local_model() -> None:
    """A small real model decides freely, so the test asserts only the structure of the conversation."""
    with Sandbox(local_model=True) as sandbox:
        llm = EmpirioLabs(base_url=sandbox.base_url, api_key=sandbox.api_key, max_tokens=60, temperature=0.0)
        agent = FunctionAgent(llm=llm, tools=[get_weather])
        response = await agent.run("Use get_weather for the city of Paris.", max_iterations=5)
    assert [made.tool_name for made in response.tool_calls][:1] == ["get_weather"]
    assert sandbox.ledger
