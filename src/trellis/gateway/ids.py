# SPDX-License-Identifier: Apache-2.0
"""Two ids for a request: the client's own, and the one that Triton and the engine know it by.

The inner id is 128 random bits, made here for every request, so two clients' ids never meet and
nobody can name another's request. Answers show the client's id, and to that client alone.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trellis.gateway.limits import ID_CHARACTERS
from trellis.gateway.refusals import Refusal, quoted, shown

NO_ID = b"<id_unknown>"  # as Triton calls a request without one
KEY_LENGTHS = range(16, 129)  # of a client's stop key


def new_id() -> str:
    """128 random bits.

    >>> len(new_id())
    32
    """
    return secrets.token_hex(16)


def check_id(value: Any) -> None:
    """Raise Refusal for an id that is no text, cannot be shown in an answer, or is too long."""
    if not isinstance(value, str):
        raise Refusal(400, "id: not a string; send a string")
    if len(value) > ID_CHARACTERS:
        raise Refusal(400, f"id: {len(value)} characters; send at most {ID_CHARACTERS}")
    for at, character in enumerate(value):
        if character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff":
            half = character > "\x7f"
            what = "half of a surrogate pair" if half else "a control character"
            code = f"\\u{ord(character):04x}"
            raise Refusal(400, f"id: {code} at character {at} is {what}; leave it out")


def check_stop_key(value: str) -> None:
    """Raise Refusal for a stop key that is easily guessed, or that is too long."""
    if len(value) not in KEY_LENGTHS or not (value.isascii() and value.isprintable()):
        raise Refusal(
            400,
            f"Trellis-Stop-Key: {shown(repr(value))}: send {KEY_LENGTHS[0]} to {KEY_LENGTHS[-1]}"
            " printable characters of ASCII that nobody can guess",
        )


@dataclass(frozen=True)
class RequestId:
    """The ids of one request. `client`: ""  if it sent none."""

    inner: str
    client: str = ""

    def restored(self, data: bytes) -> bytes:
        """An answer of Triton's as it is shown to the client.

        >>> RequestId("1f", "mine").restored(b'{"id":"1f","text_output":"a"}')
        b'{"id":"mine","text_output":"a"}'
        >>> RequestId("1f").restored(b'{"id":"1f","text_output":"a"}')
        b'{"text_output":"a"}'
        """
        inner = self.inner.encode()
        if inner not in data:
            return data
        if self.client:
            return data.replace(inner, quoted(self.client)[1:-1])
        return data.replace(b'"id":"%s",' % inner, b"").replace(inner, NO_ID)


class RequestsInFlight:
    """Who started which request, for those who want to stop their own."""

    def __init__(self) -> None:
        self._inner: dict[tuple[str, str], list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._inner.values()))

    @contextmanager
    def noted(self, owner: str, request_id: RequestId) -> Iterator[None]:
        """While the request is in flight. `owner`: what only whoever started it can say again."""
        key = (owner, request_id.client)
        self._inner.setdefault(key, []).append(request_id.inner)
        try:
            yield
        finally:
            self._inner[key].remove(request_id.inner)
            if not self._inner[key]:
                del self._inner[key]

    def started_by(self, owner: str, client_id: str) -> list[str]:
        """The inner ids of this owner's requests of that id."""
        return list(self._inner.get((owner, client_id), ()))
