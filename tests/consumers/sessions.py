"""An agent whose sessions lie in a file. Run as a script, it goes on with one: sessions.py FILE THREAD SAYING."""

from __future__ import annotations

import sys
from typing import Any

from langchain.agents import create_agent
from langgraph.checkpoint.sqlite import SqliteSaver

from langchain_empiriolabs import ChatEmpirioLabs
from tests.langchain.tools import get_weather


def agent(llm: ChatEmpirioLabs, saver: Any, **options: Any) -> Any:
    return create_agent(llm, [get_weather], checkpointer=saver, **options)


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


if __name__ == "__main__":
    file, name, saying = sys.argv[1:]
    with SqliteSaver.from_conn_string(file) as saver:
        state = agent(ChatEmpirioLabs(), saver).invoke({"messages": saying}, thread(name))
    print(*[message.type for message in state["messages"]])
