# SPDX-License-Identifier: Apache-2.0
"""Waiting for what has so long to end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Made = TypeVar("Made")


async def within(seconds: float, work: Coroutine[Any, Any, Made]) -> Made:
    """What some work makes. Raises asyncio.TimeoutError after so long, when it is cancelled.

    As asyncio.wait_for, which before Python 3.12 loses a cancellation that comes just as the work
    has ended: who asks again and again is then not to be stopped.

    >>> asyncio.run(within(1, asyncio.sleep(0, "made")))
    'made'
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))  # what it holds is given back
        if not task.cancelled():
            task.exception()  # nobody else may ask for it
