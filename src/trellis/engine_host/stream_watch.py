# SPDX-License-Identifier: Apache-2.0
"""Asks `postprocessing` which streams come through, and ends those that nobody reads.

`abandoned_streams.py` judges. The scheduler asks after a step and reads the answer after a later
one: an engine may hold Python's lock for a whole step, and any other thread would be steps behind.
A thread tells `postprocessing` later which streams ended without a last chunk, so that it keeps
nothing of them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from trellis.engine_host.abandoned_streams import AbandonedStreams
from trellis.engine_host.answers import Answer
from trellis.ipc.chunk_counts import MAX_KEYS, CountsClient

ROUND_SECONDS = 0.02  # between questions
PATIENCE_SECONDS = 1.0  # for an answer
SETTLE_SECONDS = 1.0  # in which chunks that were sent before a stream was cut off come through
TELL_SECONDS = 0.2

log = logging.getLogger("trellis.stream_watch")


class StreamWatch:
    """Finds the streams of an ensemble whose client is gone."""

    def __init__(self, model: str) -> None:
        """`model`: the ensemble's, of which both ends are steps."""
        self._judge = AbandonedStreams()
        self._asking, self._telling = CountsClient(model), CountsClient(model)
        self._asked: float | None = None  # when, if an answer is awaited
        self._next = 0.0
        self._cut: deque[tuple[float, int]] = deque()  # (when, key) of streams to be forgotten
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._asking.close()
        self._telling.close()

    def forget(self, answer: Answer) -> None:
        """Have `postprocessing` forget the streams of an answer that ends without their ends."""
        now = time.monotonic()
        self._cut.extend((now, stream.key) for stream in answer.streams())

    def after_step(self, answers: Callable[[], Iterable[Answer]]) -> list[Answer]:
        """Called by the scheduler after every step: the answers that nobody reads. Never waits."""
        try:
            return self._after_step(answers)
        except Exception:  # no reason to end the scheduler
            log.exception("could not look after the streams")
            return []

    def _after_step(self, answers: Callable[[], Iterable[Answer]]) -> list[Answer]:
        now = time.monotonic()
        if now < self._next:
            return []
        dropped = self._take_answer(now) if self._asked is not None else []
        if self._asked is None:
            streams = [stream for answer in answers() for stream in answer.streams()]
            keys = self._judge.note(now, streams[: MAX_KEYS // 2])
            if streams and self._asking.ask(keys):
                self._asked = now
            self._next = now + ROUND_SECONDS
        return dropped

    def _take_answer(self, now: float) -> list[Answer]:
        counts = self._asking.answer()
        if counts is None:
            if self._asked is not None and now - self._asked > PATIENCE_SECONDS:
                self._asked = None
                self._judge.silence()
            return []
        self._asked = None
        source = (counts.epoch, counts.forgotten)
        dropped = self._judge.judge(now, counts.counts, source, idle=not counts.working)
        return [owner for owner in dropped if isinstance(owner, Answer)]

    def _run(self) -> None:
        while not self._stop.wait(TELL_SECONDS):
            if self._cut:
                self._tell()

    def _tell(self) -> None:
        """Name the streams that were cut off long enough ago."""
        now = time.monotonic()
        keys: list[int] = []
        while self._cut and now - self._cut[0][0] > SETTLE_SECONDS and len(keys) < MAX_KEYS:
            keys.append(self._cut.popleft()[1])
        if keys:
            self._telling.answer()  # empties the queue
            self._telling.ask((), drop=keys)
