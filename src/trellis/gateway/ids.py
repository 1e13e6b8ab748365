# SPDX-License-Identifier: Apache-2.0
"""The ids of streams in flight, where the engine knows a stream by nothing else."""

import itertools
import secrets
from collections import OrderedDict

REMEMBERED = 16384  # ids of dropped requests, which the engine may still be at


class RequestIds:
    """Ids that are in use. Two requests in flight never share one.

    >>> ids = RequestIds()
    >>> ids.take("7"), ids.take("7")
    ('7', '7~1')
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._dropped: OrderedDict[str, None] = OrderedDict()
        self._prefix = secrets.token_hex(4)  # no other gateway's ids
        self._made = itertools.count(1)

    def take(self, wanted: str) -> str:
        """The id that a request gets: the one it wants, or one that begins with it."""
        taken = wanted or f"http-{self._prefix}-{next(self._made)}"
        for number in itertools.count(1):
            if taken not in self._used and taken not in self._dropped:
                break
            taken = f"{wanted}~{number}"
        self._used.add(taken)
        return taken

    def release(self, taken: str, dropped: bool) -> None:
        """Its request is over; or its client is gone, and the engine may still be at it."""
        self._used.discard(taken)
        if dropped:
            self._dropped[taken] = None
            while len(self._dropped) > REMEMBERED:
                self._dropped.popitem(last=False)
