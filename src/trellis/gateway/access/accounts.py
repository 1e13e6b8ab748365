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

Clock = Callable[[], float]
MINUTE = 60.0
LIMITED = "rate_limit_exceeded"  # OpenAI's code


class Bucket:
    """So much a minute: full at first, filled evenly.

    >>> bucket = Bucket(60, lambda: 0.0)
    >>> bucket.take(60)
    >>> bucket.wait(1)
    1.0
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute  # 0: no limit
        self._clock = clock
        self._level = float(per_minute)
        self._filled = clock()

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
        more = (now - self._filled) * self.per_minute / MINUTE
        self._level = min(self._level + more, float(self.per_minute))
        self._filled = now


class Allowance:
    """What one request takes; without an account whatever it asks for."""

    def __init__(self, account: "Account | None" = None) -> None:
        self._account = account
        self._reserved = 0

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
            self._account.tokens -= self._reserved
            self._reserved = 0


UNBOUNDED = Allowance()  # holds nothing


class Account:
    """The requests with one key."""

    def __init__(self, name: str, limits: KeyLimits, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self.requests = 0  # in flight
        self.tokens = 0  # that those may take
        self._limits = limits
        self._requests = Bucket(limits.requests_per_minute, clock)
        self._tokens = Bucket(limits.tokens_per_minute, clock)

    def change(self, limits: KeyLimits) -> None:
        """Other limits; what is in flight goes on."""
        if limits.requests_per_minute != self._limits.requests_per_minute:
            self._requests = Bucket(limits.requests_per_minute, self._clock)
        if limits.tokens_per_minute != self._limits.tokens_per_minute:
            self._tokens = Bucket(limits.tokens_per_minute, self._clock)
        self._limits = limits

    @contextmanager
    def request(self) -> Iterator[Allowance]:
        """One request, from its head to the end of its answer. Raises Refusal."""
        most = self._limits.requests_in_flight
        if most and self.requests >= most:
            raise _limited(f"{most} requests in flight (requests_in_flight)", "wait for one to end")
        self.count()
        self.requests += 1
        allowance = Allowance(self)
        try:
            yield allowance
        finally:
            allowance.end()
            self.requests -= 1

    def count(self) -> None:
        """Note one request. Raises Refusal where there were too many within a minute."""
        wait = self._requests.wait(1)
        if wait:
            rate = f"{self._requests.per_minute} requests a minute (requests_per_minute)"
            raise _limited(rate, _later(wait), wait)
        self._requests.take(1)

    def reserve(self, tokens: int) -> None:
        """Note tokens that a request may take. Raises Refusal."""
        most, rate = self._limits.tokens_in_flight, self._tokens.per_minute
        for limit, name in ((most, "tokens_in_flight"), (rate, "tokens_per_minute")):
            if limit and tokens > limit:
                raise Refusal(
                    400,
                    f"max_tokens: the request may take {tokens} tokens with its prompt, and this"
                    f" key at most {limit} ({name}); send fewer max_tokens or a shorter prompt",
                    code=LIMITED,
                )
        if most and self.tokens + tokens > most:
            raise _limited(f"{most} tokens in flight (tokens_in_flight)", "wait for one to end")
        wait = self._tokens.wait(tokens)
        if wait:
            raise _limited(f"{rate} tokens a minute (tokens_per_minute)", _later(wait), wait)
        self._tokens.take(tokens)
        self.tokens += tokens

    def give_back(self, tokens: int) -> None:
        """So many of those that were reserved are not needed."""
        self._tokens.take(-tokens)
        self.tokens -= tokens


def _later(wait: float) -> str:
    return f"try again in {math.ceil(wait)} s"


def _limited(limit: str, remedy: str, wait: float = 1.0) -> Refusal:
    what = f"this key has at most {limit}; {remedy}"
    return Refusal(429, what, code=LIMITED, retry_after=max(math.ceil(wait), 1))
