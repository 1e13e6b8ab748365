# SPDX-License-Identifier: Apache-2.0
"""Threads that send responses, so that the scheduler never waits for Triton.

An answer is in the queue at most once: what its stream makes while it waits leaves with it, as one
chunk. One slow stream occupies one thread for one send, never the loop.
"""

import contextlib
import logging
import queue
import threading

from trellis.engine_host.triton_answers import TritonAnswer
from trellis.errors import one_line
from trellis.ipc.heartbeats import heartbeats

log = logging.getLogger("trellis.senders")


class Senders:
    """A small pool of sender threads."""

    def __init__(self, threads: int = 2) -> None:
        self._queue: queue.SimpleQueue[TritonAnswer | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"sender-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def schedule(self, answer: TritonAnswer) -> None:
        """Have a sender flush this answer soon; once, however often this is called until then."""
        with self._lock:
            if answer.scheduled:
                answer.again = True
                return
            answer.scheduled = True
        self._queue.put(answer)

    def step_ended(self) -> None:
        """Nothing: each answer leaves by itself."""

    def close(self) -> None:
        """Send what is queued, then end the threads."""
        self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _run(self) -> None:
        heartbeat = heartbeats().claim("a thread that sends responses to Triton")
        while (answer := self._queue.get()) is not None:
            with heartbeat.working():
                self._flush(answer)
            if self._fed_again(answer):
                self._queue.put(answer)  # behind the others: nobody waits for one busy stream
        heartbeat.release()
        self._drain()
        self._queue.put(None)  # for the next thread

    def _drain(self) -> None:
        """At the end: what stands behind the sign to stop is sent too."""
        with contextlib.suppress(queue.Empty):
            while True:
                answer = self._queue.get_nowait()
                while answer is not None:
                    self._flush(answer)
                    answer = answer if self._fed_again(answer) else None

    def _flush(self, answer: TritonAnswer) -> None:
        try:
            answer.flush()
        except Exception as error:
            log.error("a response could not be sent: %s", one_line(error))
            answer.abort(f"the response could not be sent: {error}")

    def _fed_again(self, answer: TritonAnswer) -> bool:
        with self._lock:
            answer.scheduled = answer.again
            answer.again = False
            return answer.scheduled
