# SPDX-License-Identifier: Apache-2.0
"""The short way of a streamed piece, and the patient one that takes over, lose nothing."""

import asyncio
from collections.abc import Callable

import pytest

from trellis.gateway.triton import ClientGone, Exchange, TritonLost

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
LAST = b"0\r\n\r\n"
PIECES = [b"data: %d\n\n" % number for number in range(20)]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Silent(asyncio.Transport):
    """What an exchange needs of a transport."""

    paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def run(play: Callable[[Exchange], None], takes: Callable[[bytes], bool]) -> list[bytes | str]:
    """What a reader gets: `takes` decides what goes the short way, the rest is sent patiently."""

    async def read() -> list[bytes | str]:
        exchange = Exchange()
        exchange.connection_made(Silent())
        got: list[bytes | str] = []
        left: list[bytes] = []

        def take(data: bytes) -> bool:
            if takes(data):
                got.append(data)
                return True
            left.append(data)
            return False

        reading = asyncio.create_task(_read_all(exchange, take, got, left))
        await asyncio.sleep(0)
        play(exchange)
        await asyncio.wait_for(reading, 5)
        return got

    return asyncio.run(read())


async def _read_all(
    exchange: Exchange,
    take: Callable[[bytes], bool],
    got: list[bytes | str],
    left: list[bytes],
) -> None:
    try:
        await exchange.head()
        while not await exchange.pass_to(take):
            await asyncio.sleep(0)  # a client that is behind
            got += left
            left.clear()
        got.append("end")
    except (TritonLost, ClientGone) as error:
        got.append(type(error).__name__)


def fed(*pieces: bytes) -> Callable[[Exchange], None]:
    """Pieces as they come, all before anybody is woken."""

    def play(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.data_received(piece)

    return play


@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_pieces_come_in_order_whoever_writes_them(every: int) -> None:
    """Every so many pieces the client is behind; what comes meanwhile waits."""
    counted = iter(range(1000))
    pieces = [HEAD, *map(chunk, PIECES), LAST]
    got = run(fed(*pieces), lambda _: next(counted) % every != every - 1)
    assert got[-1] == "end"
    assert b"".join(piece for piece in got if isinstance(piece, bytes)) == b"".join(PIECES)


def test_a_lost_connection_ends_the_short_way() -> None:
    def play(exchange: Exchange) -> None:
        fed(HEAD, chunk(PIECES[0]))(exchange)
        exchange.connection_lost(None)

    assert run(play, lambda _: True) == [PIECES[0], "TritonLost"]


def test_a_client_that_leaves_ends_the_short_way() -> None:
    def play(exchange: Exchange) -> None:
        fed(HEAD, chunk(PIECES[0]))(exchange)
        exchange.interrupt(ClientGone())

    assert run(play, lambda _: True)[-1] == "ClientGone"


def test_what_came_with_the_end_is_not_lost() -> None:
    assert run(fed(HEAD + chunk(PIECES[0]) + chunk(PIECES[1]) + LAST), lambda _: True) == [
        PIECES[0] + PIECES[1],
        "end",
    ]


def test_a_connection_whose_reader_was_interrupted_is_not_used_again() -> None:
    """A client that left at the end of its answer made the next one's request fail."""

    async def main() -> tuple[bool, bool]:
        exchange = Exchange()
        exchange.connection_made(Silent())
        exchange.data_received(HEAD + chunk(PIECES[0]) + LAST)
        before = exchange.reusable
        exchange.interrupt(ClientGone())
        return before, exchange.reusable

    assert asyncio.run(main()) == (True, False)
