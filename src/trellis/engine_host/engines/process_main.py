# SPDX-License-Identifier: Apache-2.0
"""The process that an engine runs in: its main loop, started by `engine_process.py`.

A thread reads what the host sends, so that the host never waits for a step to end. When the host is
gone, so is this process: the pipe breaks, and the kernel kills it should it not notice.
"""

import ctypes
import json
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from trellis.engine_host.engines.engine import (
    MAX_FAILED_STEPS,
    Engine,
    EngineSettings,
    Failure,
    Figures,
    Progress,
)
from trellis.engine_host.engines.keeper import keep
from trellis.engine_host.engines.kinds import WITH_WORKERS, LoadedEngine, load
from trellis.engine_host.engines.process_messages import (
    ADD,
    CANCEL,
    CLOSE,
    EVENTS,
    FAILED,
    READY,
    event_values,
    read_sampling,
    receive,
    send,
)
from trellis.errors import RequestError, one_line
from trellis.ipc.heartbeats import Heartbeat, heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.ipc.server_folder import use_server_folder

IDLE_SECONDS = 1.0  # between heartbeats while there is nothing to do
PR_SET_PDEATHSIG = 1
FIGURES_SECONDS = 0.25  # between two times that the host is told them

log = logging.getLogger("trellis.engine")


def main(engine_type: str, settings: str, parent: str, descriptor: str, row: str) -> None:
    """Load the engine and run it until the host closes it. Never returns.

    `row`: the number of the process's heartbeat.
    """
    _die_with(int(parent))
    if engine_type in WITH_WORKERS:
        use_server_folder()
        keep()
    heartbeat = heartbeats().row(int(row))
    heartbeat.owned()
    show_stacks_on_signal()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    pipe = Connection(int(descriptor))
    try:
        engine = _load(engine_type, json.loads(settings), pipe)
    except Exception as error:
        log.error(
            "the engine could not be loaded: %s",
            error,
            exc_info=not isinstance(error, RuntimeError),
        )
        send(pipe, FAILED, f"{error}")
        os._exit(1)
    try:
        Loop(engine, pipe, lambda: os._exit(1), heartbeat).run()
        engine.close()
    except BaseException:
        log.exception("the engine's loop failed")
        os._exit(1)
    # Not through the interpreter's end: it would look through all that torch made, for seconds.
    logging.shutdown()
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


def _load(engine_type: str, values: dict[str, Any], pipe: "Connection[Any, Any]") -> LoadedEngine:
    for name in ("path", "tokenizer"):
        values[name] = values[name] and Path(values[name])
    engine = load(engine_type, EngineSettings(**values))
    figures: Callable[[], Figures] = getattr(engine, "figures", Figures)
    send(pipe, READY, engine.facts, figures())
    return engine


class Loop:
    """Runs an engine for a host at the other end of a pipe."""

    def __init__(
        self,
        engine: Engine,
        pipe: "Connection[Any, Any]",
        host_gone: Callable[[], None],
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._engine = engine
        self._heartbeat = heartbeat or heartbeats().row(0)
        self._moves: int | None = None  # of an engine that counts what moved, when last seen
        if hasattr(engine, "allow"):
            engine.allow = self._heartbeat.allow
        self._host_gone = host_gone
        self._pipe = pipe
        # Of an engine whose `step` waits: what is new is taken at once.
        self._wake: Callable[[], None] = getattr(engine, "wake", lambda: None)
        self._figures: Callable[[], Figures] | None = getattr(engine, "figures", None)
        self._next_figures = 0.0
        self._refused: list[Failure] = []
        self._inbox: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._running: dict[int, int] = {}  # key -> sequences that did not end yet
        self._failed_steps = 0
        threading.Thread(target=self._read, name="host", daemon=True).start()

    def run(self) -> None:
        """Step until the host says to close."""
        while self._admit():
            events = [*self._refused, *self._step()]
            self._beat()
            if events:
                made = [event_values(event) for event in events]
                send(self._pipe, EVENTS, made, *self._new_figures())
            if self._failed_steps >= MAX_FAILED_STEPS:
                raise RuntimeError(f"{MAX_FAILED_STEPS} steps in a row failed")

    def _beat(self) -> None:
        """A step ended, or nothing runs: prove it, unless the library behind the step stood still.

        A step of an engine that waits for another process ends without any news, too.
        """
        moves: int | None = getattr(self._engine, "moves", None)
        if moves is None or moves != self._moves:
            self._moves = moves
            self._heartbeat.beat()

    def _new_figures(self) -> Iterable[Figures]:
        """What the engine says of itself: now and then, and once nothing runs any more."""
        now = time.monotonic()
        if self._figures is None or (self._running and now < self._next_figures):
            return ()
        self._next_figures = now + FIGURES_SECONDS
        return (self._figures(),)

    def _read(self) -> None:
        try:
            while True:
                self._inbox.put(receive(self._pipe))
                self._wake()
        except (EOFError, OSError):
            self._host_gone()

    def _admit(self) -> bool:
        """Take what the host sent; wait for something while there is nothing to do."""
        self._refused.clear()
        while True:
            busy = self._engine.busy or bool(self._refused)
            try:
                kind, *rest = self._inbox.get(block=not busy, timeout=IDLE_SECONDS)
            except queue.Empty:
                if busy:
                    return True
                self._beat()
                continue
            if kind == CLOSE:
                return False
            if kind == ADD:
                self._add(*rest)
            elif kind == CANCEL:
                self._running.pop(rest[0], None)
                self._engine.cancel(rest[0])

    def _add(self, key: int, ids: list[int], sampling: list[Any]) -> None:
        settings = read_sampling(sampling)
        try:
            self._engine.add(key, np.array(ids, np.int64), settings)
            self._running[key] = settings.sequences
        except RequestError as error:
            self._refused.append(Failure(key, str(error), rejected=True))
        except Exception as error:
            log.error("the engine refused a request: %s", one_line(error))
            self._refused.append(Failure(key, f"the engine refused the request: {error}"))

    def _step(self) -> Iterable[Progress | Failure]:
        """One step; one that fails ends all that runs, each with its error."""
        try:
            events = list(self._engine.step())
            if events:  # not after a step that made nothing: failures may alternate with those
                self._failed_steps = 0
        except Exception as error:
            log.exception("an engine step failed")
            self._failed_steps += 1
            events = [Failure(key, f"the engine failed: {error}") for key in self._running]
            for failure in events:
                self._engine.cancel(failure.key)
        for event in events:
            self._count(event)
        return events

    def _count(self, event: Progress | Failure) -> None:
        if event.key not in self._running:
            return
        self._running[event.key] -= isinstance(event, Progress) and bool(event.finish)
        if isinstance(event, Failure) or not self._running[event.key]:
            del self._running[event.key]
