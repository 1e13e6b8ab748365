# SPDX-License-Identifier: Apache-2.0
"""Embeddings behind a stand-in for Triton: time, leaving, tokens of a key, writing."""

import asyncio
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.openai.embeddings import Embeddings
from trellis.gateway.refusals import JSON
from trellis.gateway.request_body import Bodies
from trellis.gateway.triton import ClientGone, Triton

MODEL, BATCH = "embed", 2
TOKENS = 3  # of each text


@dataclass
class Standin:
    """A Triton with one model; its answers to batches come after `seconds` each."""

    seconds: float = 0.0
    vector: list[float] = field(default_factory=lambda: [0.5, -0.25])
    fails_at: int = -1  # the batch that it rejects
    asked: list[int] = field(default_factory=list)  # texts of each batch
    answered: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                count = body["inputs"][0]["shape"][0]
                self.asked.append(count)
                await asyncio.sleep(self.seconds)
                status, made = self._reply(count)
                sent = json.dumps(made).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(sent)))
                writer.write(sent)
                self.answered += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _reply(self, count: int) -> tuple[int, dict[str, Any]]:
        if len(self.asked) - 1 == self.fails_at:
            return 400, {"error": "text_input: 99 tokens do not fit"}
        shape = [count, len(self.vector)]
        outputs = [
            {"name": "embedding", "shape": shape, "data": self.vector * count},
            {"name": "num_input_tokens", "shape": [count, 1], "data": [TOKENS] * count},
        ]
        return 200, {"outputs": outputs}


async def asked(
    standin: Standin, limits: Limits | None = None, leaves_at: float = 60.0, **body: Any
) -> Any:
    """What an answer is to a client that leaves then. Raises OpenAIError, ClientGone."""
    limits = limits or Limits()
    sent: list[Any] = []

    async def find(_: str) -> Any:
        return SimpleNamespace(batch=BATCH)

    async def receive() -> Any:
        if not sent:
            sent.append(b"")
            made = json.dumps({"model": MODEL, **body}).encode()
            return {"type": "http.request", "body": made}
        await asyncio.sleep(leaves_at)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async with await asyncio.start_server(standin.serve, "127.0.0.1") as server:
        triton = Triton(server.sockets[0].getsockname()[1], limits, asyncio.get_running_loop())
        made = {MODEL: SimpleNamespace(embeds=True)}
        state: Any = SimpleNamespace(
            bodies=Bodies(1 << 20),
            limits=limits,
            triton=triton,
            models=SimpleNamespace(find=find, made=lambda: made),
        )
        scope = {"method": "POST", "headers": [(b"content-type", JSON)]}
        try:
            await Embeddings(state)(scope, receive, send)
        finally:
            triton.close()
    return json.loads(b"".join(sent))


def test_a_batch_may_take_as_long_as_a_request() -> None:
    limits = Limits(triton_seconds=0.1)
    answer = asyncio.run(asked(Standin(seconds=0.4), limits, input=["a"] * 3))
    assert [each["embedding"] for each in answer["data"]] == [[0.5, -0.25]] * 3
    assert answer["usage"]["prompt_tokens"] == 3 * TOKENS


def test_nothing_more_is_asked_for_a_client_that_left() -> None:
    standin = Standin(seconds=0.2)
    with pytest.raises(ClientGone):
        asyncio.run(asked(standin, leaves_at=0.3, input=["a"] * 6))
    assert standin.asked == [BATCH] * 2
    assert standin.answered == 1
