# SPDX-License-Identifier: Apache-2.0
"""So many lines a second in the log, whatever clients do."""

import logging
import time
from collections.abc import Callable, Iterable


class LineLimit(logging.Filter):
    """Lets a burst of lines through, and then so many a second; says how many it left out."""

    def __init__(self, lines: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        """`lines`: a second."""
        super().__init__()
        self._lines, self._burst, self._now = lines, burst, now
        self._left = float(burst)
        self._since = now()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; its traceback is not."""
        now = self._now()
        self._left = min(self._left + (now - self._since) * self._lines, self._burst)
        self._since = now
        if self._left < 1:
            self._dropped += 1
            return False
        self._left -= 1
        record.exc_info = record.exc_text = None
        if self._dropped:
            record.msg = f"({self._dropped} lines left out) {record.msg}"
            self._dropped = 0
        return True


def limit_lines(loggers: Iterable[str], lines: float, burst: int) -> None:
    """Put one limit on several loggers."""
    limit = LineLimit(lines, burst)
    for name in loggers:
        logging.getLogger(name).addFilter(limit)
