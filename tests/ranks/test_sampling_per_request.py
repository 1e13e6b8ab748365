"""The `transformers` engine chooses each request's tokens by that request's own settings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)

from ranks.checkpoints import random_llama  # noqa: E402
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling  # noqa: E402
from trellis.engine_host.engines.transformers import TransformersEngine  # noqa: E402
from trellis.errors import RequestError  # noqa: E402

PROMPT = np.arange(7, 15)
GREEDY = Sampling(max_tokens=16)
RANDOM = Sampling(max_tokens=16, sample=True, temperature=1.5, seed=3)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    folder = tmp_path_factory.mktemp("random")
    random_llama(folder, vocab_size=256)
    return TransformersEngine(
        EngineSettings(folder, max_batch_size=8, max_tokens_in_paged_kv_cache=256)
    )


def run(engine: TransformersEngine, *samplings: Sampling) -> list[list[int]]:
    """The ids of each, all in one batch."""
    made: dict[int, list[int]] = {}
    for key, sampling in enumerate(samplings, start=1):
        engine.add(key, PROMPT, sampling)
        made[key] = []
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure), event
            made[event.key] += event.ids
    return list(made.values())


def test_greedy_is_the_library_s_own_greedy(engine: TransformersEngine) -> None:
    prompt = torch.tensor(PROMPT[None])
    with torch.no_grad():
        for _ in range(GREEDY.max_tokens):
            logits = engine._model(prompt).logits[0, -1]
            prompt = torch.cat([prompt, logits.argmax().reshape(1, 1)], dim=1)
    assert run(engine, GREEDY) == [prompt[0, len(PROMPT) :].tolist()]


def test_no_id_that_ends_an_answer_comes_before_min_tokens(engine: TransformersEngine) -> None:
    (free,) = run(engine, GREEDY)
    ends = replace(GREEDY, end_id=free[2], stop_token_ids=(free[4], free[5]))
    (early,) = run(engine, replace(ends, min_tokens=0))
    assert early == free[: free.index(free[2]) + 1]
    (late,) = run(engine, replace(ends, min_tokens=10))
    assert not {free[2], free[4], free[5]} & set(late[:10])
    (others,) = run(engine, replace(GREEDY, end_id=-1, stop_token_ids=(free[4],)))
    assert others == free[: free.index(free[4]) + 1]


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(
    engine: TransformersEngine,
) -> None:
    alone = run(engine, RANDOM)[0]
    among = run(engine, GREEDY, replace(RANDOM, seed=9), RANDOM)
    assert among[2] == alone
    assert among[0] != alone
    assert among[1] != alone


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}, {"top_k": 1, "top_p": 0.5}]
)
def test_the_narrowest_sampling_is_greedy(
    engine: TransformersEngine, narrow: dict[str, Any]
) -> None:
    assert run(engine, replace(RANDOM, **narrow)) == run(engine, GREEDY)


def test_top_k_keeps_to_the_likeliest(engine: TransformersEngine) -> None:
    with torch.no_grad():
        best = engine._model(torch.tensor(PROMPT[None])).logits[0, -1].topk(3).indices.tolist()
    wide = replace(RANDOM, max_tokens=1, temperature=100.0)
    drawn = {run(engine, replace(wide, top_k=3, seed=seed))[0][0] for seed in range(40)}
    assert drawn == set(best)


def test_a_repetition_penalty_ends_repetition(engine: TransformersEngine) -> None:
    (ids,) = run(engine, replace(GREEDY, max_tokens=60, repetition_penalty=1e6))
    assert len(set(ids)) == 60
    assert not set(ids) & set(PROMPT.tolist())


def test_a_frequency_penalty_counts_what_was_generated(engine: TransformersEngine) -> None:
    (ids,) = run(engine, replace(GREEDY, max_tokens=60, frequency_penalty=1e6))
    assert len(set(ids)) == 60


def test_the_end_token_ends_but_not_before_min_tokens(engine: TransformersEngine) -> None:
    (ids,) = run(engine, GREEDY)
    end = ids[0]
    assert run(engine, replace(GREEDY, end_id=end, min_tokens=0)) == [[end]]
    (longer,) = run(engine, replace(GREEDY, end_id=end, min_tokens=5))
    assert len(longer) > 5
    assert end not in longer[:5]


def test_several_sequences_of_one_prompt_differ(engine: TransformersEngine) -> None:
    engine.add(1, PROMPT, replace(RANDOM, num_return_sequences=3))
    made: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure)
            made[event.sequence] += event.ids
    assert len({tuple(ids) for ids in made.values()}) == 3
    assert [len(ids) for ids in made.values()] == [16, 16, 16]


def test_a_cancelled_request_frees_its_cache(engine: TransformersEngine) -> None:
    for _ in range(5):
        engine.add(1, PROMPT, replace(GREEDY, max_tokens=200))
        list(engine.step())
        engine.cancel(1)
    assert engine.busy
    while engine.busy:
        assert list(engine.step()) == []
    assert len(run(engine, replace(GREEDY, max_tokens=200))[0]) == 200


def test_what_never_fits_into_the_cache_fails_by_itself(engine: TransformersEngine) -> None:
    engine.add(1, PROMPT, replace(GREEDY, max_tokens=5000))
    (failure,) = engine.step()
    assert isinstance(failure, Failure)
    assert failure.message.startswith("max_tokens: 5000")
    assert len(run(engine, GREEDY)[0]) == 16


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Sampling(beam_width=2), "beam_width"),
        (Sampling(log_probs=True), "return_log_probs"),
        (Sampling(end_id=256), "end_id"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    engine: TransformersEngine, asked: Sampling, name: str
) -> None:
    with pytest.raises(RequestError, match=f"^{name}: "):
        engine.refuse(asked)


def test_a_window_narrower_than_the_model_s_is_refused(tmp_path: Path) -> None:
    random_llama(tmp_path, vocab_size=64)
    with pytest.raises(ValueError, match="max_attention_window_size is 16"):
        TransformersEngine(EngineSettings(tmp_path, max_batch_size=1, max_attention_window_size=16))
