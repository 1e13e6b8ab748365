# SPDX-License-Identifier: Apache-2.0
"""An Engine over a library that schedules by itself and answers through asyncio.

vLLM and TensorRT-LLM's LLM API have one shape: a request is an asynchronous generator of what is
new of it, and the library's own processes make the steps. Here one event loop, on a thread of its
own, runs a task a request; what the tasks of one step bring goes to `step` as one list.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol

import numpy as np

from trellis.engine_host.engines.engine import Failure, Figures, Progress, Sampling
from trellis.engine_host.engines.first_requests import PROMPT, first_requests
from trellis.errors import RequestError, TrellisError

WAIT_SECONDS = 0.2  # for the next step, unless `wake` comes first
LOOK_SECONDS = 1.0  # between looks at whether the library lives
SUMS = ("prefix_queries", "prefix_hits", "preemptions")
CLOSE_SECONDS = 2.0  # for requests to be dropped, then for the library to end

log = logging.getLogger("trellis.engine")

Events = list[Progress | Failure]


class LibraryDied(TrellisError, RuntimeError):
    """The library's own processes are gone, and with them whatever ran."""


def end_process(why: str) -> None:
    """End this process, which the host answers with an error to all that runs, and its own end."""
    log.error("%s", why)
    logging.shutdown()
    os._exit(1)


class AsyncLibrary(Protocol):
    """One library. All but `close` is called on the event loop."""

    facts: dict[str, Any]  # what its limits are made of

    @property
    def steps(self) -> int:
        """That its scheduler made, as far as it says; else 0 for ever."""

    async def prepare(self) -> None:
        """What is left to do before the first request. Raises RuntimeError if it fails."""

    def check(self, ids: list[int], sampling: Sampling) -> None:
        """Raise RequestError for a prompt ([n] token ids) that the library would not survive."""

    def generate(self, key: int, ids: list[int], sampling: Sampling) -> AsyncIterator[Events]:
        """What is new of a request, until it ends.

        Raises LibraryDied, or anything else for an error of this request alone. Closing the
        iterator drops the request.
        """

    def figures(self) -> Figures:
        """What it says of itself."""

    def why_dead(self) -> str:
        """Why its processes are gone; '' while they live."""

    def close(self) -> None:
        """End its processes; may block."""


class AsyncEngine:
    """Runs a library for the engine process's loop."""

    def __init__(
        self, library: AsyncLibrary, on_death: Callable[[str], None] = end_process
    ) -> None:
        self._library = library
        self._on_death = on_death
        self.facts = library.facts
        self._events: Events = []  # of the step that is coming in
        self._steps: queue.SimpleQueue[Events] = queue.SimpleQueue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._running: dict[int, int] = {}  # key -> sequences that did not end yet
        self._moves = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="library")
        self._thread.daemon = True
        self._thread.start()
        asyncio.run_coroutine_threadsafe(_prepare(library), self._loop).result()
        self._before = library.figures()
        self._call(self._look)

    def refuse(self, sampling: Sampling) -> None:
        """Nothing: the host knows the limits."""

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt ([n] int64). Raises RequestError for one that the library cannot take."""
        prompt: list[int] = ids.tolist()
        self._library.check(prompt, sampling)
        self._running[key] = sampling.sequences
        self._call(self._start, key, prompt, sampling)

    def step(self) -> Iterable[Progress | Failure]:
        """What came in since the last call; waits a moment if nothing did."""
        events: Events = []
        with contextlib.suppress(queue.Empty):
            events += self._steps.get(timeout=WAIT_SECONDS)
            while True:
                events += self._steps.get_nowait()
        kept = [event for event in events if event.key in self._running]
        for event in kept:
            self._count(event)
        return kept

    def wake(self) -> None:
        """Have a `step` that waits return. Any thread."""
        self._steps.put([])

    def figures(self) -> Figures:
        """The library's, its sums without what the first requests added."""
        now = self._library.figures()
        sums = {name: (getattr(now, name), getattr(self._before, name)) for name in SUMS}
        since = {name: said - (before or 0) for name, (said, before) in sums.items() if said}
        return now._replace(**since)

    def cancel(self, key: int) -> None:
        """Drop a request; nothing more comes of it."""
        if self._running.pop(key, None) is not None:
            self._call(self._drop, key)

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        return bool(self._running)

    @property
    def moves(self) -> int:
        """Changes as the library goes on: with each step, and while nothing runs with each look.

        A look while something runs proves that this event loop turns, but not the library.
        """
        return self._moves + self._library.steps

    def close(self) -> None:
        """Drop what runs and end the library."""
        with contextlib.suppress(Exception):  # the library may be gone already
            asyncio.run_coroutine_threadsafe(self._drop_all(), self._loop).result(CLOSE_SECONDS)
        ending = threading.Thread(target=self._library.close, daemon=True)  # it may never return
        ending.start()
        ending.join(CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _count(self, event: Progress | Failure) -> None:
        left = self._running[event.key]
        if isinstance(event, Failure) or (event.finish and left == 1):
            del self._running[event.key]
        elif event.finish:
            self._running[event.key] = left - 1

    # On the event loop.

    def _start(self, key: int, ids: list[int], sampling: Sampling) -> None:
        task = self._loop.create_task(self._run(key, ids, sampling))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _run(self, key: int, ids: list[int], sampling: Sampling) -> None:
        answer = self._library.generate(key, ids, sampling)
        try:
            async for events in answer:
                self._put(events)
        except LibraryDied as died:
            self._on_death(str(died))
        except RequestError as error:
            self._put([Failure(key, str(error), rejected=True)])
        except Exception as error:
            log.exception("the library failed a request")
            self._put([Failure(key, f"the engine failed: {error}")])
        finally:
            await _close(answer)

    def _put(self, events: Events) -> None:
        """Gather what the tasks bring that the library wakes together."""
        if not self._events:
            self._loop.call_soon(self._flush)
        self._events += events

    def _flush(self) -> None:
        events, self._events = self._events, []
        self._moves += 1
        self._steps.put(events)

    def _look(self) -> None:
        """See that the library died though nothing runs."""
        if not self._running:
            self._moves += 1
        if why := self._library.why_dead():
            self._on_death(why)
        else:
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _drop(self, key: int) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    async def _drop_all(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _prepare(library: AsyncLibrary) -> None:
    """Have it do what it would else do while a client waits. Raises RuntimeError if it cannot."""
    await library.prepare()
    keys = itertools.count(-1, -1)  # none of a client's
    began = time.monotonic()
    death = asyncio.ensure_future(_death(library))  # for which a request may wait in vain
    try:
        for together in first_requests(library.facts):
            work = asyncio.gather(*(_warm_up(library, next(keys), each) for each in together))
            await asyncio.wait((work, death), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                raise LibraryDied(death.result())
            work.result()
    finally:
        death.cancel()
    log.info("the engine's first requests took %.1f s", time.monotonic() - began)


async def _death(library: AsyncLibrary) -> str:
    """Wait until it died, and say why."""
    while not (why := library.why_dead()):
        await asyncio.sleep(LOOK_SECONDS)
    return why


async def _warm_up(library: AsyncLibrary, key: int, sampling: Sampling) -> None:
    """Run a request to its end. Only the library's death is a reason not to serve."""
    answer = library.generate(key, PROMPT, sampling)
    try:
        async for _ in answer:
            pass
    except LibraryDied:
        raise
    except Exception as error:
        log.warning("one of the engine's first requests failed: %s", error)
    finally:
        await _close(answer)


async def _close(answer: AsyncIterator[Events]) -> None:
    """Close a generator, which has the library drop the request if it has not ended."""
    close = getattr(answer, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()
