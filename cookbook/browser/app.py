"""Stream answers to a browser.

In this folder, run `uvicorn app:app` and open http://127.0.0.1:8000.
"""

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
    return StreamingResponse(
        events(said),
        media_type="text/event-stream",
        headers={"cache-control": "no-store"},
    )


async def events(conversation: list[tuple[str, str]]) -> AsyncIterator[str]:
    """Yield an answer as server-sent events.

    On disconnect, the server cancels this generator, which closes the stream.
    """
    end: dict[str, Any] = {"done": True}
    try:
        async with aclosing(llm.astream(conversation)) as chunks:
            async for chunk in chunks:
                if thought := chunk.additional_kwargs.get("reasoning_content"):
                    yield event(reasoning=thought)
                if chunk.text:
                    yield event(text=chunk.text)
                if chunk.usage_metadata:
                    end |= {
                        "usage": chunk.usage_metadata,
                        "cost_usd": chunk.response_metadata.get("cost_usd"),
                    }
    except ModelError as error:
        # Log the details: they contain addresses and limits that users must not see.
        logging.getLogger("uvicorn.error").warning(
            "%s: %s", type(error).__name__, error
        )
        hopeless = "Asking again will not help: see the server's log."
        end = {"error": "Ask again." if error.is_retryable else hopeless}
    yield event(**end)


def event(**fields: Any) -> str:
    return f"data: {json.dumps(fields)}\n\n"
