# SPDX-License-Identifier: Apache-2.0
"""How many chunks of each stream `postprocessing` got: asked by the engine host, now and then.

Nothing is sent for a chunk. `postprocessing` counts in the state that it keeps for a stream anyway,
and a thread of it answers questions; the engine host asks while streams are in flight, and says
which ones end without a last chunk. Both are datagrams between processes of one server, see
`sockets.py`.
"""

import contextlib
import os
import secrets
import select
import struct
import threading
from array import array
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from trellis.ipc.sockets import datagram_socket, model_address, receive, try_bind

PURPOSE = "chunks"
MAX_KEYS = 8192  # in a question
_QUESTION = struct.Struct("<QQ")  # its number, how many keys are asked for; they and others follow
_ANSWER = struct.Struct("<QQQ?")  # the question's number, epoch, forgotten, working; counts follow
_MOST_BYTES = _ANSWER.size + 8 * MAX_KEYS


class Counts(NamedTuple):
    """What `postprocessing` says: the chunks that came under each key asked for, 0 if none."""

    counts: Sequence[int]
    epoch: int  # another one: another process, which knows nothing of what came before
    forgotten: int  # streams whose state was dropped so far; their counts began again
    working: bool  # whether it was decoding at that moment


class Table(Protocol):
    """The streams that `postprocessing` has state of; other threads hold `lock` to use it."""

    lock: threading.Lock
    forgotten: int

    def counts(self, keys: Sequence[int]) -> list[int]:
        """The chunks that came under each key."""

    def drop(self, keys: Sequence[int]) -> None:
        """Forget streams that nobody continues."""


class CountsServer:
    """The side of `postprocessing`: a thread that answers."""

    def __init__(self, table: Table, model: str) -> None:
        """`model`: whose streams they are."""
        self._table = table
        self._epoch = secrets.randbits(64)
        self._closed = threading.Event()
        self._socket = datagram_socket()
        self._socket.setblocking(False)
        self._address = model_address(PURPOSE, model, os.getppid())
        self._bound = try_bind(self._socket, self._address)
        self._thread = threading.Thread(target=self._run, name="chunk-counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(timeout=2)
        self._socket.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._bound = self._bound or try_bind(self._socket, self._address)
            select.select([self._socket], [], [], 0.5)
            try:
                question, sender = receive(self._socket, _MOST_BYTES)
                if len(question) >= _QUESTION.size and len(question) % 8 == 0:
                    self._socket.sendto(self._answer(question), sender)
            except OSError:  # nothing there, or who asked is gone
                continue

    def _answer(self, question: bytes) -> bytes:
        number, asked = _QUESTION.unpack_from(question)
        keys = array("Q", question[_QUESTION.size :])
        table = self._table
        working = table.lock.locked()
        with table.lock:
            table.drop(keys[asked:])
            counts = array("Q", table.counts(keys[:asked]))
            return _ANSWER.pack(number, self._epoch, table.forgotten, working) + counts.tobytes()


class CountsClient:
    """The side of the engine host; each thread has its own."""

    def __init__(self, model: str) -> None:
        """`model`: whose streams are asked for."""
        self._number = secrets.randbits(32)
        self._asked = 0
        self._address = model_address(PURPOSE, model, os.getppid())
        self._socket = datagram_socket()
        self._socket.setblocking(False)
        self._socket.bind("")  # an address of the kernel's choice, for the answers

    def ask(self, keys: Sequence[int], drop: Sequence[int] = ()) -> bool:
        """Ask for the counts of these keys; False if nobody is there. Does not wait.

        `drop`: streams to forget. Together MAX_KEYS at most.
        """
        self._number += 1
        self._asked = len(keys)
        head = _QUESTION.pack(self._number, len(keys))
        try:
            self._socket.sendto(head + array("Q", [*keys, *drop]).tobytes(), self._address)
        except OSError:  # not there, or not yet
            return False
        return True

    def answer(self) -> Counts | None:
        """The answer to the last question, if it is here; late ones to others are of no use."""
        with contextlib.suppress(OSError):
            while True:
                data, _ = receive(self._socket, _MOST_BYTES)
                fits = len(data) == _ANSWER.size + 8 * self._asked
                if fits and _ANSWER.unpack_from(data)[0] == self._number:
                    return _read(data)
        return None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _read(answer: bytes) -> Counts:
    _, epoch, forgotten, working = _ANSWER.unpack_from(answer)
    return Counts(array("Q", answer[_ANSWER.size :]), epoch, forgotten, working)
