# SPDX-License-Identifier: Apache-2.0
"""The body of a request: its type, its bytes under a limit, unpacked if they are packed."""

import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from trellis.gateway.refusals import Headers, Refusal, shown
from trellis.gateway.triton import ClientGone
from trellis.gateway.worker_table import Share

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
FORM = "application/x-www-form-urlencoded"
# A browser sets one of these where a page of another site makes it send something.
FROM_A_PAGE = (b"origin", b"sec-fetch-site", b"sec-fetch-mode")
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's `wbits`


def header(headers: Headers, name: bytes) -> str:
    """The value of a header, several joined; "" for none."""
    return b", ".join(value for key, value in headers if key == name).decode("latin-1")


def check_content_type(headers: Headers, binary: bool = False) -> None:
    """Raise Refusal for a body that is no JSON by its type.

    What a browser sends for any page without asking first (a form, plain text) is refused. `curl
    -d` calls JSON a form too; it is no browser, and says so by leaving the others' headers out.
    `binary`: whether application/octet-stream is right, too.
    """
    sent = header(headers, b"content-type")
    kind = sent.partition(";")[0].strip().lower()
    from_a_page = any(name in FROM_A_PAGE for name, _ in headers)
    if (
        kind == "application/json"
        or (not kind and not from_a_page)
        or (binary and kind == "application/octet-stream")
    ):
        return
    if kind != FORM or from_a_page:
        raise Refusal(
            415, f"Content-Type: {shown(sent)}: send application/json, or leave it out", close=True
        )


class Bodies:
    """The bytes of all bodies that are in memory, and how many there may be.

    >>> bodies = Bodies(10)
    >>> with bodies.room() as room:
    ...     room.take(8)
    ...     bodies.taken
    8
    >>> bodies.taken
    0
    """

    def __init__(self, most: int, share: Share | None = None) -> None:
        """`share`: of this worker, where the gateway has several."""
        self.most = most
        self.taken = 0
        self._share = share or Share()

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """Room for one body, given back at the end of its request."""
        room = Room(self)
        try:
            yield room
        finally:
            self.taken -= room.taken
            self._share.own = self.taken

    def take(self, size: int) -> None:
        """Note so many bytes more. Raises Refusal."""
        if self.taken + self._share.others + size > self.most:
            raise Refusal(
                503, "the bodies of all requests together are too large; try again", close=True
            )
        self.taken += size
        self._share.own = self.taken


class Room:
    """What one body takes."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.taken = 0

    def take(self, size: int) -> None:
        """Note so many bytes more. Raises Refusal where all bodies together are too large."""
        self._bodies.take(size)
        self.taken += size


async def read_body(receive: Receive, headers: Headers, limit: int, room: Room) -> bytes:
    """All of a body, at most `limit` bytes before and after it is unpacked.

    Raises Refusal for a larger one, where there is no room, and for a packing that is not known;
    ClientGone.
    """
    length = header(headers, b"content-length")
    if length and int(length[:20]) > limit:
        raise _too_large(limit)
    unpack = _unpacking(header(headers, b"content-encoding"), limit)
    body, sent, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece, more = message.get("body", b""), message.get("more_body", False)
        sent += len(piece)
        if sent > limit:
            raise _too_large(limit)
        made = unpack(piece, more)
        room.take(len(made))
        body += made
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _unpacking(encoding: str, limit: int) -> Callable[[bytes, bool], bytes]:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return lambda piece, _: piece
    if name not in WINDOWS:
        raise Refusal(
            415, f"Content-Encoding: {shown(encoding)}: send gzip, deflate or none", close=True
        )
    machine = zlib.decompressobj(WINDOWS[name])

    def unpack(piece: bytes, more: bool) -> bytes:
        try:
            made = machine.decompress(piece, limit + 1)
        except zlib.error as error:
            raise Refusal(400, f"Content-Encoding: {name}: {error}", close=True) from error
        if machine.unused_data or (not more and not machine.eof and len(made) <= limit):
            raise Refusal(
                400, f"Content-Encoding: {name}: the body is cut off, or goes on", close=True
            )
        return made

    return unpack


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit} bytes", close=True)
