"""The OpenVINO engine by itself: a KV cache that is too small, log probabilities of the prompt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trellis.engine_host.engines.engine import EngineSettings, Failure, Progress, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine

pytestmark = pytest.mark.slow  # the demo's model makes every token


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


# The demo's weights have 8 bits and this library rounds by the batch's shape: a token's own log
# probability in the prompt and as it was generated differed by 0.12 at most.
CLOSE = 0.25
PROMPT = [504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4521, 314]


def told(engine: OpenVinoEngine, key: int, ids: list[int], **asked: Any) -> list[Progress]:
    sampling = Sampling(log_probs=True, **asked)
    engine.refuse(sampling)
    engine.add(key, np.array(ids), sampling)
    events: list[Progress] = []
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Progress)
            events.append(event)
    return events


def test_a_token_is_as_likely_in_the_prompt_as_generated(engine: OpenVinoEngine) -> None:
    plain = told(engine, 20, PROMPT, max_tokens=6)
    events = told(engine, 21, PROMPT, max_tokens=6, prompt_log_probs=True)
    ids = [token for event in events for token in event.ids]
    log_probs = [value for event in events for value in event.log_probs]
    assert ids == [token for event in plain for token in event.ids]
    assert len(log_probs) == 6
    assert log_probs == pytest.approx([v for e in plain for v in e.log_probs], abs=CLOSE)
    (again,) = told(engine, 22, PROMPT + ids, max_tokens=1, prompt_log_probs=True)
    assert again.extras is not None
    prompt = again.extras.prompt_log_probs
    assert prompt is not None
    assert len(prompt) == len(PROMPT) + 6
    assert prompt[0] is None
    values = [each[0] for each in prompt[1:] if each is not None]
    assert values[-6:] == pytest.approx(log_probs, abs=CLOSE)
    first = events[0].extras
    assert first is not None
    assert first.prompt_log_probs is not None
    assert [event.extras and event.extras.prompt_log_probs for event in events[1:]] == [None] * 5
    before = [each[0] for each in first.prompt_log_probs[1:] if each is not None]
    assert values[:-6] == pytest.approx(before, abs=CLOSE)
    assert min(values) < -8 < -1 < max(values)


def test_a_prompt_of_several_steps_has_all_of_its_own(engine: OpenVinoEngine) -> None:
    ids = (PROMPT * 20)[:250]
    (event,) = told(engine, 23, ids, max_tokens=1, prompt_log_probs=True)
    assert len(event.ids) == len(event.log_probs) == 1
    assert event.extras is not None
    assert event.extras.prompt_log_probs is not None
    assert len(event.extras.prompt_log_probs) == 250


def test_the_likeliest_token_is_the_chosen_one(engine: OpenVinoEngine) -> None:
    events = told(engine, 24, PROMPT, max_tokens=5, top_log_probs=1)
    for event in events:
        assert event.extras is not None
        assert event.extras.prompt_log_probs is None
        pairs = zip(event.ids, event.log_probs, strict=True)
        assert event.extras.top_log_probs == [[pair] for pair in pairs]
