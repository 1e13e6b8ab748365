# SPDX-License-Identifier: Apache-2.0
"""How `preprocessing` tells `postprocessing` that a request of some id begins.

Only used with TensorRT-LLM's own engines, which pass nothing through: there a stream is known by
its request's id, and only the first step knows that an id is used again, that its request does
not stream, what it says of special tokens, or how long its prompts are. A datagram goes through a
Unix socket in Linux's abstract namespace, named after the tritonserver that both processes are
children of; it arrives before the request does, and there is no file to clean up.
"""

import contextlib
import hashlib
import logging
import os
import select
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trellis.contract.model_names import ENSEMBLE
from trellis.ipc.sockets import datagram_socket, receive_into, try_bind

log = logging.getLogger("trellis.stream_announcements")

DIGEST_BYTES = 16
HEAD_BYTES = DIGEST_BYTES + 1
DATAGRAM_BYTES = 131072
SEND_SECONDS = 2.0
WAKE_SECONDS = 0.005


# Bits of a notice's flags.
STREAMS, SKIP_SAID, SKIP, COUNTED, CANCELS = 1, 2, 4, 8, 16
# What a request may ask to be told of its answer, a bit each.
NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, FINISH_REASON = 1, 2, 4
_COUNTED = struct.Struct("<BH")  # what is asked, how many prompts
_PROMPT = struct.Struct("<IIIB")  # of a CountedPrompt; the last: how many ends, 4 bytes each
MAX_ENDS = 255


class CountedPrompt(NamedTuple):
    """What has to be known of a prompt to count its answer's tokens."""

    tokens: int
    in_front: int  # tokens of it that its answer begins with
    max_tokens: int
    ends: tuple[int, ...] = ()  # ids that end the answer

    def encode(self) -> bytes:
        """As it is in a notice."""
        ends = self.ends[:MAX_ENDS]
        head = _PROMPT.pack(self.tokens, self.in_front, self.max_tokens, len(ends))
        return head + struct.pack(f"<{len(ends)}i", *ends)


class Notice(NamedTuple):
    """What is said of a request that begins."""

    request_id: str
    streams: bool
    skip_special_tokens: bool | None = None  # None: as the repository was made
    asked: int = 0  # what is to be told of its answer: NUM_INPUT_TOKENS | ...
    prompts: tuple[CountedPrompt, ...] = ()
    cancels: bool = False  # it only ends the request of that id

    def encode(self) -> bytes:
        """The digest of the id, flags, and the prompts if they are to be counted."""
        skip = self.skip_special_tokens
        flags = self.streams | (0 if skip is None else SKIP_SAID | skip * SKIP)
        flags |= self.cancels * CANCELS | bool(self.asked) * COUNTED
        head = id_digest(self.request_id) + bytes([flags])
        if not self.asked:
            return head
        prompts = b"".join(prompt.encode() for prompt in self.prompts)
        return head + _COUNTED.pack(self.asked, len(self.prompts)) + prompts


class Begun(NamedTuple):
    """What is known of the request that an id means now."""

    generation: int | None = 0  # which use of the id it is; None if it does not stream
    skip_special_tokens: bool | None = None
    asked: int = 0
    prompts: tuple[CountedPrompt, ...] = ()
    cancelled: bool = False


UNKNOWN = Begun()


def id_digest(request_id: str) -> bytes:
    """16 bytes for an id of any length."""
    return hashlib.blake2b(request_id.encode(), digest_size=DIGEST_BYTES).digest()


def socket_name(repository: Path, model: str) -> bytes:
    """The address of a model's `postprocessing`: its server, its namespace, its repository."""
    namespace = os.readlink("/proc/self/ns/pid")
    place = f"{namespace} {os.getppid()} {model} {repository.resolve()}"
    return b"\0trellis." + hashlib.blake2b(place.encode(), digest_size=16).hexdigest().encode()


class Announcer:
    """The side of `preprocessing`."""

    def __init__(self, repository: Path, model: str = ENSEMBLE) -> None:
        self._address = socket_name(repository, model)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)
        self._failed = False

    def announce(self, begun: Iterable[Notice]) -> bool:
        """Say that these requests begin; False if nobody heard all of it. Never raises."""
        heard = True
        for datagram in _datagrams(notice.encode() for notice in begun):
            try:
                if len(datagram) > DATAGRAM_BYTES:
                    raise OSError(f"a notice of {len(datagram)} bytes is too large")
                self._socket.sendto(datagram, self._address)
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

    def __init__(self, repository: Path, most: int, model: str = ENSEMBLE) -> None:
        self.heard = False
        self._most = most
        self._counter = 0
        self._begun: OrderedDict[bytes, Begun] = OrderedDict()  # by digest
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._socket = datagram_socket()
        self._socket.setblocking(False)
        self._datagram = memoryview(bytearray(DATAGRAM_BYTES))
        self._address = socket_name(repository, model)
        self._bound = try_bind(self._socket, self._address)
        if not self._bound:
            log.warning("no notices of new streams yet (taken): use no request id twice")
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
                if size := receive_into(self._socket, self._datagram):
                    self._take(bytes(self._datagram[:size]))

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(timeout=2)
        self._socket.close()

    def _take(self, datagram: bytes) -> None:
        self.heard = True
        start = 0
        while start + HEAD_BYTES <= len(datagram):
            digest = datagram[start : start + DIGEST_BYTES]
            flags = datagram[start + DIGEST_BYTES]
            start += HEAD_BYTES
            if flags & CANCELS:
                if digest in self._begun:
                    self._begun[digest] = self._begun[digest]._replace(cancelled=True)
                continue
            asked = 0
            prompts: tuple[CountedPrompt, ...] = ()
            if flags & COUNTED:
                asked, prompts, start = _read_prompts(datagram, start)
            self._counter += 1
            self._begun[digest] = Begun(
                self._counter if flags & STREAMS else None,
                bool(flags & SKIP) if flags & SKIP_SAID else None,
                asked,
                prompts,
            )
            self._begun.move_to_end(digest)
        while len(self._begun) > self._most:
            self._begun.popitem(last=False)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._bound = self._bound or try_bind(self._socket, self._address)
            readable, _, _ = select.select([self._socket], [], [], 0.5)
            if readable:
                self.drain()
                # Under load who decodes drains: to wake for every datagram would only cost.
                time.sleep(WAKE_SECONDS)


def _datagrams(notices: Iterable[bytes]) -> Iterator[bytes]:
    """The notices in as few datagrams as possible; one that is too large is alone, and fails."""
    gathered: list[bytes] = []
    size = 0
    for notice in notices:
        if gathered and size + len(notice) > DATAGRAM_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(notice)
        size += len(notice)
    if gathered:
        yield b"".join(gathered)


def _read_prompts(datagram: bytes, start: int) -> tuple[int, tuple[CountedPrompt, ...], int]:
    """What is asked, the prompts, and where the next notice begins."""
    asked, count = _COUNTED.unpack_from(datagram, start)
    start += _COUNTED.size
    prompts = []
    for _ in range(count):
        length, in_front, most, ends = _PROMPT.unpack_from(datagram, start)
        start += _PROMPT.size
        ids = struct.unpack_from(f"<{ends}i", datagram, start)
        prompts.append(CountedPrompt(length, in_front, most, ids))
        start += 4 * ends
    return asked, tuple(prompts), start
