# SPDX-License-Identifier: Apache-2.0
"""What a client is told when Triton does not answer as it should."""

import asyncio
import socket

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.triton import CutOff, Triton, TritonLost

LIMITS = Limits(triton_seconds=0.2, answer_bytes=1000)
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2000


async def lost(answer: bytes | None, stays: bool) -> TritonLost:
    """What is raised when a server says this and goes, or `stays`; None: nobody listens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        if stays:
            await reader.read()
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        triton = Triton(port, LIMITS, asyncio.get_running_loop())
        if answer is None:
            listening.close()
            return await _raised(triton)
        async with await asyncio.start_server(serve, sock=listening):
            return await _raised(triton)


async def _raised(triton: Triton) -> TritonLost:
    with pytest.raises(TritonLost) as caught:
        await triton.ask("GET", "/v2/health/ready")
    triton.close()
    return caught.value


@pytest.mark.parametrize(
    ("answer", "stays", "status", "said"),
    [
        (None, False, 503, "the server is starting or stopping; try again"),
        (b"", False, 502, "the server closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na", False, 502, "the server closed the"),
        (b"", True, 503, "no answer in 0 s; try again later"),
        (LARGE, True, 502, "the answer has more than 1000 bytes; ask for less"),
    ],
    ids=["nobody listens", "closed", "closed within", "too late", "too large"],
)
def test_a_lost_answer_is_refused_for_what_it_is(
    answer: bytes | None, stays: bool, status: int, said: str
) -> None:
    refusal = asyncio.run(lost(answer, stays)).refusal
    assert refusal.status == status
    assert refusal.message.startswith(said)
    assert refusal.close


def test_a_stop_of_this_server_is_no_fault_of_tritons() -> None:
    refusal = CutOff("the server was stopped").refusal
    assert (refusal.status, refusal.message) == (503, "the server was stopped")
