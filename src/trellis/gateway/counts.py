# SPDX-License-Identifier: Apache-2.0
"""How many requests each ensemble was answered past Triton's own count of it.

Its first step, `preprocessing`, hears it, and shows it on Triton's metrics page: see its
http_counts.py.
"""

import asyncio
import contextlib
import json
import socket
from collections import Counter, defaultdict

from trellis.ipc.sockets import HTTP_COUNTS, model_address

TELL_SECONDS = 1.0


class Counts:
    """Gathers counts, and tells them once a second until somebody takes them."""

    def __init__(self, server_pid: int, loop: asyncio.AbstractEventLoop) -> None:
        """`server_pid`: of the process tritonserver."""
        self.server_pid = server_pid
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._loop = loop
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by who hears them
        self._timer: asyncio.TimerHandle | None = None

    def add(self, listener: str, model: str) -> None:
        """A request was answered past this model; `listener`: the first step of its ensemble."""
        self._counts[listener][model] += 1
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
        for listener, counts in list(self._counts.items()):
            address = model_address(HTTP_COUNTS, listener, self.server_pid)
            with contextlib.suppress(OSError):  # nobody is there, or it is behind: next time
                self._socket.sendto(json.dumps(counts).encode(), address)
                del self._counts[listener]
