# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for a place in the engine's batch: first come, first served, within bounds.

A server that takes everything answers nothing in time. So the line has a length, beyond which a
request is refused at once, and a longest wait, after which one that did not start is.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from trellis.errors import TrellisError


class Overloaded(TrellisError, RuntimeError):
    """More work than the server can carry; the message says what to do."""


class Waiting(Protocol):
    """A prompt that waits; those of one request share an answer."""

    @property
    def answer(self) -> object:
        """Whom it is for."""


WaitingT = TypeVar("WaitingT", bound="Waiting")


class RequestQueue(Generic[WaitingT]):
    """Prompts by request. `places` is how many the engine runs at a time.

    `most` prompts may wait beyond those, for `seconds`; 0 is no bound. Any thread may use it.
    """

    def __init__(
        self,
        places: int,
        most: int = 0,
        seconds: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._requests: deque[tuple[float, list[WaitingT]]] = deque()
        self._prompts = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many prompts wait."""
        return self._prompts

    def put(self, prompts: list[WaitingT], running: int) -> None:
        """Append a request. Raises Overloaded if it would have to wait and there is no room."""
        with self._lock:
            room = self._most + max(self._places - running, 0) - self._prompts
            if self._most and len(prompts) > room:
                raise Overloaded(
                    f"the server is overloaded: {running} prompts are being answered and"
                    f" {self._prompts} wait, which leaves no room for {len(prompts)} more"
                    f" (max_queue_size: {self._most}); send the request again later"
                )
            self._requests.append((self._clock(), prompts))
            self._prompts += len(prompts)

    def take(self, running: int) -> list[WaitingT]:
        """The prompts of the first request if there is a place for one of them, else none."""
        with self._lock:
            if not self._requests or running >= self._places:
                return []
            _, prompts = self._requests.popleft()
            self._prompts -= len(prompts)
            return prompts

    def expired(self) -> list[WaitingT]:
        """Take out a prompt of each request that waited too long."""
        if not self._seconds or not self._requests:
            return []
        oldest = self._clock() - self._seconds
        found = []
        with self._lock:
            while self._requests and self._requests[0][0] < oldest:
                _, prompts = self._requests.popleft()
                self._prompts -= len(prompts)
                found.append(prompts[0])
        return found

    def expiry(self) -> Overloaded:
        """What to tell a request that waited too long."""
        return Overloaded(
            f"the server is overloaded: the request waited {self._seconds:g} s without a place in"
            " the engine (queue_timeout_microseconds); send it again later"
        )

    def remove(self, answer: object) -> None:
        """Take out the request of an answer that nobody waits for, if it is here."""
        with self._lock:
            kept = [item for item in self._requests if item[1][0].answer is not answer]
            if len(kept) < len(self._requests):
                self._requests = deque(kept)
                self._prompts = sum(len(prompts) for _, prompts in kept)

    def waiting(self) -> list[WaitingT]:
        """A prompt of each request, first come first."""
        with self._lock:
            return [prompts[0] for _, prompts in self._requests]
