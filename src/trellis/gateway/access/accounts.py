# SPDX-License-Identifier: Apache-2.0
"""What the requests with one key take, against its limits.

Tokens are reserved before an engine is asked: those of the prompt, and as many as the answer may
have. Those that were not made are given back at the end, where their number is known.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trellis.gateway.access.key_file import KeyLimits
from trellis.gateway.refusals import Refusal
from trellis.gateway.worker_table import KeyNumbers

Clock = Callable[[], float]
MINUTE = 60.0
LIMITED = "rate_limit_exceeded"  # OpenAI's code
# Where the numbers of an account are: what is in flight, and two buckets of three.
_REQUESTS, _TOKENS, _REQUEST_BUCKET, _TOKEN_BUCKET = 0, 1, 2, 5
_FILLED, _RATE = 1, 2  # of a bucket, after its level


class Bucket:
    """So much a minute: full at first, filled evenly.

    >>> bucket = Bucket(60, lambda: 0.0)
    >>> bucket.take(60)
    >>> bucket.wait(1)
    1.0
    """

    def __init__(
        self, per_minute: int, clock: Clock, numbers: "memoryview[float] | None" = None, at: int = 0
    ) -> None:
        """`numbers`: where its three are kept, from `at` on; another limit fills it anew."""
        self.per_minute = per_minute  # 0: no limit
        self._clock = clock
        self._numbers = memoryview(bytearray(24)).cast("d") if numbers is None else numbers
        self._at = at
        if self._numbers[at + _RATE] != per_minute:
            self._numbers[at + _RATE] = self._level = float(per_minute)
            self._numbers[at + _FILLED] = clock()

    @property
    def _level(self) -> float:
        value: float = self._numbers[self._at]
        return value

    @_level.setter
    def _level(self, value: float) -> None:
        self._numbers[self._at] = value

    def wait(self, amount: int) -> float:
        """Seconds until there is so much; 0 for at once. `amount`: at most `per_minute`."""
        self._fill()
        if not self.per_minute or amount <= self._level:
            return 0.0
        return (amount - self._level) * MINUTE / self.per_minute

    def take(self, amount: int) -> None:
        """Take it, below nothing if need be; give back what is negative."""
        self._fill()
        self._level = min(self._level - amount, float(self.per_minute))

    def _fill(self) -> None:
        now = self._clock()
        more = (now - self._numbers[self._at + _FILLED]) * self.per_minute / MINUTE
        self._level = min(self._level + more, float(self.per_minute))
        self._numbers[self._at + _FILLED] = now


class Allowance:
    """What one request takes; without an account whatever it asks for."""

    def __init__(self, account: "Account | None" = None) -> None:
        self._account = account
        self._reserved = 0

    @property
    def most(self) -> int:
        """Tokens that one request may take, were it alone; 0: no limit."""
        return 0 if self._account is None else self._account.most

    def reserve(self, tokens: int) -> None:
        """Note tokens that the request may take. Raises Refusal where its key has no more."""
        if self._account is not None:
            self._account.reserve(tokens)
            self._reserved += tokens

    def settle(self, tokens: int) -> None:
        """Give back what was reserved beyond so many tokens."""
        if self._account is not None and tokens < self._reserved:
            self._account.give_back(self._reserved - tokens)
            self._reserved = tokens

    def end(self) -> None:
        """The request is answered."""
        if self._account is not None:
            self._account.free(self._reserved)
            self._reserved = 0


UNBOUNDED = Allowance()  # holds nothing


class Account:
    """The requests with one key, of all workers of the gateway."""

    def __init__(
        self,
        name: str,
        limits: KeyLimits,
        clock: Clock = time.monotonic,
        numbers: KeyNumbers | None = None,
    ) -> None:
        """`numbers`: those that other workers count in, too; None: there are none."""
        self.name = name
        self._clock = clock
        numbers = KeyNumbers() if numbers is None else numbers
        self._numbers, self._locked = numbers.cells, numbers.locked
        self.change(limits)

    def change(self, limits: KeyLimits) -> None:
        """Other limits; what is in flight goes on."""
        self._limits = limits
        rates = limits.requests_per_minute, limits.tokens_per_minute
        with self._locked:
            self._requests = Bucket(rates[0], self._clock, self._numbers, _REQUEST_BUCKET)
            self._tokens = Bucket(rates[1], self._clock, self._numbers, _TOKEN_BUCKET)

    @property
    def most(self) -> int:
        """Tokens that one request may take, were it alone; 0: no limit."""
        limits = (self._limits.tokens_in_flight, self._tokens.per_minute)
        return min((limit for limit in limits if limit), default=0)

    @property
    def requests(self) -> int:
        """In flight."""
        return int(self._numbers[_REQUESTS])

    @property
    def tokens(self) -> int:
        """That those in flight may take."""
        return int(self._numbers[_TOKENS])

    @contextmanager
    def request(self) -> Iterator[Allowance]:
        """One request, from its head to the end of its answer. Raises Refusal."""
        with self._locked:
            most = self._limits.requests_in_flight
            if most and self.requests >= most:
                limit = f"{most} requests in flight (requests_in_flight)"
                raise _limited(limit, "wait for one to end")
            self._count()
            self._numbers[_REQUESTS] += 1
        allowance = Allowance(self)
        try:
            yield allowance
        finally:
            allowance.end()
            with self._locked:
                self._numbers[_REQUESTS] -= 1

    def count(self) -> None:
        """Note one request. Raises Refusal where there were too many within a minute."""
        with self._locked:
            self._count()

    def _count(self) -> None:
        wait = self._requests.wait(1)
        if wait:
            rate = f"{self._requests.per_minute} requests a minute (requests_per_minute)"
            raise _limited(rate, _later(wait), wait)
        self._requests.take(1)

    def reserve(self, tokens: int) -> None:
        """Note tokens that a request may take. Raises Refusal, ValueError for fewer than none."""
        if tokens < 0:
            raise ValueError(f"{tokens} tokens cannot be reserved")
        most, rate = self._limits.tokens_in_flight, self._tokens.per_minute
        for limit, name in ((most, "tokens_in_flight"), (rate, "tokens_per_minute")):
            if limit and tokens > limit:
                raise Refusal(
                    400,
                    f"max_tokens: the request may take {tokens} tokens with its prompt, and this"
                    f" key at most {limit} ({name}); ask for fewer, or send a shorter prompt",
                    code=LIMITED,
                )
        with self._locked:
            if most and self.tokens + tokens > most:
                raise _limited(f"{most} tokens in flight (tokens_in_flight)", "wait for one to end")
            wait = self._tokens.wait(tokens)
            if wait:
                raise _limited(f"{rate} tokens a minute (tokens_per_minute)", _later(wait), wait)
            self._tokens.take(tokens)
            self._numbers[_TOKENS] += tokens

    def give_back(self, tokens: int) -> None:
        """So many of those that were reserved are not needed."""
        with self._locked:
            self._tokens.take(-tokens)
            self._numbers[_TOKENS] -= tokens

    def free(self, tokens: int) -> None:
        """So many of those that were reserved were taken by a request that has ended."""
        with self._locked:
            self._numbers[_TOKENS] -= tokens


def _later(wait: float) -> str:
    return f"try again in {math.ceil(wait)} s"


def _limited(limit: str, remedy: str, wait: float = 1.0) -> Refusal:
    what = f"this key has at most {limit}; {remedy}"
    return Refusal(429, what, code=LIMITED, retry_after=max(math.ceil(wait), 1))
