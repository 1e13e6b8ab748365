# SPDX-License-Identifier: Apache-2.0
"""Requests that wait before OpenVINO's pipeline: for their LoRA adapter, or for room in the cache.

The pipeline applies one adapter at a time to all that runs in it, so that requests of another wait
until it is empty. Where tokens are guessed, the library takes back what it began when the KV cache
is full, and then fails (prompt lookup) or drops other requests (a draft model), so that only those
are started that fit in whole. All are started in the order that they came.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

from trellis.engine_host.engines.engine import Sampling

KV_BLOCK_TOKENS = 32  # what the CPU plugin pages the cache in


class Waiting(NamedTuple):
    """A request that has not reached the pipeline."""

    key: int
    ids: np.ndarray  # [n] int64
    sampling: Sampling


class OpenVinoQueue:
    """What waits, and how much of the cache is promised to what runs."""

    def __init__(self, room: int | None) -> None:
        """`room`: tokens of the cache, None for no bound."""
        self._room = room
        self._promised: dict[int, int] = {}  # key -> tokens
        self._ended: set[int] = set()  # whose tokens are free after the next step
        self._waiting: deque[Waiting] = deque()

    def __bool__(self) -> bool:
        """Whether anyone waits."""
        return bool(self._waiting)

    def put(self, waiting: Waiting) -> None:
        """Behind all others."""
        self._waiting.append(waiting)

    def take(self, applied: str | None, idle: bool) -> Waiting | None:
        """The next request, if it may start, or never may; `applied`: the adapter of what runs.

        `idle`: whether nothing runs, so that another adapter can be applied.
        """
        if not self._waiting:
            return None
        first = self._waiting[0]
        if self.too_long(first):
            return self._waiting.popleft()
        if not idle and not (first.sampling.lora_name == applied and self._fits(first)):
            return None
        if self._room is not None:
            self._promised[first.key] = self._tokens(first)
        return self._waiting.popleft()

    def too_long(self, waiting: Waiting) -> bool:
        """Whether a request does not fit even alone."""
        return self._room is not None and self._tokens(waiting) > self._room

    def _fits(self, waiting: Waiting) -> bool:
        used = sum(self._promised.values())
        return self._room is None or used + self._tokens(waiting) <= self._room

    def _tokens(self, waiting: Waiting) -> int:
        """In whole blocks."""
        most = len(waiting.ids) + waiting.sampling.max_tokens
        return cache_blocks(most) * KV_BLOCK_TOKENS

    def forget(self, key: int) -> None:
        """Of one that waits or runs no more; the pipeline frees its tokens with its next step."""
        self._waiting = deque(each for each in self._waiting if each.key != key)
        self._ended.add(key)

    def stepped(self) -> None:
        """The pipeline made a step."""
        for key in self._ended:
            self._promised.pop(key, None)
        self._ended.clear()

    def clear(self) -> None:
        """Drop all who wait."""
        self._waiting.clear()


def cache_blocks(tokens: int) -> int:
    """How many blocks so many tokens take."""
    return -(-tokens // KV_BLOCK_TOKENS)
