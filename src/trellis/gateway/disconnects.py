# SPDX-License-Identifier: Apache-2.0
"""Which clients are gone, told to the engine host until it has stopped what they asked for.

A datagram may find a full queue, nobody who listens yet, or a host that is about to be replaced.
So it is sent again for as long as the answer that it is to end goes on: see
`abandoned_responses.py`, which bounds that. What the engine host has heard of ends
within moments, and is told once.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from trellis.gateway.abandoned_responses import AbandonedResponses
from trellis.ipc.disconnects import DisconnectSender

AGAIN_SECONDS = 1.0
TOKENS_AT_ONCE = 256  # in one datagram of at most 8,192 bytes


class DisconnectNotices:
    """Tells on a thread, which may have to wait for the engine host."""

    def __init__(
        self, server_pid: int, drains: AbandonedResponses, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`server_pid`: of the process tritonserver."""
        self._drains = drains
        self._loop = loop
        self._host = DisconnectSender(server_pid)
        self._thread = ThreadPoolExecutor(1, "gone")
        self._tokens: list[str] = []  # to be told next
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None  # one for all

    def add(self, token: str) -> None:
        """The client of this token is gone."""
        self._tokens.append(token)
        if len(self._tokens) == 1:
            self._loop.call_soon(self._tell)

    def close(self) -> None:
        """Tell what is left, then end the thread."""
        if self._timer is not None:
            self._timer.cancel()
        tokens, self._tokens = self._tokens, []
        self._thread.submit(self._send, tokens)
        self._thread.shutdown()
        self._host.close()

    def _tell(self) -> None:
        """One job at a time: what comes while a host is behind gathers, and goes at once."""
        if self._telling or not self._tokens:
            return
        tokens, self._tokens = self._tokens, []
        self._telling = True
        job = self._loop.run_in_executor(self._thread, self._send, tokens)
        job.add_done_callback(self._told)
        if self._timer is None:
            self._timer = self._loop.call_later(AGAIN_SECONDS, self._tell_again)

    def _told(self, _: asyncio.Future[None]) -> None:
        self._telling = False
        self._tell()

    def _tell_again(self) -> None:
        self._timer = None
        self._tokens = list(dict.fromkeys([*self._tokens, *self._drains.tokens()]))
        self._tell()

    def _send(self, tokens: list[str]) -> None:
        for start in range(0, len(tokens), TOKENS_AT_ONCE):
            self._host.tell(*tokens[start : start + TOKENS_AT_ONCE])
