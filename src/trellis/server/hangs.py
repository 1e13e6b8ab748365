# SPDX-License-Identifier: Apache-2.0
"""The launcher's view of what hangs: every process of a server, from outside.

Models' processes and the gateway prove progress in a table (ipc/heartbeats.py); tritonserver, which
is not ours, by an answer to a question for its health, and its models' queues by its metrics
(model_queues.py); and Linux says of each whether it is stopped. What is seen inside
(engine_host/hang_watch.py) has a moment more before this ends it.
"""

import contextlib
import http.client
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trellis.ipc.heartbeats import Heartbeat, Heartbeats
from trellis.ipc.process_state import STOPPED, ask_for_stacks, describe, state
from trellis.ipc.stalls import Stall, look_seconds
from trellis.server.model_queues import QueueStalls

GRACE_SECONDS = 3.0  # for those inside to see it, and to answer their clients
MAX_THREADS = 64  # of a process that has no stacks to show, listed in the log
HEALTH, METRICS = "/v2/health/live", "/metrics"


@dataclass(frozen=True)
class Hang:
    """A process that makes no progress."""

    pid: int
    what: str


class Hangs:
    """Looks for hangs of one server from its readiness on; nothing with a time-out of 0."""

    def __init__(
        self,
        table: Heartbeats,
        server: tuple[int, str],
        http: tuple[str, int] | None,
        metrics: tuple[str, int] | None = None,
    ) -> None:
        """`server`: tritonserver's process and its name; `http`, `metrics`: where it is asked."""
        self._limit = table.hang_timeout
        self._table = table
        self._server = server
        self._stopped: defaultdict[int, Stall] = defaultdict(Stall)
        self._beats: defaultdict[tuple[int, int], Stall] = defaultdict(Stall)
        self._batches: defaultdict[tuple[int, int], Stall] = defaultdict(Stall)
        self._health = Stall()
        self._next = 0.0
        self._queues = QueueStalls()
        self._probe = Probe(http, metrics, self._limit) if self._limit and http else None

    def close(self) -> None:
        """Ask no more."""
        if self._probe is not None:
            self._probe.close()

    def look(self, own: Mapping[int, str], below: Iterable[int], now: float) -> Hang | None:
        """The first that hangs; None while all go on.

        Args:
            own: the processes that the launcher and Triton started, and their names.
            below: those that these started: engines and their workers.
            now: seconds of a clock that never goes back.
        """
        if not self._limit or now < self._next:
            return None
        self._next = now + look_seconds(self._limit)
        found = self._stop(own, below, now) or self._still(now)
        return found or self._mute(now) or self._queued(now)

    def _stop(self, own: Mapping[int, str], below: Iterable[int], now: float) -> Hang | None:
        """A process that Linux says is stopped."""
        for pid in {*own, *below}:
            seconds = self._stopped[pid].look(1.0 if state(pid) == STOPPED else None, now)
            limit = self._limit if pid in own else self._limit + GRACE_SECONDS
            if seconds >= limit:
                name = own.get(pid) or _command(pid)
                return Hang(pid, f"{name} (pid {pid}) is {describe(pid)} for {seconds:.0f} s")
        return None

    def _still(self, now: float) -> Hang | None:
        """A process that proves nothing any more."""
        for row in self._table.rows():
            key, limit = (row.number, row.pid), self._limit + row.allowed
            if row.watched_inside:
                limit += GRACE_SECONDS
            beat = row.last_beat if row.loops and row.last_beat else None
            still = self._beats[key].look(beat, now)
            batch = self._batches[key].look(row.began or None, now)
            if still >= limit:
                return _hang(row, f"made no progress for {still:.0f} s")
            if batch >= limit:
                return _hang(row, f"has answered one batch for {batch:.0f} s")
        return None

    def _mute(self, now: float) -> Hang | None:
        """tritonserver, if it does not answer."""
        if self._probe is None:
            return None
        seconds = self._health.look(self._probe.answers, now)
        pid, name = self._server
        if seconds < self._limit:
            return None
        why = f"did not answer {HEALTH} for {seconds:.0f} s; it is {describe(pid)}"
        return Hang(pid, f"{name} (pid {pid}) {why}")

    def _queued(self, now: float) -> Hang | None:
        """A model whose requests do not get to it."""
        page = self._probe.page if self._probe is not None else ""
        stalled = self._queues.look(page, now)
        rows = self._table.rows()
        allowed = max((row.allowed for row in rows), default=0.0)
        if stalled is None or stalled[0] < self._limit + allowed + GRACE_SECONDS:
            return None
        seconds, queue = stalled
        named = (row.pid for row in rows if row.name == f"the process of {queue.model}")
        pid = next(named, self._server[0])
        why = f"{queue.waiting:.0f} {queue.what}, and none has left it for {seconds:.0f} s"
        return Hang(pid, f"{queue.model}: {why}; its process (pid {pid}) is {describe(pid)}")

    def report(self, hang: Hang) -> None:
        """Readiness fails; then what is known of the process goes to the log."""
        self._table.status.hung = hang.what
        print(f"HANG: {hang.what}", file=sys.stderr, flush=True)
        ask_for_stacks(hang.pid)
        if hang.pid == self._server[0] and state(hang.pid) != STOPPED:
            for line in threads(hang.pid):
                print(f"  {line}", file=sys.stderr, flush=True)


class Probe:
    """Asks a server for its health on a thread, again and again, and for its metrics."""

    def __init__(
        self, http: tuple[str, int], metrics: tuple[str, int] | None, limit: float
    ) -> None:
        """`limit`: seconds that an answer may take."""
        self.answers = 0  # that came of its health
        self.page = ""  # of metrics; "" if there is none
        self._http = http
        self._metrics = metrics
        self._limit = limit
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more; an answer that does not come is not waited for."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(look_seconds(self._limit)):
            if get(self._http, HEALTH, self._limit) is not None:
                self.answers += 1
            if self._metrics is not None:
                page = get(self._metrics, METRICS, self._limit / 2)
                self.page = (page or b"").decode("utf-8", "replace")


def get(place: tuple[str, int], path: str, seconds: float) -> bytes | None:
    """The body of an answer, whatever its status; None if there is none in that time."""
    asked = http.client.HTTPConnection(*place, timeout=seconds)
    try:
        with contextlib.closing(asked):
            asked.request("GET", path)
            return asked.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None


def threads(pid: int) -> list[str]:
    """What each thread of a process is, and waits for in the kernel: for one without Python."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*"))[:MAX_THREADS]:
        with contextlib.suppress(OSError):
            waits = (task / "wchan").read_text().strip()
            lines.append(f"thread {task.name} {(task / 'comm').read_text().strip()}: {waits}")
    return lines


def _hang(row: Heartbeat, why: str) -> Hang:
    return Hang(row.pid, f"{row.name} (pid {row.pid}) {why}; it is {describe(row.pid)}")


def _command(pid: int) -> str:
    """What a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "a process"
