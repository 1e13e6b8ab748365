# SPDX-License-Identifier: Apache-2.0
"""What has so long to end: its result, its error, its end in time, and cancellations."""

import asyncio

import pytest

from trellis.gateway.deadlines import within


async def fails() -> None:
    raise OSError("lost")


def test_a_result_and_an_error_come_through() -> None:
    assert asyncio.run(within(5, asyncio.sleep(0, "made"))) == "made"
    with pytest.raises(OSError, match="lost"):
        asyncio.run(within(5, fails()))


def test_what_takes_too_long_has_ended_when_that_is_said() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0.01, long()))
    assert ended == [True]


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_is_never_lost(turns: int) -> None:
    """However it falls beside the end of the work; asyncio.wait_for loses some before 3.12."""

    async def main() -> int:
        asked = 0
        gate = asyncio.Event()

        async def ask_again_and_again() -> None:
            nonlocal asked
            while asked < 50:
                gate.clear()
                await within(5, gate.wait())
                asked += 1

        task = asyncio.create_task(ask_again_and_again())
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        before = asked
        for _ in range(20):
            gate.set()
            await asyncio.sleep(0)
        assert task.cancelled()
        return asked - before

    assert asyncio.run(main()) <= 1
