# SPDX-License-Identifier: Apache-2.0
"""The page with a stand-in for the OpenAI API behind it, whose every chunk a test decides."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from support.waiting import wait_for
from trellis.gateway.page import Page
from trellis.server.ports import free_ports

MODELS = ("ensemble", "other")


class FakeOpenAI:
    """What it answers, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.thoughts: list[str] = []
        self.pieces: list[str] = []
        self.seconds = 0.0
        """Before each piece."""
        self.error: tuple[int, str] | None = None
        self.broken = ""
        """The message of an error in the stream, behind the pieces."""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.left = False
        """A client has left before its answer was complete."""

    def app(self) -> Starlette:
        """The page, and the two paths that it asks."""
        routes = [
            Route("/", Page()),
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name} for name in MODELS]})

    async def _chat(self, request: Request) -> Response:
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        if self.error:
            status, message = self.error
            return JSONResponse({"error": {"message": message}}, status)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        try:
            for thought in self.thoughts:
                yield _event({"delta": {"reasoning_content": thought}, "finish_reason": None})
            for piece in self.pieces:
                await asyncio.sleep(self.seconds)
                # Half of an event at a time, cut inside a character where there is room for it.
                event = _event({"delta": {"content": piece}, "finish_reason": None})
                middle = len(event) // 2
                yield event[:middle]
                yield event[middle:]
        except asyncio.CancelledError:
            self.left = True
            raise
        if self.broken:
            yield _data({"error": {"message": self.broken}})
            return
        yield _event({"delta": {}, "finish_reason": "stop"})
        count = len(self.pieces)
        yield _data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": count}})
        yield b"data: [DONE]\n\n"


def _event(choice: dict[str, Any]) -> bytes:
    return _data({"object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]})


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


@contextmanager
def fake_openai() -> Iterator[FakeOpenAI]:
    """A running one."""
    (port,) = free_ports(1)
    fake = FakeOpenAI(port)
    with served(fake.app(), port):
        yield fake


@contextmanager
def served(app: Starlette, port: int) -> Iterator[None]:
    """An application on a thread, which listens inside."""
    config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join()
