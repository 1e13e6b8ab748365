# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while models load, beside the server's own end: a limit, and dead processes.

Triton waits for ever for a Python model's process that died before it said its first word. Nobody
reaps such a process, so it stays in the list of the server's children as a zombie.
"""

import contextlib
import time
from collections.abc import Callable, Mapping

import psutil

LOAD_TIMEOUT = 1800.0
GRACE_SECONDS = 5.0  # Triton itself reaps the process of a model that failed, and says why
LOOK_SECONDS = 0.5


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

    def failure(self) -> str | None:
        """Why the server will never be ready, None as long as it may be."""
        now = time.monotonic()
        if self._limit and now - self._begin > self._limit:
            return f"{self._limit:g} s (--load_timeout) passed"
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        self._names.update(self._stubs())
        for pid in self._zombies():
            if now - self._dead.setdefault(pid, now) > GRACE_SECONDS:
                name = self._names.get(pid, "a Python model, in its first moment,")
                return f"the process of {name} died (pid {pid})"
        return None

    def _zombies(self) -> list[int]:
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._pid).children():
                with contextlib.suppress(psutil.Error):
                    if child.status() == psutil.STATUS_ZOMBIE:
                        found.append(child.pid)
        return found
