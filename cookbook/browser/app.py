"""Streams answers to a browser. In this folder: uvicorn app:app, then open http://127.0.0.1:8000."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import FileResponse, StreamingResponse
from langchain_core.exceptions import ModelError
from pydantic import BaseModel

from langchain_empiriolabs import ChatEmpirioLabs

app = FastAPI()
llm = ChatEmpirioLabs(model="deepseek-v4-flash")


class Message(BaseModel):
    role: Literal["user", "assistant"]
    content: str


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))


@app.post("/answer")
def answer(conversation: list[Message]) -> StreamingResponse:
    said = [(message.role, message.content) for message in conversation]
    return StreamingResponse(events(said), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def events(conversation: list[tuple[str, str]]) -> AsyncIterator[str]:
    """Yield an answer as server-sent events. It is cancelled when the browser leaves, and closes the stream then."""
    end: dict[str, Any] = {"done": True}
    try:
        async with aclosing(llm.astream(conversation)) as chunks:
            async for chunk in chunks:
                if thought := chunk.additional_kwargs.get("reasoning_content"):
                    yield event(reasoning=thought)
                if chunk.text:
                    yield event(text=chunk.text)
                if chunk.usage_metadata:
                    end |= {"usage": chunk.usage_metadata, "cost_usd": chunk.response_metadata.get("cost_usd")}
    except ModelError as error:
        # The log has the details: they name addresses and limits, which are not for every browser to read.
        logging.getLogger("uvicorn.error").warning("%s: %s", type(error).__name__, error)
        end = {"error": "Ask again." if error.is_retryable else "Asking again will not help: see the server's log."}
    yield event(**end)


def event(**fields: Any) -> str:
    return f"data: {json.dumps(fields)}\n\n"
