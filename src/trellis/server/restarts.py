# SPDX-License-Identifier: Apache-2.0
"""Starts a server anew that died or hung, behind the same gateway, a number of times."""

import sys
import time
from collections.abc import Callable

from trellis.server.process import Server
from trellis.server.readiness import wait_quietly
from trellis.server.settings import LoadGivenUp, ServerFailed

STEADY_SECONDS = 600.0  # a server that ran so long begins with its restarts anew
MOST_SECONDS = 60.0  # between an end and a start
LOOK_SECONDS = 0.1
LOADS = 10  # starts in a row of a server whose load Triton gives up


class Restarts:
    """How often a server may be started anew, and how long each waits."""

    def __init__(self, most: int) -> None:
        """`most`: in a row, none of which ran for STEADY_SECONDS."""
        self.most = most
        self.count = 0

    def after(self, ran: float) -> float | None:
        """Seconds to wait before the next start, 1, 2, 4 ...; None if it is given up.

        `ran`: seconds that the server was ready.
        """
        if ran >= STEADY_SECONDS:
            self.count = 0
        if self.count >= self.most:
            return None
        self.count += 1
        return min(2.0 ** (self.count - 1), MOST_SECONDS)


def load(
    server: Server, stopping: Callable[[], bool] = lambda: False, loads: int = LOADS
) -> float | None:
    """Wait for readiness, with up to so many starts where Triton gives a load up.

    Seconds of the last load, None if asked to stop before its end. Raises ServerFailed, OSError.
    """
    for number in range(1, loads):
        try:
            return wait_quietly(server, stopping)
        except LoadGivenUp as error:
            _say(f"{error}; starting it anew ({number} of {loads - 1})")
            server.put_down()
            server.start_again()
    return wait_quietly(server, stopping)


def keep_serving(
    server: Server,
    most: int,
    stopping: Callable[[], bool],
    on_ready: Callable[[float], None],
    loads: int = LOADS,
) -> str | None:
    """Wait for readiness, then watch until asked to stop (None) or the server is given up (why).

    `most`: how often it is started anew once it was ready; `loads`: how often it is started where
    Triton gives its load up. Raises ServerFailed if it was never ready.
    """
    restarts = Restarts(most)
    seconds = load(server, stopping, loads)
    while True:
        if seconds is not None:
            on_ready(seconds)
        begin = time.monotonic()
        why = server.watch(stopping)
        ran = time.monotonic() - begin
        while why is not None:
            delay = None if stopping() else restarts.after(ran)
            if delay is None:
                return why
            _say(f"{why}; starting it anew in {delay:g} s ({restarts.count} of {most})")
            server.put_down()
            if _stopped_in(delay, stopping):
                return None
            ran = 0.0
            try:
                server.start_again()
                seconds, why = load(server, stopping, loads), None
            except (ServerFailed, OSError) as error:
                why = str(error)
        if stopping():
            return None


def _stopped_in(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait; whether it was asked to stop meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopping():
        time.sleep(LOOK_SECONDS)
    return stopping()


def _say(text: str) -> None:
    print(f"launch_triton_server: {text}", file=sys.stderr, flush=True)
