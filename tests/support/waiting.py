"""Waiting for what comes soon, or not at all."""

import time
from collections.abc import Callable
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")  # absent where the kernel does not count it
BUSY = 0.5  # of the time something waited for a core


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Fail unless it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def wait_within(seconds: float, condition: Callable[[], bool]) -> None:
    """Fail unless it comes true in that time.

    Cores for which something waited more than half of that time are no measure of it; then it may
    take four times as long.
    """
    before, began = _waited(), time.monotonic()
    try:
        wait_for(condition, seconds)
    except AssertionError:
        if _waited() - before < BUSY * (time.monotonic() - began):
            raise
        wait_for(condition, 3 * seconds)


def _waited() -> float:
    """Seconds in which something waited for a core, since the machine started."""
    if not PRESSURE.exists():
        return 0.0
    some = PRESSURE.read_text().split("\n", 1)[0]
    return int(some.rpartition("total=")[2]) / 1e6
