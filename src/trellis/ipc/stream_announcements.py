# SPDX-License-Identifier: Apache-2.0
"""How `preprocessing` tells `postprocessing` that a request of some id begins.

Only used with TensorRT-LLM's own engines, which pass nothing through: there a stream is known by
its request's id, and only the first step knows that an id is used again, that its request does
not stream, or what it says of special tokens. A datagram goes through a Unix socket in Linux's
abstract namespace, named after the tritonserver that both processes are children of; it arrives
before the request does, and there is no file to clean up.
"""

import contextlib
import hashlib
import logging
import os
import select
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("trellis.stream_notices")

DIGEST_BYTES = 16
NOTICE_BYTES = DIGEST_BYTES + 1
NOTICES_PER_DATAGRAM = 2048
SEND_SECONDS = 2.0
WAKE_SECONDS = 0.005


class Notice(NamedTuple):
    """What is said of a request that begins."""

    request_id: str
    streams: bool
    skip_special_tokens: bool | None = None  # None: as the repository was made

    def flags(self) -> int:
        """One byte: bit 0 streams, bit 1 a choice was made, bit 2 that choice."""
        skip = self.skip_special_tokens
        return self.streams | (0 if skip is None else 2 | skip << 2)


class Begun(NamedTuple):
    """What is known of the request that an id means now."""

    generation: int | None = 0  # which use of the id it is; None if it does not stream
    skip_special_tokens: bool | None = None


UNKNOWN = Begun()


def id_digest(request_id: str) -> bytes:
    """16 bytes for an id of any length."""
    return hashlib.blake2b(request_id.encode(), digest_size=DIGEST_BYTES).digest()


def socket_name(repository: Path) -> bytes:
    """The address of one server's `postprocessing`: its process, its namespace, its repository."""
    namespace = os.readlink("/proc/self/ns/pid")
    place = f"{namespace} {os.getppid()} {repository.resolve()}"
    return b"\0trellis." + hashlib.blake2b(place.encode(), digest_size=16).hexdigest().encode()


class Announcer:
    """The side of `preprocessing`."""

    def __init__(self, repository: Path) -> None:
        self._address = socket_name(repository)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)
        self._failed = False

    def announce(self, begun: Iterable[Notice]) -> bool:
        """Say that these requests begin; False if nobody heard all of it. Never raises."""
        notices = [id_digest(notice.request_id) + bytes([notice.flags()]) for notice in begun]
        heard = True
        for start in range(0, len(notices), NOTICES_PER_DATAGRAM):
            try:
                chunk = notices[start : start + NOTICES_PER_DATAGRAM]
                self._socket.sendto(b"".join(chunk), self._address)
            except OSError as error:
                heard = False
                self._warn(error)
        return heard

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            log.warning("postprocessing cannot be reached (%s): use no request id twice", error)


class Listener:
    """The side of `postprocessing`: which generation of an id is meant now.

    `heard` is False until the first notice: then nobody announces, and ids are all there is.
    """

    def __init__(self, repository: Path, most: int) -> None:
        self.heard = False
        self._most = most
        self._counter = 0
        self._begun: OrderedDict[bytes, Begun] = OrderedDict()  # by digest
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._datagram = memoryview(bytearray(NOTICE_BYTES * NOTICES_PER_DATAGRAM))
        try:
            self._socket.bind(socket_name(repository))
        except OSError as error:
            log.warning("no notices of new streams (%s): use no request id twice", error)
        # A thread, because the queue is short and a sender must not wait for the next token.
        self._thread = threading.Thread(target=self._run, name="stream-notices", daemon=True)
        self._thread.start()

    def begun(self, digest: bytes) -> Begun:
        """The request that a response with an id of this digest belongs to."""
        with self._lock:
            if digest not in self._begun:
                return UNKNOWN
            self._begun.move_to_end(digest)
            return self._begun[digest]

    def drain(self) -> None:
        """Take every notice that was sent by now."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while True:
                size = self._socket.recv_into(self._datagram)
                self._take(bytes(self._datagram[:size]))

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(timeout=2)
        self._socket.close()

    def _take(self, datagram: bytes) -> None:
        self.heard = True
        for start in range(0, len(datagram) - DIGEST_BYTES, NOTICE_BYTES):
            digest = datagram[start : start + DIGEST_BYTES]
            self._counter += 1
            flags = datagram[start + DIGEST_BYTES]
            self._begun[digest] = Begun(
                self._counter if flags & 1 else None, bool(flags & 4) if flags & 2 else None
            )
            self._begun.move_to_end(digest)
        while len(self._begun) > self._most:
            self._begun.popitem(last=False)

    def _run(self) -> None:
        while not self._closed.is_set():
            readable, _, _ = select.select([self._socket], [], [], 0.5)
            if readable:
                self.drain()
                # Under load who decodes drains: to wake for every datagram would only cost.
                time.sleep(WAKE_SECONDS)
