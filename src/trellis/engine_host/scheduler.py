# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns the engine: admits requests, steps, hands out what each step made."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from trellis.contract import metrics as named
from trellis.contract.metrics import Metric
from trellis.contract.model_names import ENSEMBLE
from trellis.engine_host.answers import INTERNAL, INVALID, UNAVAILABLE, Answer, Outlet
from trellis.engine_host.engines.engine import (
    MAX_FAILED_STEPS,
    Engine,
    Failure,
    Figures,
    Progress,
    Sampling,
)
from trellis.engine_host.queue import RequestQueue
from trellis.engine_host.senders import Senders
from trellis.engine_host.stream_watch import StreamWatch
from trellis.errors import one_line
from trellis.ipc.heartbeats import Heartbeat, heartbeats

WAKE = "wake"
IDLE_SECONDS = 1.0  # between heartbeats while there is nothing to do

log = logging.getLogger("trellis.scheduler")


class Admission(NamedTuple):
    """One row of a request on its way into the engine."""

    key: int
    ids: np.ndarray  # [n] int64
    sampling: Sampling
    answer: Answer
    row: int


class Ending(NamedTuple):
    """Answers that are to end before the next step: those that `which` is true of."""

    which: Callable[[Answer], bool]
    properly: bool  # with what they have, as cancelled; else with an error


class Scheduler:
    """Runs an engine on a thread of its own. `submit` and `cancel` may come from any thread."""

    def __init__(
        self,
        load: Callable[[], Engine],
        senders: Senders,
        line: RequestQueue[Admission],
        model: str = ENSEMBLE,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """`model`: the ensemble's, whose streams these are. `heartbeat`: of this process."""
        self._senders = senders
        self._heartbeat = heartbeat or heartbeats().row(0)
        self.events = 0  # that the engine made; while something runs, this changes
        self._line = line
        self._watch = StreamWatch(model)
        # An answer to cancel, several to end, WAKE for something in the line, None for the end.
        self._inbox: queue.SimpleQueue[Answer | Ending | str | None] = queue.SimpleQueue()
        self._running: dict[int, Admission] = {}
        self._wake: Callable[[], None] = lambda: None  # the engine's, if it has one
        self._failed_steps = 0
        self._outlets: set[Outlet] = set()  # that have something to send
        self.steps = 0  # that made something
        self.cancelled = 0  # answers that ended because their client wished or left
        self._loaded: queue.SimpleQueue[Engine | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(load,), name="step-loop")
        self._thread.daemon = True
        self._thread.start()
        outcome = self._loaded.get()
        if isinstance(outcome, BaseException):
            raise outcome
        self.engine = outcome

    def submit(self, rows: list[Admission]) -> None:
        """Queue the rows of one request; they enter the engine between the same two steps.

        Raises Overloaded if too many wait already.
        """
        rows[0].answer.submitted = time.monotonic()
        self._line.put(rows, len(self._running))
        self._tell(WAKE)

    def cancel(self, answer: Answer) -> None:
        """Drop every row of an answer that nobody waits for."""
        self._tell(answer)

    def stop_where(self, which: Callable[[Answer], bool]) -> None:
        """End answers with what was made so far: those submitted before this call."""
        self._tell(Ending(which, properly=True))

    def cancel_where(self, which: Callable[[Answer], bool]) -> None:
        """Drop answers that nobody waits for: those submitted before this call."""
        self._tell(Ending(which, properly=False))

    def answers(self) -> list[Answer]:
        """The answers in flight, waiting ones too, each once."""
        items = [*list(self._running.values()), *self._line.waiting()]
        return list({id(item.answer): item.answer for item in items}.values())

    def fail_at_once(self, message: str) -> None:
        """End all answers with an error, past the loop, which hangs. Any thread.

        The process has to end after this: the engine goes on with what it has.
        """
        answers = self.answers()
        for answer in answers:
            answer.fail(message, UNAVAILABLE)
            answer.outlet.schedule(answer)
        for outlet in {answer.outlet for answer in answers}:
            outlet.step_ended()
        self._senders.close()

    @property
    def running(self) -> bool:
        """Whether the engine has anything to do."""
        return bool(self._running)

    def figures(self) -> dict[Metric, float | None]:
        """What the metrics page shows of it and its engine; None: not known. Any thread."""
        ask = getattr(self.engine, "figures", Figures)
        said: Figures = ask()
        return {
            named.RUNNING: len(self._running),
            named.WAITING: len(self._line),
            named.STEPS: self.steps,
            named.KV_USAGE: said.kv_cache_usage,
            named.PREFIX_QUERIES: said.prefix_queries,
            named.PREFIX_HITS: said.prefix_hits,
            named.PREEMPTIONS: said.preemptions,
            named.COMPILED: said.constraints,
            named.COMPILE_TIME: said.constraint_seconds,
        }

    def close(self) -> None:
        """Stop stepping; whatever still runs ends with an error."""
        self._tell(None)
        self._thread.join(timeout=10)
        self._watch.close()

    def _tell(self, item: Answer | Ending | str | None) -> None:
        """Put it into the inbox, and have the loop look."""
        self._inbox.put(item)
        self._wake()

    def _schedule(self, answer: Answer) -> None:
        answer.outlet.schedule(answer)
        self._outlets.add(answer.outlet)

    def _send(self) -> None:
        """Have what was scheduled leave."""
        if self._outlets:
            for outlet in self._outlets:
                outlet.step_ended()
            self._outlets.clear()

    def _run(self, load: Callable[[], Engine]) -> None:
        try:
            engine = load()
            self._wake = getattr(engine, "wake", self._wake)
        except BaseException as error:  # handed to the thread that waits for the engine
            self._loaded.put(error)
            return
        self._loaded.put(engine)
        try:
            while self._admit(engine):
                self._step(engine)
                self._send()
                for answer in self._watch.after_step(self.answers):
                    self._cancel(engine, answer)
            self._fail_all(
                engine, "the model is unloaded or the server is shutting down", UNAVAILABLE
            )
            self._send()
            engine.close()
        except BaseException:
            # Nobody would step any more and every client would wait: end the process, which the
            # launcher sees and reports.
            log.exception("the scheduler failed; ending the process")
            os._exit(1)

    def _admit(self, engine: Engine) -> bool:
        """Take what waits in the inbox and in line; wait for something if the engine is idle."""
        while True:
            self._fill(engine)
            self._send()
            self._heartbeat.beat()
            self._heartbeat.work = len(self._running) + len(self._line)
            busy = engine.busy
            try:
                item = self._inbox.get(block=not busy, timeout=IDLE_SECONDS)
            except queue.Empty:
                if busy:
                    return True
                continue
            if item is None:
                return False
            if isinstance(item, Answer):
                self._cancel(engine, item)
            elif isinstance(item, Ending):
                self._end(engine, item)

    def _fill(self, engine: Engine) -> None:
        """Give the engine's free places to those who wait; end those who waited too long."""
        for late in self._line.expired():
            self._fail(engine, late.answer, str(self._line.expiry()), UNAVAILABLE)
        while rows := self._line.take(len(self._running)):
            for row in rows:
                self._add(engine, row)

    def _add(self, engine: Engine, item: Admission) -> None:
        if item.answer.dropped:
            return
        try:
            engine.add(item.key, item.ids, item.sampling)
            self._running[item.key] = item
            item.answer.queued = time.monotonic() - item.answer.submitted
        except Exception as error:
            log.error("the engine refused a request: %s", one_line(error))
            self._fail(engine, item.answer, f"the engine refused the request: {error}")

    def _step(self, engine: Engine) -> None:
        """One step; an engine that fails time after time ends the loop with its last error."""
        try:
            made = False
            for event in engine.step():
                self.events += 1
                made = True
                self._failed_steps = 0  # not after a step that made nothing: failures may alternate
                item = self._running.get(event.key)
                if item is not None:
                    self._hand_out(engine, item, event)
            self.steps += made
        except Exception as error:
            log.exception("an engine step failed")
            for item in list(self._running.values()):
                if not item.answer.dropped:
                    self._fail(engine, item.answer, f"the engine failed: {error}")
            self._failed_steps += 1
            if self._failed_steps >= MAX_FAILED_STEPS:
                self._fail_all(engine, f"the engine failed: {error}")  # those who wait, too
                self._send()
                self._senders.close()  # the errors reach their clients first
                raise

    def _hand_out(self, engine: Engine, item: Admission, event: Progress | Failure) -> None:
        """Give one sequence's news to its answer; a fault there is that answer's alone."""
        answer = item.answer
        if isinstance(event, Failure):
            self._fail(engine, answer, event.message, INVALID if event.rejected else INTERNAL)
            return
        try:
            enough = answer.feed(item.row, event)
        except Exception as error:
            log.error("an answer could not take its tokens: %s", one_line(error))
            self._fail(engine, answer, f"the answer failed: {error}")
            return
        if answer.dropped:
            self._watch.forget(answer)
            self._drop(engine, answer)
            return
        if enough:
            engine.cancel(item.key)
        if answer.rows[item.row].done:
            del self._running[item.key]
        if answer.ready:
            self._schedule(answer)

    def _drop(self, engine: Engine, answer: Answer) -> None:
        self._line.remove(answer)
        for key, item in list(self._running.items()):
            if item.answer is answer:
                engine.cancel(key)
                del self._running[key]

    def _fail(self, engine: Engine, answer: Answer, message: str, code: str = INTERNAL) -> None:
        self._watch.forget(answer)
        self._drop(engine, answer)
        answer.fail(message, code)
        self._schedule(answer)

    def _cancel(self, engine: Engine, answer: Answer) -> None:
        if not (answer.dropped or answer.done):
            self.cancelled += 1
            self._watch.forget(answer)
            self._drop(engine, answer)
            answer.leave()
            self._schedule(answer)

    def _end(self, engine: Engine, ending: Ending) -> None:
        for answer in filter(ending.which, self.answers()):
            if not ending.properly:
                self._cancel(engine, answer)
            elif not (answer.dropped or answer.done):
                self.cancelled += 1
                self._drop(engine, answer)
                answer.stop()
                self._schedule(answer)

    def _fail_all(self, engine: Engine, message: str, code: str = INTERNAL) -> None:
        for answer in self.answers():
            self._fail(engine, answer, message, code)
