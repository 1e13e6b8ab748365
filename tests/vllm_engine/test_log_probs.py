# SPDX-License-Identifier: Apache-2.0
"""Log probabilities of a real vLLM on a CPU, beside transformers' own over the same weights."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trellis.engine_host.engines.engine import EngineSettings, Progress, Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.tokenizers import load

CLOSE = 2e-3  # float32 in both; the kernels differ
PROMPT = "The capital of France is Paris, and the capital of Germany is"
MOST = 5


@pytest.fixture(scope="module")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Of one request at a time, in the order of their priorities."""
    folder = tmp_path_factory.mktemp("one") / "checkpoint"
    shutil.copytree(checkpoint, folder, symlinks=True)
    with (folder / "engine.yaml").open("a") as file:
        file.write("scheduling_policy: priority\n")
    settings = EngineSettings(
        folder, max_batch_size=1, max_seq_len=512, max_tokens_in_paged_kv_cache=8192
    )
    process = EngineProcess("vllm", settings)
    yield process
    process.close()


@pytest.fixture(scope="module")
def prompt(demo_engine: tuple[Path, Path]) -> list[int]:
    return load("gpt2", demo_engine[1]).encode(PROMPT)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    """A function of ids, [n]: the log probabilities of what comes next at each, [n, vocabulary]."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # others wait for the cores, and threads for one another
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def log_probs(ids: list[int]) -> Any:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)

    return log_probs


def ask(engine: EngineProcess, ids: list[int], **asked: Any) -> list[Progress]:
    sampling = Sampling(**{"max_tokens": 6, "log_probs": True} | asked)
    engine.refuse(sampling)
    engine.add(1, np.array(ids, np.int64), sampling)
    events: list[Progress] = []
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Progress), event
            events.append(event)
    return events


def tops(events: list[Progress]) -> list[list[tuple[int, float]]]:
    """The likeliest of each generated token."""
    return [
        [(pair[0], pair[1]) for pair in top]
        for event in events
        if event.extras is not None
        for top in event.extras.top_log_probs
    ]


def prompt_of(events: list[Progress]) -> list[Any]:
    """The prompt's log probabilities, told once."""
    told = [event.extras.prompt_log_probs for event in events if event.extras is not None]
    assert told[1:] == [None] * (len(told) - 1)
    assert told[0] is not None
    return told[0]


def check_top(found: list[tuple[int, float]], expected: Any) -> None:
    """`expected`: of all the vocabulary, [n]."""
    values, ids = expected.topk(MOST)
    assert [token for token, _ in found] == ids.tolist()
    assert [value for _, value in found] == pytest.approx(values.tolist(), abs=CLOSE)


@pytest.mark.parametrize(
    "drawn", [{}, {"sample": True, "temperature": 1.8, "seed": 3}], ids=["greedy", "drawn"]
)
def test_the_likeliest_are_transformers_own(
    engine: EngineProcess, prompt: list[int], reference: Any, drawn: dict[str, Any]
) -> None:
    events = ask(engine, prompt, top_log_probs=MOST, **drawn)
    ids = [token for event in events for token in event.ids]
    chosen = [value for event in events for value in event.log_probs]
    expected = reference(prompt + ids)[len(prompt) - 1 : -1]
    assert len(tops(events)) == len(chosen) == len(ids) == 6
    for found, token, value, each in zip(tops(events), ids, chosen, expected, strict=True):
        check_top(found, each)
        assert value == pytest.approx(each[token].item(), abs=CLOSE)
        assert not drawn or len(found) == MOST
    if drawn:
        assert any(t not in dict(top) for t, top in zip(ids, tops(events), strict=True))
    assert all(event.extras.prompt_log_probs is None for event in events if event.extras)


def test_the_prompt_s_are_transformers_own_and_those_of_the_same_tokens_generated(
    engine: EngineProcess, prompt: list[int], reference: Any
) -> None:
    generated = ask(engine, prompt, top_log_probs=MOST)
    ids = prompt + [token for event in generated for token in event.ids]
    told = prompt_of(ask(engine, ids, top_log_probs=MOST, prompt_log_probs=True, max_tokens=1))
    assert told[0] is None
    assert len(told) == len(ids)
    for (value, top), token, each in zip(told[1:], ids[1:], reference(ids), strict=False):
        assert value == pytest.approx(each[token].item(), abs=CLOSE)
        check_top([tuple(pair) for pair in top], each)
    chosen = [value for event in generated for value in event.log_probs]
    assert [value for value, _ in told[len(prompt) :]] == pytest.approx(chosen, abs=CLOSE)


def test_a_prompt_s_chosen_tokens_alone(engine: EngineProcess, prompt: list[int]) -> None:
    both = prompt_of(ask(engine, prompt, top_log_probs=1, prompt_log_probs=True))
    alone = ask(engine, prompt, prompt_log_probs=True)
    assert tops(alone) == []
    values = [each and each[0] for each in prompt_of(alone)]
    assert values[1:] == pytest.approx([value for value, _ in both[1:]], abs=CLOSE)
    assert [each[1] for each in prompt_of(alone)[1:]] == [[]] * (len(prompt) - 1)


def test_cached_tokens_are_those_of_whole_blocks_asked_before(
    engine: EngineProcess, prompt: list[int]
) -> None:
    ids = (prompt * 20)[:200]
    told = []
    for asked in (True, True, False):
        events = ask(engine, ids, log_probs=False, return_cached_tokens=asked)
        found = [event.extras.cached_tokens for event in events if event.extras is not None]
        told.append(found)
    assert told[0] == [0]
    (cached,) = told[1]
    assert cached is not None
    assert 64 <= cached < 200
    assert told[2] == []


def test_the_lowest_number_comes_first_whenever_it_was_asked(
    engine: EngineProcess, prompt: list[int]
) -> None:
    """vLLM's order: a lower number is more urgent."""
    priorities = {1: 0, 2: 5, 3: 7, 4: -3, 5: 5}
    for key, priority in priorities.items():
        sampling = Sampling(max_tokens=24, priority=priority, end_id=-1)
        engine.refuse(sampling)
        engine.add(key, np.array(prompt, np.int64), sampling)
    ended = []
    while engine.busy:
        ended += [event.key for event in engine.step() if getattr(event, "finish", None)]
    urgent = sorted(priorities, key=lambda key: (priorities[key], key))
    assert [key for key in ended if key != 1] == [key for key in urgent if key != 1]
