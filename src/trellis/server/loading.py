# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while models load, beside the server's own end.

A limit passes. Or Triton waits for ever for a Python model's process that died before it said its
first word: nobody reaps such a process, so it stays in the list of the server's children as a
zombie. Or Triton gives up on a process that lives: while a model loads, its backend wants a sign of
life from each process every second (five seconds from 25.08 on), which a busy or paused machine may
be late with; then it waits for the process to end, which nobody tells it to do.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import psutil

from trellis.ipc.process_state import awaited

LOAD_TIMEOUT = 1800.0
GRACE_SECONDS = 5.0  # Triton itself reaps the process of a model that failed, and says why
GIVEN_UP_SECONDS = 5.0  # that Triton waits for the end of a process, as it does at a load's end
UNLOAD_SECONDS = 60.0  # more than a model has to end in
LOOK_SECONDS = 0.5


class Failure(NamedTuple):
    """Why a server will never be ready, and whether a new start may go well."""

    why: str
    passing: bool = False


class GivenUp:
    """Sees processes of Python models whose end Triton waits for, though they live.

    Args:
        pid: the server's process.
        seconds: that it may wait for one.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._seconds = seconds
        self._since: dict[int, float] = {}  # pid -> when Triton was first seen to wait for it

    def look(self, stubs: Mapping[int, str], now: float) -> int | None:
        """One that it waits for in vain.

        `stubs`: the processes of its Python models that live, pid -> model; `now`: in seconds of a
        clock that never goes back.
        """
        waits_for = awaited(self._pid) & stubs.keys()
        self._since = {pid: self._since.get(pid, now) for pid in waits_for}
        late = (pid for pid, since in self._since.items() if now - since >= self._seconds)
        return next(late, None)


class Loading:
    """Watches the load of one server: `failure` says what makes waiting vain.

    Args:
        pid: the server's process.
        stubs: the processes of its Python models, pid -> model.
        limit: seconds that loading may take; 0 for no limit.
    """

    def __init__(self, pid: int, stubs: Callable[[], Mapping[int, str]], limit: float) -> None:
        self._pid = pid
        self._stubs = stubs
        self._limit = limit
        self._begin = self._looked = time.monotonic()
        self._names: dict[int, str] = {}
        self._dead: dict[int, float] = {}  # pid -> when it was first seen dead
        self._given_up = GivenUp(pid, GIVEN_UP_SECONDS)

    def failure(self) -> Failure | None:
        """Why the server will never be ready, None as long as it may be."""
        now = time.monotonic()
        if self._limit and now - self._begin > self._limit:
            return Failure(f"{self._limit:g} s (--load_timeout) passed")
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        stubs = self._stubs()
        self._names.update(stubs)
        zombies = self._zombies()
        for pid in zombies:
            if now - self._dead.setdefault(pid, now) > GRACE_SECONDS:
                name = self._names.get(pid, "a Python model, in its first moment,")
                return Failure(f"the process of {name} died (pid {pid})")
        alive = {pid: name for pid, name in stubs.items() if pid not in zombies}
        late = self._given_up.look(alive, now)
        if late is None:
            return None
        return Failure(
            f"Triton gave up on the process of {stubs[late]} (pid {late}), which was late with a"
            " sign of life while it loaded",
            passing=True,
        )

    def _zombies(self) -> list[int]:
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._pid).children():
                with contextlib.suppress(psutil.Error):
                    if child.status() == psutil.STATUS_ZOMBIE:
                        found.append(child.pid)
        return found
