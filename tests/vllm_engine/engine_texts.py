# SPDX-License-Identifier: Apache-2.0
"""A real engine process without Triton: texts in, texts out."""

import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from trellis.engine_host.engines.engine import Failure, Progress, Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.tokenizers import Tokenizer

WAIT_SECONDS = 120.0
END = 2  # SmolLM2's


@dataclass
class Made:
    """What came of one request."""

    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    failure: Failure | None = None
    text: str = ""


class EngineTexts:
    """Asks an engine as the host does, and reads its answers as text."""

    def __init__(self, engine: EngineProcess, tokenizer: Tokenizer) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self._keys = count(1)

    def ask(self, *requests: tuple[str, dict[str, Any]]) -> list[Made]:
        """The answers to prompts that run together, each with its settings."""
        made: dict[int, Made] = {}
        for prompt, settings in requests:
            key = next(self._keys)
            sampling = Sampling(**{"max_tokens": 12, "end_id": END} | settings)
            self.engine.refuse(sampling)
            self.engine.add(key, np.array(self.tokenizer.encode(prompt), np.int64), sampling)
            made[key] = Made()
        end = time.monotonic() + WAIT_SECONDS
        while self.engine.busy:
            assert time.monotonic() < end, made
            for event in self.engine.step():
                _take(made[event.key], event)
        for each in made.values():
            each.text = self.tokenizer.decode([token for token in each.ids if token != END])
        return list(made.values())


def _take(made: Made, event: Progress | Failure) -> None:
    if isinstance(event, Failure):
        made.failure = event
        return
    made.ids += event.ids
    made.finish = event.finish or made.finish
