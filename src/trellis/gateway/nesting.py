# SPDX-License-Identifier: Apache-2.0
"""How deep a JSON body goes, found without parsing it: Triton 24.10 dies of a million brackets.

Its parser recurses, and a body of a few megabytes exhausts its stack. Bodies that are read here
whole are parsed here; all others are looked through as they pass.
"""

import re

from trellis.gateway.replies import Refusal

MAX_DEPTH = 500
# The same server dies of a body in a million pieces; so many are passed on at most.
MAX_PIECES = 100_000
JSON_LENGTH = b"inference-header-content-length"  # what follows so many bytes is binary
SPECIAL = re.compile(rb'["\\\[\]{}]')


class Nesting:
    """Follows one body.

    >>> nesting = Nesting()
    >>> nesting.feed(b'{"a": "[[[", ')
    >>> nesting.feed(b'"b": [[1]]')
    >>> nesting.depth
    1
    """

    __slots__ = ("_escaped", "_in_string", "_left", "_pieces", "depth")

    def __init__(self, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.depth = 0
        self._in_string = self._escaped = False
        self._pieces = 0
        self._left: int | None = None  # bytes of JSON still to come; None: all that comes
        for name, value in headers or ():
            if name.lower() == JSON_LENGTH and value.isdigit():
                self._left = int(value)
            elif name.lower() == b"content-encoding" and value.lower() != b"identity":
                raise Refusal(415, "Content-Encoding: send the body as it is", close=True)

    def feed(self, data: bytes) -> None:
        """Take a piece. Raises Refusal for what the server behind would not survive."""
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            raise Refusal(400, f"the body comes in more than {MAX_PIECES} pieces", close=True)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        passed = 0 if self._escaped else -1  # the byte that a backslash takes its meaning from
        self._escaped = False
        for found in SPECIAL.finditer(data):
            at = found.start()
            if at == passed:
                continue
            self._take(data[at])
            if self._in_string and data[at] == 0x5C:
                passed = at + 1
                self._escaped = passed == len(data)

    def _take(self, byte: int) -> None:
        if byte == 0x22:
            self._in_string = not self._in_string
        elif not self._in_string and byte in b"[{":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise Refusal(400, "the body is nested too deeply", close=True)
        elif not self._in_string and byte in b"]}":
            self.depth -= 1
