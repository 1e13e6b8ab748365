"""The OpenVINO engine by itself, where its KV cache is too small for what is asked."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine


@pytest.fixture(scope="module")
def engine(demo_engine: tuple[Path, Path]) -> Iterator[OpenVinoEngine]:
    folder, _ = demo_engine
    made = OpenVinoEngine(
        EngineSettings(
            folder, max_batch_size=8, max_tokens_in_paged_kv_cache=256, enable_kv_cache_reuse=False
        )
    )
    yield made
    made.close()


def run(engine: OpenVinoEngine) -> tuple[dict[int, int], list[int]]:
    """How many tokens each key got, and which failed."""
    made: dict[int, int] = {}
    failures = []
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Failure):
                failures.append(event.key)
            else:
                made[event.key] = made.get(event.key, 0) + len(event.ids)
    return made, failures


def test_requests_that_only_together_exceed_the_cache_all_finish(engine: OpenVinoEngine) -> None:
    for key in (1, 2, 3):
        engine.add(key, np.full(10, 504), Sampling(max_tokens=150))
    assert run(engine) == ({1: 150, 2: 150, 3: 150}, [])


def test_a_prompt_that_exceeds_the_cache_fails_and_what_follows_is_served(
    engine: OpenVinoEngine,
) -> None:
    engine.add(4, np.full(1000, 504), Sampling(max_tokens=5))
    assert run(engine) == ({}, [4])
    engine.add(5, np.full(10, 504), Sampling(max_tokens=5))
    assert run(engine) == ({5: 5}, [])


def test_cancelling_while_a_step_is_read_disturbs_nobody(engine: OpenVinoEngine) -> None:
    for key in (6, 7, 8):
        engine.add(key, np.full(10, 504), Sampling(max_tokens=20))
    seen = []
    while engine.busy:
        for event in engine.step():
            seen.append(event.key)
            engine.cancel(7)  # as the step loop does with the rows of a request that failed
    assert seen.count(6) == seen.count(8) == 20
    assert 7 not in seen
