# SPDX-License-Identifier: Apache-2.0
"""The launchers of one server's hosts watch each other: when one goes, all end.

A library notices a host that is gone at its next step, if at all. So each launcher above the first
keeps a connection to the first host's, on which both say every second that they are there:

    host 1 -> host 0    "trellis 1 of 2"   "."   "."   "stopped"
    host 0 -> host 1                       "."   "."   "failed"

A connection that ends without a last word, and silence of SILENCE_SECONDS, are a host's death.
Whoever reaches the port could end the server, as at the port where the workers meet.
"""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import IO, Literal

from trellis.engine_host.engines.topology import Topology
from trellis.ranks.options import RanksError

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 8.0
MOST_BYTES = 64  # of a line

Word = Literal["stopped", "failed"]


class Peers:
    """The other hosts, as this one's launcher sees them. Use as a context manager.

    Leaving with an exception tells them that this host failed, else that it was stopped.
    """

    def __init__(self, topology: Topology) -> None:
        """Listen on the first host, else begin to connect. Raises RanksError for a taken port."""
        self._topology = topology
        self._port = topology.port + 1  # beside that of the workers
        self._lock = threading.Lock()
        self._joined: dict[int, socket.socket] = {}  # host -> its connection
        self._over = threading.Event()
        self.why = ""  # why this host has to end; '' while all are there
        self.orderly = False  # whether because one was asked to stop
        self._last: Word | None = None  # what was said to all before
        self._listener = self._listen() if topology.host == 0 else None
        for task in (self._accept if self._listener else self._join, self._beat):
            threading.Thread(target=task, name="peers", daemon=True).start()

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.say("stopped" if error is None else "failed")
        self._over.set()
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            for connection in self._joined.values():
                connection.close()

    def say(self, word: Word) -> None:
        """The last word of this host to all others. Safe to call twice."""
        self._last = word
        self._send(f"{word}\n".encode())

    @property
    def joined(self) -> set[int]:
        """The hosts that are connected."""
        with self._lock:
            return set(self._joined)

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", self._port))
        except OSError as error:
            raise RanksError(
                f"MASTER_PORT: {self._port}, the port after it, is where the launchers of the hosts"
                f" meet: {error.strerror}; choose another MASTER_PORT on every host"
            ) from None
        listener.listen()
        return listener

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Take a host in, if it is one that is awaited."""
        connection.settimeout(SILENCE_SECONDS)
        lines = connection.makefile("rb")
        with contextlib.suppress(OSError):
            words = lines.readline(MOST_BYTES).split()
            for host in range(1, self._topology.hosts):
                if words == self._greeting(host).split() and self._add(host, connection):
                    self._follow(host, lines)
                    return
        connection.close()

    def _join(self) -> None:
        """Connect to the first host, as soon as it is there."""
        while not self._over.is_set():
            try:
                place = (self._topology.leader, self._port)
                connection = socket.create_connection(place, SILENCE_SECONDS)
                connection.sendall(self._greeting(self._topology.host))
            except OSError:
                time.sleep(BEAT_SECONDS / 2)
                continue
            self._add(0, connection)
            if self._last:  # it was said while nobody was connected
                self.say(self._last)
            if self._over.is_set():
                connection.close()
                return
            self._follow(0, connection.makefile("rb"))
            return

    def _greeting(self, host: int) -> bytes:
        return f"trellis {host} of {self._topology.hosts}\n".encode()

    def _add(self, host: int, connection: socket.socket) -> bool:
        with self._lock:
            new = host not in self._joined
            if new:
                self._joined[host] = connection
        return new

    def _follow(self, host: int, lines: IO[bytes]) -> None:
        """Read what a host says until it is gone."""
        last = b""
        with contextlib.suppress(OSError, ValueError):
            for line in iter(lambda: lines.readline(MOST_BYTES), b""):
                last = line.strip()
                if last != b".":
                    break
        if self._over.is_set() or self.why:
            return
        self.orderly = last == b"stopped"
        ends = {b"stopped": "was asked to stop", b"failed": "failed; its own log says why"}
        self.why = f"host {host} {ends.get(last, 'is gone')}"

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._send(b".\n")

    def _send(self, line: bytes) -> None:
        with self._lock:
            for connection in self._joined.values():
                with contextlib.suppress(OSError):  # whoever reads there says that it is gone
                    connection.sendall(line)
