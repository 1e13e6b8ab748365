# SPDX-License-Identifier: Apache-2.0
"""What the workers of one gateway count together, in memory that they share.

The first worker makes the table, a file without a name, and the others inherit the descriptor. Of
connections and bodies each worker writes its own counts alone, and adds the others' to them: no
lock, so that at a limit each worker may let in one too many at the same moment. What an API key
takes is written by all, under a lock. A worker that dies ends the gateway, so nothing that it
counted is left.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

from trellis.errors import TrellisError

VARIABLE = "TRELLIS_GATEWAY_WORKER"  # DESCRIPTOR:NUMBER:WORKERS:PID OF THE FIRST
CONNECTIONS, BODIES, LISTENS = range(3)  # what each worker writes of itself
ADDRESSES = 1 << 16  # slots that clients' addresses are counted in
KEYS = 4096  # API keys
KEY_NUMBERS = 8  # of 8 bytes each, for one API key
_COUNTS = 8  # of 8 bytes each, for a worker
_DIGEST_BYTES = 32
_SECRET_BYTES = 16
_KEY_BYTES = _DIGEST_BYTES + KEY_NUMBERS * 8


class Share:
    """A count of one worker, beside those of the others.

    >>> share = Share()
    >>> share.own = 3
    >>> share.own, share.others
    (3.0, 0.0)
    """

    def __init__(self, cells: "memoryview[float] | None" = None, at: int = 0) -> None:
        """`cells`: a number for each worker, this one's at `at`; None: there is no other."""
        self._cells = memoryview(bytearray(8)).cast("d") if cells is None else cells
        self._at = at

    @property
    def own(self) -> float:
        """This worker's."""
        value: float = self._cells[self._at]
        return value

    @own.setter
    def own(self, value: float) -> None:
        self._cells[self._at] = value

    @property
    def others(self) -> float:
        """The sum of the others'."""
        return float(sum(self._cells)) - self.own


class AddressShares:
    """Connections of each address. Two addresses may share a slot; none can be made to."""

    def __init__(self, cells: "memoryview | None" = None, at: int = 0, secret: bytes = b"") -> None:
        """`cells`: ADDRESSES numbers for each worker; None: there is no other worker."""
        self._cells = cells
        self._at = at
        self._secret = secret

    def note(self, address: str, change: int) -> None:
        """This worker has so many of it more."""
        if self._cells is not None:
            self._cells[self._at * ADDRESSES + self._slot(address)] += change

    def others(self, address: str) -> int:
        """How many of it the others have."""
        if self._cells is None:
            return 0
        slot, own = self._slot(address), self._at * ADDRESSES
        cells = self._cells[slot::ADDRESSES]
        return int(sum(cells)) - int(self._cells[own + slot])

    def _slot(self, address: str) -> int:
        made = hashlib.blake2b(address.encode(), digest_size=2, key=self._secret).digest()
        return int.from_bytes(made, "little")


class KeyNumbers:
    """KEY_NUMBERS numbers of one API key, which all workers write, under a lock."""

    def __init__(
        self,
        cells: "memoryview[float] | None" = None,
        locked: AbstractContextManager[None] | None = None,
    ) -> None:
        """None: there is no other worker."""
        self.cells = memoryview(bytearray(KEY_NUMBERS * 8)).cast("d") if cells is None else cells
        self.locked: AbstractContextManager[None] = locked or contextlib.nullcontext()


class _Lock:
    """A lock between processes, each of which takes it on one thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class WorkerTable:
    """The table, as one worker sees it."""

    def __init__(self, descriptor: int, number: int, workers: int, first_pid: int) -> None:
        """`number`: this worker's, from 0 on. `first_pid`: the process of number 0."""
        self.descriptor = descriptor
        self.number = number
        self.workers = workers
        self.first_pid = first_pid
        memory = memoryview(mmap.mmap(descriptor, _size(workers)))
        self._secret = bytes(memory[:_SECRET_BYTES])
        at = _SECRET_BYTES
        self._counts = memory[at : (at := at + workers * _COUNTS * 8)].cast("d")
        self._addresses = memory[at : (at := at + workers * ADDRESSES * 4)].cast("I")
        self._keys = memory[at:]
        self._lock = _Lock(descriptor)

    @classmethod
    def make(cls, workers: int) -> "WorkerTable":
        """A new one, of the first worker. Raises OSError where there is no memory for it."""
        descriptor = os.memfd_create("trellis-gateway")
        os.ftruncate(descriptor, _size(workers))
        os.pwrite(descriptor, os.urandom(_SECRET_BYTES), 0)
        return cls(descriptor, 0, workers, os.getpid())

    @classmethod
    def inherited(cls) -> "WorkerTable | None":
        """That of a worker which another started; None in any other process."""
        said = os.environ.pop(VARIABLE, "")
        return cls(*map(int, said.split(":"))) if said else None

    def environment(self, number: int) -> dict[str, str]:
        """What tells worker `number` of the table, which inherits `descriptor`."""
        return {VARIABLE: f"{self.descriptor}:{number}:{self.workers}:{self.first_pid}"}

    def share(self, what: int) -> Share:
        """The workers' counts of CONNECTIONS or of BODIES."""
        return Share(self._counts[what::_COUNTS], self.number)

    def listens(self) -> None:
        """This worker answers the others from now on."""
        self._counts[self.number * _COUNTS + LISTENS] = 1.0

    def listened(self, number: int) -> bool:
        """Whether a worker ever answered the others."""
        return bool(self._counts[number * _COUNTS + LISTENS])

    @property
    def name(self) -> str:
        """Of this table alone: nobody outside can know it before the workers use it."""
        return hashlib.blake2b(b"name", digest_size=8, key=self._secret).hexdigest()

    def addresses(self) -> AddressShares:
        """The workers' connections by address."""
        return AddressShares(self._addresses, self.number, self._secret)

    def key(self, name: str) -> KeyNumbers:
        """The numbers of an API key, the same ones in every worker. Raises TrellisError."""
        digest = hashlib.sha256(name.encode()).digest()
        begin = int.from_bytes(digest[:4], "little")
        with self._lock:
            for step in range(KEYS):
                at = (begin + step) % KEYS * _KEY_BYTES
                row = self._keys[at : at + _KEY_BYTES]
                found = bytes(row[:_DIGEST_BYTES])
                if not any(found):
                    row[:_DIGEST_BYTES] = digest
                elif found != digest:
                    continue
                return KeyNumbers(row[_DIGEST_BYTES:].cast("d"), self._lock)
        raise TrellisError(f"{name}: --gateway_workers has room for {KEYS} names of API keys")


def _size(workers: int) -> int:
    return _SECRET_BYTES + workers * (_COUNTS * 8 + ADDRESSES * 4) + KEYS * _KEY_BYTES


def worker_name(table: WorkerTable | None) -> str:
    """What the log calls a worker's process."""
    gateway = "the HTTP gateway"
    return f"{gateway}, worker {table.number}" if table is not None and table.number else gateway


def iterate_others(table: WorkerTable) -> Iterator[int]:
    """The numbers of the others."""
    return (number for number in range(table.workers) if number != table.number)
