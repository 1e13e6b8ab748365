"""An engine that answers at once, in the place of the one that a repository was assembled for.

It takes the road of every Python engine (`engines/engine.py`): a step makes one token for each
request. Tokens come from `scripts`, in the stand-in backend's format; a request's seed, if it has
one, is its step's length in microseconds, and all requests of a run have the same.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trellis.engine_host.engines.engine import EngineSettings, Progress, Sampling


class OpenVinoEngine:
    """Replays scripted ids."""

    facts: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: EngineSettings) -> None:
        self._scripts = _scripts(Path(settings.path) / "scripts")
        self._running: dict[int, tuple[list[int], int]] = {}  # key -> (ids, how many were made)
        self._step_seconds = 0.0

    def refuse(self, sampling: Sampling) -> None:
        """It can do anything, by doing nothing."""

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Look up the answer."""
        tail = ids.tolist()
        answer = next(a for p, a in self._scripts if not p or tail[-len(p) :] == p)
        self._running[key] = (answer[: sampling.max_tokens], 0)
        self._step_seconds = sampling.seed / 1e6

    def step(self) -> Iterator[Progress]:
        """One token for every request."""
        if self._step_seconds:
            now = time.monotonic()
            time.sleep(self._step_seconds - now % self._step_seconds)
        made = []
        for key, (ids, at) in list(self._running.items()):
            last = at + 1 >= len(ids)
            made.append(Progress(key, 0, [ids[at]], "length" if last else None, [], 0.0))
            if last:
                del self._running[key]
            else:
                self._running[key] = (ids, at + 1)
        return iter(made)

    def cancel(self, key: int) -> None:
        """Forget a request."""
        self._running.pop(key, None)

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return bool(self._running)

    def close(self) -> None:
        """Nothing to release."""


def _scripts(path: Path) -> list[tuple[list[int], list[int]]]:
    pairs = [line.split("->") for line in path.read_text().splitlines()]
    return [([*map(int, prompt.split())], [*map(int, answer.split())]) for prompt, answer in pairs]
