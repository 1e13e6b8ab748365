# SPDX-License-Identifier: Apache-2.0
"""Sees that the engine or the scheduler hangs, answers all requests, and ends the process.

A thread looks at what both prove of themselves: the engine process that a step ended, the scheduler
that its loop turned. A prompt that has to be read first gives the engine longer, by its tokens; a
stopped process gets no more time for it. The launcher sees this process end, and ends the server.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.engine_host.scheduler import Scheduler
from trellis.ipc.heartbeats import Heartbeat, Heartbeats, heartbeats
from trellis.ipc.process_state import ask_for_stacks, describe, stopped_below
from trellis.ipc.stalls import Stall, look_seconds

# Steps that end and make nothing for anybody are seen later: reading prompts is such a time.
NO_EVENT_TIMES = 4
LAST_WORDS_SECONDS = 2.0  # for the answers to leave

log = logging.getLogger("trellis.hangs")


class HangWatch:
    """A thread of a model's process. Does nothing where no launcher gave a hang time-out."""

    def __init__(
        self,
        scheduler: Scheduler,
        heartbeat: Heartbeat,
        table: Heartbeats | None = None,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """`heartbeat`: the scheduler's."""
        self._scheduler = scheduler
        self._heartbeat = heartbeat
        self._table = table or heartbeats()
        self._limit = self._table.hang_timeout
        self._end = end
        self._engine_beats, self._scheduler_beats, self._events = Stall(), Stall(), Stall()
        self._closed = threading.Event()
        engine = scheduler.engine
        self._engine = engine if isinstance(engine, EngineProcess) else None
        self._thread = threading.Thread(target=self._run, name="hang-watch", daemon=True)
        if self._limit and self._engine is not None:
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self, now: float) -> tuple[str, int] | None:
        """What hangs, in words, and its process; None while all goes on.

        `now`: in seconds of a clock that never goes back.
        """
        engine = self._engine
        assert engine is not None
        quiet = engine.quiet_seconds
        self._heartbeat.quiet = engine.heartbeat.quiet = quiet  # the launcher reads it
        still = self._engine_beats.look(engine.heartbeat.last_beat or None, now)
        blocked = self._scheduler_beats.look(self._heartbeat.last_beat, now)
        silent = self._events.look(self._scheduler.events if self._scheduler.running else None, now)
        allowed = self._limit + engine.heartbeat.allowed
        if still >= self._limit and (still >= allowed or stopped_below(engine.pid)):
            return f"{engine.heartbeat.name} made no progress for {still:.0f} s", self._engine_pid()
        if blocked >= allowed:
            return f"the scheduler of {self._heartbeat.name} hangs for {blocked:.0f} s", os.getpid()
        if silent >= NO_EVENT_TIMES * (self._limit + engine.silent_seconds):
            return f"{engine.heartbeat.name} made no token for {silent:.0f} s", self._engine_pid()
        return None

    def _run(self) -> None:
        while not self._closed.wait(look_seconds(self._limit)):
            hang = self.look(time.monotonic())
            if hang is not None and not self._closed.is_set():
                self._give_up(*hang)

    def _give_up(self, what: str, pid: int) -> None:
        """Readiness fails first; then all that wait get an error, and this process ends."""
        stopped = stopped_below(self._engine.pid) if self._engine is not None else []
        shown = stopped[0] if stopped else pid
        why = f"{what}: pid {shown} is {describe(shown)}"
        self._table.status.hung = why
        answering = threading.Thread(
            target=self._scheduler.fail_at_once,
            args=(f"the server is ended because {why}; send the request again later",),
            daemon=True,  # a lock may be held by what hangs
        )
        answering.start()
        log.error("%s; the stacks of its threads follow, then this process ends", why)
        for each in {self._engine_pid(), os.getpid()}:
            ask_for_stacks(each)
        answering.join(LAST_WORDS_SECONDS)
        self._end(1)

    def _engine_pid(self) -> int:
        """The process that makes the steps."""
        return self._engine.heartbeat.pid if self._engine is not None else os.getpid()
