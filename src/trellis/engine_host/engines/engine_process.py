# SPDX-License-Identifier: Apache-2.0
"""An engine in a process of its own: this side of it, in Triton's.

In one process the engine shares Python's lock with the threads that send its responses and take
new requests. OpenVINO's `step` keeps the lock for as long as it takes, and all else waited for it.
Here it has an interpreter to itself: it steps on by itself, and sends what each step made as one
message.

The engine's process never outlives this one. If it dies, whatever runs in it ends with an error,
and then this process ends too, which the launcher sees and reports.
"""

import contextlib
import dataclasses
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from trellis.engine_host.engines.engine import (
    EngineSettings,
    Failure,
    Figures,
    Progress,
    Sampling,
)
from trellis.engine_host.engines.kinds import limits
from trellis.engine_host.engines.process_messages import (
    ADD,
    CANCEL,
    CLOSE,
    EVENTS,
    FAILED,
    read_event,
    receive,
    sampling_values,
    send,
)
from trellis.errors import TrellisError
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.stalls import PROMPT_TOKENS
from trellis.tokenizers.interpreter import find_python

log = logging.getLogger("trellis.engine_process")

# Isolated (-I): no file of the working folder is taken for a library.
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from trellis.engine_host.engines.process_main import main; main(*sys.argv[2:])"
)
WAIT_MILLISECONDS = 200  # for a step to end, unless `wake` comes first
WAKES = 4096  # calls of `wake` that one step answers
CLOSE_SECONDS = 3.0  # of the 5 that a server has to end in
BEAM_TOKENS = 10.0  # that the slowest engine searches in a second, which it tells at the end alone
LAST_WORDS_SECONDS = 1.0  # for the scheduler to tell the clients


class EngineDied(TrellisError, RuntimeError):
    """The engine's process ended by itself."""


class EngineProcess:
    """An Engine that passes everything on to the one in the other process."""

    def __init__(self, engine_type: str, settings: EngineSettings, name: str = "") -> None:
        """Start it and wait until it is loaded. Raises RuntimeError with what kept it from that.

        `name`: whose engine it is, as the log says it.
        """
        self._running: dict[int, int] = {}  # key -> sequences that did not end yet
        self._unbegun: dict[int, tuple[int, float]] = {}  # key -> prompt's tokens, seconds of beams
        self.silent_seconds = 0.0  # that the engine may take before anything comes of those
        self._figures = Figures()  # told last
        self._closing = False
        table = heartbeats()
        row = table.claim_number(f"the engine process {name}".strip(), True, True)
        self.heartbeat = table.row(row)  # the other process's
        self._process, self._pipe = _start(engine_type, settings, row)
        facts = self._wait_ready()
        # The most tokens of prompts that one step reads; 0: no step is seen that makes nothing.
        self._step_tokens: int = facts.pop("step_tokens", 0)
        self._limits = limits(engine_type, facts)
        self._bell, self._ear = socket.socketpair()
        self._poll = select.poll()
        for end in (self._bell, self._ear):
            end.setblocking(False)
        for descriptor in (self._pipe.fileno(), self._ear.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        self._watcher.start()

    def _wait_ready(self) -> dict[str, Any]:
        """What the engine says of itself once it is loaded. Raises RuntimeError with its error."""
        try:
            kind, facts, *rest = receive(self._pipe)
        except (EOFError, OSError):
            raise EngineDied(_status(self._process.wait())) from None
        if kind == FAILED:
            self._process.wait()
            raise RuntimeError(facts)
        self._figures = Figures(*rest[0])
        return dict(facts)

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the engine does not have, by the input's name."""
        self._limits.refuse(sampling)

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Send a prompt, [n] int64; it enters the batch with the step after the one under way."""
        beams = sampling.max_tokens / BEAM_TOKENS if sampling.beam_width > 1 else 0.0
        self._unbegun[key] = len(ids), beams
        self._sum_up()
        self._send(ADD, key, ids.tolist(), sampling_values(sampling))
        self._running[key] = sampling.sequences
        self._limits.given(sampling)

    def cancel(self, key: int) -> None:
        """Have the engine forget a request; what it already sent for it is dropped here."""
        self._running.pop(key, None)
        self._begun(key)
        with contextlib.suppress(EngineDied):
            self._send(CANCEL, key)

    def step(self) -> Iterable[Progress | Failure]:
        """What the next step made, as soon as it comes; nothing if it doesn't for a moment.

        Raises EngineDied once the engine's process is gone, every time.
        """
        ready = [descriptor for descriptor, _ in self._poll.poll(WAIT_MILLISECONDS)]
        if self._ear.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(WAKES)
        if self._pipe.fileno() not in ready:
            return
        try:
            kind, *rest = receive(self._pipe)
        except (EOFError, OSError):
            raise EngineDied(
                "the engine's process is gone; its last lines are in the log"
            ) from None
        if kind == EVENTS:
            if len(rest) > 1:
                self._figures = Figures(*rest[1])
            for values in rest[0]:
                event = read_event(values)
                if event.key in self._running:
                    self._count(event)
                    yield event

    def figures(self) -> Figures:
        """What the engine said last of itself. Any thread.

        It says nothing while it is idle, when none of its cache is in use.
        """
        said = self._figures
        if self._running or said.kv_cache_usage is None:
            return said
        return said._replace(kv_cache_usage=0.0)

    def wake(self) -> None:
        """Have a `step` that waits return, or the next one. Any thread, at any time."""
        with contextlib.suppress(OSError):  # enough calls already, or closed
            self._bell.send(b"\0")

    def _begun(self, key: int) -> None:
        """Something came of a request, or nothing will."""
        if self._unbegun.pop(key, None) is not None:
            self._sum_up()

    def _sum_up(self) -> None:
        seconds = [tokens / PROMPT_TOKENS + beams for tokens, beams in self._unbegun.values()]
        self.silent_seconds = sum(seconds)

    def _count(self, event: Progress | Failure) -> None:
        if self._unbegun:
            self._begun(event.key)
        if isinstance(event, Failure) or (self._running[event.key] == 1 and event.finish):
            del self._running[event.key]
        elif event.finish:
            self._running[event.key] -= 1

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._running)

    @property
    def quiet_seconds(self) -> float:
        """That the engine may take, for prompts, before a step is seen; any thread asks."""
        if not self._step_tokens:
            return self.silent_seconds
        return min(self.silent_seconds, self._step_tokens / PROMPT_TOKENS)

    @property
    def pid(self) -> int:
        """The process that was started; its heartbeat may be that of a child of it."""
        return self._process.pid

    def close(self) -> None:
        """Have the engine end; end it if it does not."""
        self._closing = True
        with contextlib.suppress(EngineDied):
            self._send(CLOSE)
        self._watcher.join(CLOSE_SECONDS)
        if self._watcher.is_alive():
            log.warning("the engine's process did not end by itself; killed it")
            self._process.terminate()  # its keeper, if it has one, then kills all below
            self._watcher.join(CLOSE_SECONDS)
            self._process.kill()
            self._watcher.join()
        self.heartbeat.release()
        for each in (self._bell, self._ear, self._pipe):
            each.close()

    def _send(self, *message: Any) -> None:
        try:
            send(self._pipe, *message)
        except OSError:
            raise EngineDied("the engine's process is gone") from None

    def _watch(self) -> None:
        """End this process after the engine's, which nobody would notice while nothing runs."""
        status = self._process.wait()
        if status == 0 or self._closing:
            return
        log.error("%s; ending this one too", _status(status))
        time.sleep(LAST_WORDS_SECONDS)
        os._exit(1)


def _start(
    engine_type: str, settings: EngineSettings, row: int
) -> "tuple[subprocess.Popen[bytes], Connection[Any, Any]]":
    """The engine's process, loading, and this end of the pipe to it."""
    arguments = (
        json.dumps(sys.path),
        engine_type,
        json.dumps(dataclasses.asdict(settings), default=str),
        str(os.getpid()),
    )
    table = heartbeats()
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [find_python(), "-I", "-c", BOOT, *arguments, str(theirs.fileno()), str(row)],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), table.descriptor],
            env={**_without_allocator(os.environ), **table.environment()},
        )
    return process, Connection(ours.detach())


def _without_allocator(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the launcher's `--allocator`: OpenVINO's libraries abort under another malloc."""
    preloaded = environment.get("LD_PRELOAD", "").split()
    allocator = environment.get("TRELLIS_ALLOCATOR", "")
    kept = " ".join(name for name in preloaded if name != allocator)
    return {**environment, "LD_PRELOAD": kept}


def _status(status: int) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the engine's process {how}"
