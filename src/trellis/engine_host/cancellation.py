# SPDX-License-Identifier: Apache-2.0
"""Clients that went away: their requests leave the engine, their slots are free.

Asking Triton whether a request is cancelled costs a round trip between processes, so one thread
asks, for one request after another, at a bounded rate. Triton 24.10 says so only of requests that
came to this model directly; for those of an ensemble see `stream_watch.py` and
`disconnect_listener.py`.
Newer ones may say it of all: those of an ensemble are asked about too, but seldom.
"""

import logging
import threading
from collections.abc import Callable

from trellis.engine_host.scheduler import Scheduler
from trellis.engine_host.triton_answers import TritonAnswer

log = logging.getLogger("trellis.cancellation")

ROUND_SECONDS = 0.05  # how often each request is asked about, where few are in flight
MIN_GAP_SECONDS = 0.002  # never more often than this in all
SELDOM = 10  # rounds between questions about a step of an ensemble


class CancellationWatch:
    """A thread that ends the requests whose clients disconnected or cancelled."""

    def __init__(self, loop: Scheduler, report: Callable[[int, int], None]) -> None:
        """`report` gets what is in flight and what was cancelled so far, once a round."""
        self._loop = loop
        self._report = report
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellation", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        rounds = 0
        while not self._stop.is_set():
            rounds += 1
            in_flight = self._loop.answers()
            self._say(len(in_flight))
            answers = [a for a in in_flight if isinstance(a, TritonAnswer)]
            asked = [
                a for a in answers if rounds % SELDOM == 0 or not (a.ensemble_step or a.client)
            ]
            gap = max(ROUND_SECONDS / (len(asked) or 1), MIN_GAP_SECONDS)
            for answer in asked:
                if self._gone(answer):
                    self._loop.cancel(answer)
                if self._stop.wait(gap):
                    return
            if not asked:
                self._stop.wait(ROUND_SECONDS)

    def _gone(self, answer: TritonAnswer) -> bool:
        try:
            return answer.cancelled()
        except Exception:
            log.exception("could not ask whether a request is cancelled")
            return False

    def _say(self, in_flight: int) -> None:
        try:
            self._report(in_flight, self._loop.cancelled)
        except Exception:
            log.exception("could not report what is in flight")
