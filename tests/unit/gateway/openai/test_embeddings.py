# SPDX-License-Identifier: Apache-2.0
"""Embeddings behind a stand-in for Triton: time, leaving, tokens of a key, writing."""

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trellis.gateway.access.accounts import Account
from trellis.gateway.access.key_file import KeyLimits
from trellis.gateway.limits import Limits
from trellis.gateway.openai.embeddings import Embeddings
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.refusals import JSON, Refusal
from trellis.gateway.request_body import Bodies
from trellis.gateway.sending import ALLOWANCE
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


async def no_context() -> int:
    return 0


async def asked(
    standin: Standin,
    limits: Limits | None = None,
    leaves_at: float = 60.0,
    account: Account | None = None,
    **body: Any,
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
            models=SimpleNamespace(find=find, made=lambda: made, largest_context=no_context),
        )
        scope: dict[str, Any] = {"method": "POST", "headers": [(b"content-type", JSON)]}
        try:
            with (account or Account("a", KeyLimits())).request() as allowance:
                scope[ALLOWANCE] = allowance
                await Embeddings(state)(scope, receive, send)
        finally:
            triton.close()
    return await asyncio.to_thread(json.loads, b"".join(sent))


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


def test_other_dimensions_are_found_with_the_first_batch() -> None:
    standin = Standin()
    with pytest.raises(OpenAIError, match="7 is not 2, which this model's vectors have"):
        asyncio.run(asked(standin, input=["a"] * 6, dimensions=7))
    assert standin.asked == [BATCH]


TEXT = "a" * 400  # 101 tokens, before the model has counted them


@pytest.mark.parametrize(
    ("standin", "more", "taken"),
    [
        (Standin(), {}, 6 * TOKENS),
        (Standin(fails_at=1), {}, 2 * TOKENS),
        (Standin(fails_at=0), {}, 0),
        (Standin(), {"dimensions": 7}, 2 * TOKENS),
        (Standin(seconds=0.2), {"leaves_at": 0.3}, 2 * TOKENS + 2 * 101),
    ],
    ids=["answered", "failed later", "failed at once", "other dimensions", "left"],
)
def test_a_key_pays_for_what_was_computed(
    standin: Standin, more: dict[str, Any], taken: int
) -> None:
    """However the request ends; a batch that was being computed counts as it was estimated."""
    minute = 1000
    account = Account("a", KeyLimits(tokens_per_minute=minute), lambda: 0.0)
    with contextlib.suppress(OpenAIError, ClientGone):
        asyncio.run(asked(standin, account=account, input=[TEXT] * 6, **more))
    assert account.tokens == 0
    account.reserve(minute - taken)
    with pytest.raises(Refusal) as caught:
        account.reserve(1)
    assert caught.value.status == 429


async def stood_still(work: Any) -> tuple[Any, float]:
    """What some work makes, and the longest time that the loop served nobody else, of the CPU."""
    longest, task = 0.0, asyncio.ensure_future(work)
    while not task.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - before)
    return task.result(), longest


def test_more_than_a_key_may_ever_have_is_told_of_the_input() -> None:
    standin = Standin()
    account = Account("a", KeyLimits(tokens_per_minute=3))
    with pytest.raises(OpenAIError) as caught:
        asyncio.run(asked(standin, account=account, input=["a"] * 9))
    assert (caught.value.status, caught.value.param) == (400, "input")
    assert caught.value.message.startswith("input: the request may take 9 tokens")
    assert "max_tokens" not in caught.value.message
    assert standin.asked == []


@pytest.mark.parametrize("form", ["float", "base64"])
def test_others_are_served_while_a_large_answer_is_written(form: str) -> None:
    vector = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
    standin = Standin(vector=vector.tolist())
    work = asked(standin, input=["a"] * 60, encoding_format=form)
    answer, longest = asyncio.run(stood_still(work))
    rows = [each["embedding"] for each in answer["data"]]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4").tolist() for row in rows]
    assert rows == [vector.tolist()] * 60
    assert [each["index"] for each in answer["data"]] == list(range(60))
    assert {each["object"] for each in answer["data"]} == {"embedding"}
    tokens = 60 * TOKENS
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    whole = {"object": "list", "model": MODEL, "usage": usage}
    assert {name: answer[name] for name in answer if name != "data"} == whole
    before = time.thread_time()
    json.dumps(rows)
    assert longest < (time.thread_time() - before) / 2
