"""Asks `postprocessing` which streams come through, and ends those that nobody reads.

`dropped_streams.py` judges; here is the thread that asks. It also says which streams ended without
a last chunk, so that `postprocessing` keeps nothing of them.
"""

import contextlib
import logging
import threading
import time
from collections import deque

from answers import Answer
from chunk_counts import MAX_KEYS, CountsClient
from dropped_streams import DroppedStreams
from step_loop import StepLoop

ROUND_SECONDS = 0.025  # between questions, while streams are in flight
IDLE_SECONDS = 0.1
MOST_SHARE = 0.05  # of a core may go into questions
ANSWER_SECONDS = 0.2
SETTLE_SECONDS = 1.0  # in which chunks that were sent before a stream was cut off come through

log = logging.getLogger("trellis.stream_watch")


class StreamWatch:
    """A thread that cancels the streams of an ensemble whose client is gone."""

    def __init__(self, loop: StepLoop) -> None:
        self._loop = loop
        self._judge = DroppedStreams()
        self._client = CountsClient()
        self._cut: deque[tuple[float, int]] = deque()  # (when, key) of streams to be forgotten
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.thread_time()
            try:
                busy = self._round()
            except Exception:
                log.exception("could not look after the streams")
                busy = False
            spent = time.thread_time() - begin
            self._stop.wait(max(ROUND_SECONDS, spent / MOST_SHARE) if busy else IDLE_SECONDS)

    def _round(self) -> bool:
        """Ask once, if there is anything to ask or to say. Whether streams are in flight."""
        streams = [stream for answer in self._loop.answers() for stream in answer.streams()]
        keys = self._judge.note(time.monotonic(), streams[: MAX_KEYS // 2])
        cut = self._to_forget()
        if not (streams or cut):
            return False
        server_answers = self._server_answers()
        answer = self._client.ask(keys, ANSWER_SECONDS, drop=cut)
        if answer is None:
            self._judge.silence()
            return bool(streams)
        dropped = self._judge.judge(
            time.monotonic(),
            answer.counts,
            (answer.epoch, answer.forgotten),
            at_rest=server_answers and not answer.working,
        )
        for owner in dropped:
            if isinstance(owner, Answer):
                self._loop.cancel(owner)
        return bool(streams)

    def _server_answers(self) -> bool:
        """Whether the server reacts, asked where a stream is in doubt; waits while it does not."""
        owner = self._judge.doubtful
        if not isinstance(owner, Answer):
            return False
        with contextlib.suppress(Exception):
            if owner.cancelled():
                self._loop.cancel(owner)
            return True
        return False

    def _to_forget(self) -> list[int]:
        """Streams that were cut off long enough ago."""
        now = time.monotonic()
        while self._loop.cut_off:
            self._cut.append((now, self._loop.cut_off.popleft()))
        keys: list[int] = []
        while self._cut and now - self._cut[0][0] > SETTLE_SECONDS and len(keys) < MAX_KEYS // 2:
            keys.append(self._cut.popleft()[1])
        return keys
