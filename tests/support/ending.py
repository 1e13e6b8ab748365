# SPDX-License-Identifier: Apache-2.0
"""Ends servers while the next tests run: Triton takes three seconds to end, and mostly sleeps."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_POOL = ThreadPoolExecutor(4)
_ENDS: list[Future[None]] = []


def end_beside(stop: Callable[[], None]) -> None:
    """Have `stop` end a server, beside what follows."""
    _ENDS.append(_POOL.submit(stop))


def wait_for_ends() -> None:
    """Until all have ended; raises what went wrong with any."""
    for end in _ENDS:
        end.result()
