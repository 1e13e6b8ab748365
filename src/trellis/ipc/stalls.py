# SPDX-License-Identifier: Apache-2.0
"""Judges whether something moves, by what is seen of it: a number that changes.

The time that counts is the watcher's own: where it was itself kept from looking, by a stopped or an
overloaded machine, only a moment of that time counts. So nothing is called hung that had no chance
to move.
"""

PROMPT_TOKENS = 100.0  # of prompts that the slowest engine reads in a second
LOOK_SECONDS = 0.5  # between two looks
MOST_SECONDS = 1.0  # of the time between two looks that count


class Stall:
    """How long one number has not changed."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._looked = 0.0
        self._seconds = 0.0

    def look(self, value: float | None, now: float) -> float:
        """Seconds for which it was seen unchanged; 0.0 for None, which needs not change.

        `now`: in seconds of a clock that never goes back.
        """
        if value is None or value != self._value:
            self._seconds = 0.0
        else:
            self._seconds += min(now - self._looked, MOST_SECONDS)
        self._value, self._looked = value, now
        return self._seconds


def look_seconds(hang_timeout: float) -> float:
    """Seconds between looks for a hang time-out in seconds."""
    return min(LOOK_SECONDS, hang_timeout / 10)
