# SPDX-License-Identifier: Apache-2.0
"""Heartbeats: a table in memory that all processes of one server share, a row for each.

A process writes into its row what proves that its own work goes on: its event loop turned, a step
ended, a batch was answered. A thread that only sleeps and writes proves nothing and writes nothing
here. Who watches reads the rows and judges (ipc/stalls.py): the launcher all of them, the model's
process its engine's.

The launcher makes the table, a file without a name, and its children inherit the descriptor. A
process without a launcher has a table of its own, with a hang time-out of 0: nobody watches.
"""

import contextlib
import fcntl
import functools
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "TRELLIS_HEARTBEATS"  # DESCRIPTOR:SECONDS, where the launcher started the server
ROWS = 256
ROW_BYTES = 512
_SIZE = ROWS * ROW_BYTES
_NUMBERS = 8  # of 8 bytes each, at a row's beginning; its text follows
_TEXT = _NUMBERS * 8
_TEXT_BYTES = ROW_BYTES - _TEXT
# The numbers of a row. Writing one is a single store, so that a reader never sees half of it.
_PID, _BEAT, _BEGAN, _EXTRA, _QUIET, _WORK, _KIND, _SHOWN = range(_NUMBERS)
_LOOPS, _INSIDE = 1, 2  # bits of a row's kind


class _Row:
    """A row of the table: numbers and a text."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        start = number * ROW_BYTES
        row = memoryview(memory)[start : start + ROW_BYTES]
        self._numbers = row[:_TEXT].cast("d")
        self._text = row[_TEXT:]

    def _write_text(self, text: str) -> None:
        data = text.encode()[: _TEXT_BYTES - 1]
        self._text[: len(data) + 1] = data + b"\0"

    def _read_text(self) -> str:
        return bytes(self._text).partition(b"\0")[0].decode("utf-8", "replace")


class Heartbeat(_Row):
    """One process. Times in seconds of CLOCK_MONOTONIC, which all processes share."""

    def claim(self, name: str, loops: bool, watched_inside: bool) -> None:
        """Take a free row for this process; see `Heartbeats.claim`."""
        self._numbers[_BEAT:] = memoryview(bytes((_NUMBERS - 1) * 8)).cast("d")
        self._write_text(name)
        self._numbers[_KIND] = float(loops * _LOOPS + watched_inside * _INSIDE)
        self.owned()

    def owned(self) -> None:
        """The row is this process's: it inherited one that another claimed for it."""
        self._numbers[_PID] = float(os.getpid())

    def release(self) -> None:
        """This process needs no watching any more."""
        self._numbers[_PID] = self._numbers[_WORK] = 0.0

    def beat(self) -> None:
        """Its work goes on. Only to be called by what does the work."""
        self._numbers[_EXTRA] = 0.0
        self._numbers[_BEAT] = time.monotonic()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While a batch is answered, whose end is the proof. Batches do not overlap."""
        self._numbers[_BEGAN] = time.monotonic()
        try:
            yield
        finally:
            self._numbers[_BEGAN] = self._numbers[_EXTRA] = 0.0

    def go_on(self) -> None:
        """A part of the batch is done, and the next has as long as the whole."""
        self._numbers[_EXTRA] = 0.0
        self._numbers[_BEGAN] = time.monotonic()

    def allow(self, seconds: float) -> None:
        """The next beat, or the end of this batch, may take so much longer, and ends this."""
        self._numbers[_EXTRA] = seconds

    @property
    def pid(self) -> int:
        """0: nobody's row."""
        return int(self._numbers[_PID])

    @property
    def name(self) -> str:
        """As the log calls the process."""
        return self._read_text()

    @property
    def last_beat(self) -> float:
        """When its work was seen to go on; 0.0 before the first time."""
        return self._numbers[_BEAT]

    @property
    def began(self) -> float:
        """When the batch began that it answers; 0.0 if there is none."""
        return self._numbers[_BEGAN]

    @property
    def allowed(self) -> float:
        """Seconds that the next beat may take beyond the hang time-out."""
        return self._numbers[_EXTRA] + self._numbers[_QUIET]

    @property
    def loops(self) -> bool:
        """Whether it beats all the time, and not in batches alone."""
        return bool(int(self._numbers[_KIND]) & _LOOPS)

    @property
    def watched_inside(self) -> bool:
        """Whether another than the launcher sees it hang first."""
        return bool(int(self._numbers[_KIND]) & _INSIDE)

    @property
    def quiet(self) -> float:
        """Of `allowed`, what who watches it inside says: for prompts that it has to read."""
        return self._numbers[_QUIET]

    @quiet.setter
    def quiet(self, seconds: float) -> None:
        self._numbers[_QUIET] = seconds

    @property
    def work(self) -> int:
        """Requests that it has in flight."""
        return int(self._numbers[_WORK])

    @work.setter
    def work(self, count: int) -> None:
        self._numbers[_WORK] = float(count)


class ServerStatus(_Row):
    """What holds for the whole server; the launcher says it, but for a hang that others see."""

    @property
    def server_pid(self) -> int:
        """The process tritonserver, which another follows where it is started anew; 0: not said."""
        return int(self._numbers[_PID])

    @server_pid.setter
    def server_pid(self, pid: int) -> None:
        self._numbers[_PID] = float(pid)

    @property
    def draining(self) -> bool:
        """Whether the server was asked to stop, and takes no new requests."""
        return bool(self._numbers[_WORK])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._numbers[_WORK] = float(value)

    @property
    def restarting(self) -> bool:
        """Whether the server ended by itself and is started anew, until it is ready."""
        return bool(self._numbers[_BEGAN])

    @restarting.setter
    def restarting(self, value: bool) -> None:
        self._numbers[_BEGAN] = float(value)

    @property
    def hung(self) -> str:
        """What hangs; '' if nothing is known to."""
        return self._read_text() if self._numbers[_SHOWN] else ""

    @hung.setter
    def hung(self, why: str) -> None:
        self._write_text(why)
        self._numbers[_SHOWN] = float(bool(why))


class Heartbeats:
    """The table of one server."""

    def __init__(self, descriptor: int, hang_timeout: float) -> None:
        """`hang_timeout`: seconds without progress after which a process hangs; 0: never."""
        self.descriptor = descriptor
        self.hang_timeout = hang_timeout
        self._memory = mmap.mmap(descriptor, _SIZE)
        self.status = ServerStatus(self._memory, 0)

    @classmethod
    def make(cls, hang_timeout: float) -> "Heartbeats":
        """A new table. Raises OSError where there is no memory for it."""
        descriptor = os.memfd_create("trellis-heartbeats")
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor, hang_timeout)

    def environment(self) -> dict[str, str]:
        """What tells a child of the table, which inherits `descriptor`."""
        return {VARIABLE: f"{self.descriptor}:{self.hang_timeout:g}"}

    def claim(self, name: str, loops: bool = False, watched_inside: bool = False) -> Heartbeat:
        """A row for this process; in a full table one that nobody watches.

        Args:
            name: as the log calls the process.
            loops: it beats all the time; else only the batches that it answers are watched.
            watched_inside: another of the server's processes or threads sees it hang before the
                launcher does.
        """
        return self.row(self.claim_number(name, loops, watched_inside))

    def claim_number(self, name: str, loops: bool, watched_inside: bool) -> int:
        """The same, as the row's number: for a child that inherits the table; 0: none is free."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            for number in range(1, ROWS):
                row = self.row(number)
                if not (row.pid and Path(f"/proc/{row.pid}").exists()):
                    row.claim(name, loops, watched_inside)
                    return number
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
        return 0

    def row(self, number: int) -> Heartbeat:
        """A row by its number; 0, which is the server's: one that nobody watches."""
        return Heartbeat(self._memory, number) if number else Heartbeat(mmap.mmap(-1, ROW_BYTES), 0)

    def rows(self) -> list[Heartbeat]:
        """Those of processes that live."""
        rows = (Heartbeat(self._memory, number) for number in range(1, ROWS))
        return [row for row in rows if row.pid and Path(f"/proc/{row.pid}").exists()]

    def close(self) -> None:
        """Let go of the descriptor; who inherited it goes on. Safe to call twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


@functools.cache
def heartbeats() -> Heartbeats:
    """The table of the server that this process is of, or one that nobody watches."""
    descriptor, _, seconds = os.environ.pop(VARIABLE, "").partition(":")
    try:
        return Heartbeats(int(descriptor), float(seconds))
    except (ValueError, OSError):
        return Heartbeats.make(0.0)
