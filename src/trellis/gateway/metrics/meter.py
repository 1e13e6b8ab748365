# SPDX-License-Identifier: Apache-2.0
"""When the chunks of a sequence came, and how many tokens: what is done for each of them.

A chunk costs a few additions. The time between two is counted in its bucket at once, in a list
that all sequences of a model and adapter share; sums and numbers of tokens stay in the meter until
somebody looks (registry.py).

>>> meter = Meter()
>>> for now in (1.0, 1.02, 1.06): meter.chunk(2, now)
>>> meter.tokens, meter.gaps[:3]
(6, [0, 1, 1])
"""

import time
from bisect import bisect_left

from trellis.contract.metrics import INTER_TOKEN


def bucket_of(gap: float) -> int:
    """The bucket of a time between two chunks, in seconds."""
    return bisect_left(INTER_TOKEN, gap)


def new_gaps() -> list[int]:
    """No chunk yet, for each bucket; the last one is above all bounds."""
    return [0] * (len(INTER_TOKEN) + 1)


class Meter:
    """One sequence of an answer."""

    __slots__ = (
        "asked_at",
        "began",
        "cached",
        "finish",
        "first_at",
        "gaps",
        "last_at",
        "queued",
        "tokens",
    )

    def __init__(self, gaps: list[int] | None = None) -> None:
        """`gaps`: of all sequences of its model and adapter, a number a bucket."""
        self.gaps = new_gaps() if gaps is None else gaps
        self.tokens = 0
        self.asked_at = time.monotonic()  # when it was about to be
        self.first_at = self.last_at = 0.0  # of time.monotonic; 0: nothing came
        self.began = 0.0  # when the first token came, where that was before the first chunk
        self.finish = ""  # why it ended, as the engine says it
        self.queued: float | None = None  # seconds until the engine took it
        self.cached: int | None = None  # tokens of the prompt

    def chunk(self, tokens: int, now: float = 0.0) -> None:
        """So many tokens came; StepChannel does the same for all sequences of a step."""
        now = now or time.monotonic()
        if self.last_at:
            self.gaps[bucket_of(now - self.last_at)] += 1
        else:
            self.first_at = now
        self.last_at = now
        self.tokens += tokens

    def ended(self, summary: list[object]) -> None:
        """The engine host says how it went: see ipc/frames.py."""
        finish, cached, queued, lasted = summary
        self.finish = str(finish)
        self.cached = cached if isinstance(cached, int) else None
        self.queued = float(queued) if isinstance(queued, (int, float)) else None
        if lasted and isinstance(lasted, (int, float)):
            self.began = self.last_at - lasted

    @property
    def first_token_at(self) -> float:
        """When its first token came; 0: none did."""
        return self.began or self.first_at
