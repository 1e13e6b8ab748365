# SPDX-License-Identifier: Apache-2.0
"""How many requests each ensemble was answered past Triton's own count of it.

`preprocessing` hears it, and shows it on Triton's metrics page: see its http_counts.py.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections import Counter

TELL_SECONDS = 1.0


class Counts:
    """Gathers counts, and tells them once a second until somebody takes them."""

    def __init__(self, server_pid: int, loop: asyncio.AbstractEventLoop) -> None:
        """`server_pid`: of the process tritonserver."""
        namespace = os.stat("/proc/self/ns/pid").st_ino
        self._address = f"\0trellis.http_counts.{namespace}.{server_pid}".encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._loop = loop
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ensemble: str) -> None:
        """A request for this ensemble was answered."""
        self._counts[ensemble] += 1
        if self._timer is None:
            self._timer = self._loop.call_later(TELL_SECONDS, self._tell_again)

    def close(self) -> None:
        """Tell what is left."""
        if self._timer is not None:
            self._timer.cancel()
        self._tell()
        self._socket.close()

    def _tell_again(self) -> None:
        self._tell()
        again = bool(self._counts)
        self._timer = self._loop.call_later(TELL_SECONDS, self._tell_again) if again else None

    def _tell(self) -> None:
        if self._counts:
            with contextlib.suppress(OSError):  # nobody is there, or it is behind: next time
                self._socket.sendto(json.dumps(self._counts).encode(), self._address)
                self._counts.clear()
