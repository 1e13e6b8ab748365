# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as a value that a loop can look at."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that has an entry once SIGINT or SIGTERM came."""
    stopped: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _: stopped.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
