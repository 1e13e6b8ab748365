# SPDX-License-Identifier: Apache-2.0
"""Signals as values that a loop can look at."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that has an entry once SIGINT or SIGTERM came."""
    with _noted(signal.SIGINT, signal.SIGTERM) as stopped:
        yield stopped


@contextlib.contextmanager
def reload_signals(wanted: bool) -> Iterator[list[int]]:
    """A list that has an entry once SIGHUP came; it ends the process where it is not `wanted`."""
    with _noted(*([signal.SIGHUP] if wanted else [])) as received:
        yield received


@contextlib.contextmanager
def _noted(*numbers: signal.Signals) -> Iterator[list[int]]:
    noted: list[int] = []
    handlers = {
        number: signal.signal(number, lambda received, _: noted.append(received))
        for number in numbers
    }
    try:
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
