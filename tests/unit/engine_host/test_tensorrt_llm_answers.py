# SPDX-License-Identifier: Apache-2.0
"""The engine `llmapi` over the fake of every release: ids, ends, errors of one request, aborts."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_engines import write_checkpoint
from support.fake_library import (
    EOS,
    VERSIONS,
    VOCAB_SIZE,
    Load,
    Loaded,
    failures,
    ids_of,
    import_adapter,
    of,
    toy_model,
)
from support.lora_adapters import write_adapter
from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, Failure, Sampling
from trellis.engine_host.engines.tensorrt_llm_answers import TIMED_OUT
from trellis.errors import RequestError
from trellis.guides.translate import translate
from trellis.tokenizers import load

PROMPTS = [[100, 200 + number] for number in range(12)]
ALL = pytest.mark.parametrize("version", VERSIONS)
# The two samplers end an answer differently: with the end id, and without it.
BOTH = pytest.mark.parametrize("version", ["1.2.1", "1.4.0rc1"])


@pytest.fixture(scope="module", params=VERSIONS)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    """One engine for the tests that need no script."""
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    with pytest.MonkeyPatch.context() as patched:
        made = Loaded(import_adapter(patched, request.param), folder, max_seq_len=20000)
        yield made
        made.close()


def test_greedy_ids_are_the_models_own_whatever_else_runs(loaded: Loaded) -> None:
    keys = [loaded.add(prompt, max_tokens=40) for prompt in PROMPTS]
    events = loaded.run()
    expected = [toy_model().greedy(prompt, 40, VOCAB_SIZE, EOS) for prompt in PROMPTS]
    assert [ids_of(events, key) for key in keys] == expected
    assert {len(ids) for ids in expected} != {40}  # some end by themselves
    for key, ids in zip(keys, expected, strict=True):
        reason = of(events, key)[-1].finish
        assert reason == ("length" if len(ids) == 40 else "stop")
        assert [event.finish for event in of(events, key)[:-1]].count(None) == len(
            of(events, key)
        ) - 1


@ALL
def test_what_generation_config_says_changes_nothing(
    llm_api: Load, checkpoint: Path, version: str
) -> None:
    values = {"temperature": 0.1, "top_k": 3, "top_p": 0.2, "repetition_penalty": 9.0}
    (checkpoint / "generation_config.json").write_text(json.dumps(values))
    loaded = llm_api(version)
    greedy = loaded.ask(PROMPTS[0], max_tokens=20)
    assert greedy == toy_model().greedy(PROMPTS[0], 20, VOCAB_SIZE, EOS)
    warm = {"sample": True, "temperature": 3.0, "max_tokens": 8}
    texts = {tuple(loaded.ask(PROMPTS[0], seed=seed, **warm)) for seed in range(8)}
    assert len(texts) > 4


def test_each_of_several_sequences_gets_its_own_ids_and_an_end(loaded: Loaded) -> None:
    warm = {"sample": True, "temperature": 1.5, "max_tokens": 30, "num_return_sequences": 4}
    keys = [loaded.add(PROMPTS[0], seed=5, **warm) for _ in range(2)]
    first, again = keys
    events = loaded.run()
    for sequence in range(4):
        assert ids_of(events, first, sequence) == ids_of(events, again, sequence)
        reasons = [event.finish for event in of(events, first, sequence)]
        assert reasons[:-1] == [None] * (len(reasons) - 1)
        made = ids_of(events, first, sequence)
        assert reasons[-1] == ("length" if len(made) == 30 else "stop")
        told = [token for event in of(events, first, sequence) for token in event.ids]
        assert told == made + [EOS] * (reasons[-1] == "stop")
    assert len({tuple(ids_of(events, first, sequence)) for sequence in range(4)}) == 4


def test_a_seed_decides_whatever_else_runs(loaded: Loaded) -> None:
    warm = {"sample": True, "temperature": 1.3, "top_k": 6, "top_p": 0.95, "max_tokens": 20}
    alone = loaded.ask(PROMPTS[1], seed=7, **warm)
    keys = [loaded.add(PROMPTS[1], seed=seed, **warm) for seed in (6, 7, 8)]
    events = loaded.run()
    assert ids_of(events, keys[1]) == alone
    assert ids_of(events, keys[0]) != alone != ids_of(events, keys[2])


def test_min_p_leaves_the_likeliest_alone(loaded: Loaded) -> None:
    warm = {"sample": True, "temperature": 3.0, "max_tokens": 10, "end_id": -1}
    greedy = loaded.ask(PROMPTS[1], max_tokens=10, end_id=-1)
    assert loaded.ask(PROMPTS[1], seed=7, min_p=1.0, **warm) == greedy
    assert loaded.ask(PROMPTS[1], seed=7, **warm) != greedy


def test_penalties_and_min_tokens_are_heeded(loaded: Loaded) -> None:
    ending = next(
        [100, number]
        for number in range(200, 400)
        if not toy_model().greedy([100, number], 1, VOCAB_SIZE, EOS, min_tokens=0)
    )
    assert loaded.ask(ending, min_tokens=0) == []
    assert len(loaded.ask(ending, min_tokens=5)) >= 5
    (likeliest,) = toy_model().greedy(PROMPTS[0], 1, VOCAB_SIZE, EOS)
    ids = [likeliest, *PROMPTS[0]]
    assert loaded.ask(ids, max_tokens=1) == [likeliest]
    assert loaded.ask(ids, max_tokens=1, repetition_penalty=50.0) != [likeliest]


@ALL
def test_a_stop_id_ends_an_answer_and_is_told_though_the_library_cuts_it_off(
    llm_api: Load, version: str
) -> None:
    loaded = llm_api(version, scripts=[{"after": 7, "ids": [50, 51, 52, 53]}])
    key = loaded.add([7], stop_token_ids=(52,))
    events = loaded.run()
    made = [token for event in of(events, key) for token in event.ids]
    assert made == [50, 51, 52]
    assert of(events, key)[-1].finish == "stop"


@BOTH
def test_the_end_id_is_told_whether_the_library_keeps_it_or_not(
    llm_api: Load, version: str
) -> None:
    loaded = llm_api(version, scripts=[{"after": 7, "ids": [50, 51]}])
    key = loaded.add([7])
    events = loaded.run()
    made = [token for event in of(events, key) for token in event.ids]
    assert made == [50, 51, EOS]
    assert of(events, key)[-1].finish == "stop"


def test_the_fake_goes_on_with_what_it_knows_and_with_what_a_prompt_repeats(llm_api: Load) -> None:
    loaded = llm_api("1.2.1", repeats=True, knows=[[50, 60, 70, 80, EOS], [90, 60, 71]])
    assert loaded.ask([50, 60]) == [70, 80]
    assert loaded.ask([90, 60], max_tokens=1) == [71]
    assert loaded.ask([50, 60, 55, 40, 50, 60], max_tokens=2) == [55, 40]  # its own goes first


def test_log_probabilities_are_the_chosen_tokens(loaded: Loaded) -> None:
    key = loaded.add(
        PROMPTS[2], log_probs=True, sample=True, temperature=2.0, seed=3, end_id=-1, max_tokens=6
    )
    events = of(loaded.run(), key)
    made, expected = list(PROMPTS[2]), []
    for event in events:
        for token in event.ids:
            scores = toy_model().logits(made, VOCAB_SIZE, EOS)
            expected.append(toy_model().log_probs(scores)[token])
            made.append(token)
    told = [value for event in events for value in event.log_probs]
    assert told == pytest.approx(expected)
    assert len(told) == 6
    assert any(value < math.log(0.3) for value in told)  # not the likeliest's
    assert events[-1].cum_log_prob == pytest.approx(sum(expected))


def extras(events: Any) -> tuple[list[Any], list[int]]:
    """The likeliest of all tokens, and the counts of cached tokens."""
    told = [event.extras for event in events if event.extras is not None]
    tops = [list(map(tuple, top)) for each in told for top in each.top_log_probs]
    return tops, [each.cached_tokens for each in told if each.cached_tokens is not None]


@ALL
def test_the_likeliest_are_told_without_the_chosen_one(llm_api: Load, version: str) -> None:
    """From the release on that tells them; before, the chosen one where it is the likeliest."""
    loaded = llm_api(version)
    late = loaded.library.facts["top_log_probs"]
    assert late == (version == "1.4.0rc1")
    count = 3 if late else 1
    more = {"sample": True, "temperature": 3.0, "seed": 3} if late else {}
    key = loaded.add(
        PROMPTS[2], log_probs=True, top_log_probs=count, end_id=-1, max_tokens=8, **more
    )
    events = of(loaded.run(), key)
    made, expected = list(PROMPTS[2]), []
    for token in (token for event in events for token in event.ids):
        values = toy_model().log_probs(toy_model().logits(made, VOCAB_SIZE, EOS))
        if late:  # in the others an end id cannot come, and is no candidate
            expected.append(sorted(values.items(), key=lambda item: -item[1])[:count])
        made.append(token)
    tops, cached = extras(events)
    assert cached == []
    assert len(tops) == 8
    assert {len(top) for top in tops} == {count}
    if late:
        chosen = made[len(PROMPTS[2]) :]
        assert any(token not in dict(top) for token, top in zip(chosen, tops, strict=True))
        for top, likeliest in zip(tops, expected, strict=True):
            assert [token for token, _ in top] == [token for token, _ in likeliest]
            assert [v for _, v in top] == pytest.approx([v for _, v in likeliest])
    else:
        assert [token for ((token, _),) in tops] == made[len(PROMPTS[2]) :]


@ALL
def test_cached_tokens_are_told_once_where_the_release_says_them(
    llm_api: Load, version: str
) -> None:
    loaded = llm_api(version)
    keys = [loaded.add([100] * 200, return_cached_tokens=asked) for asked in (True, False)]
    events = loaded.run()
    told = [extras(of(events, key))[1] for key in keys]
    assert told == [[] if version == "1.0.0" else [96], []]


def test_a_log_probability_that_the_release_does_not_tell_is_no_zero(llm_api: Load) -> None:
    loaded = llm_api("1.2.1", without_log_probs=True)
    given = {"sample": True, "temperature": 3.0, "max_tokens": 12, "end_id": -1}
    keys = [loaded.add(PROMPTS[0], log_probs=True, seed=seed, **given) for seed in range(2)]
    told = failures(loaded.run())
    assert all(told[key].startswith("return_log_probs: this release of") for key in keys)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (0, "text_input: TensorRT-LLM rejected the request: scripted error of one request"),
        (3, "the engine failed: TensorRT-LLM failed this request: scripted error of one request"),
    ],
)
@ALL
def test_an_error_ends_one_request_and_no_other(
    llm_api: Load, version: str, at: int, message: str
) -> None:
    """Before the first token it is the request's fault, afterwards the library's."""
    loaded = llm_api(version, scripts=[{"after": 7, "ids": [50] * 9, "at": at, "event": "error"}])
    keys = [loaded.add(ids, max_tokens=20) for ids in (PROMPTS[0], [7], PROMPTS[1])]
    events = loaded.run()
    assert [event for event in events if isinstance(event, Failure)] == [
        Failure(keys[1], message, rejected=at == 0)
    ]
    for key, prompt in ((keys[0], PROMPTS[0]), (keys[2], PROMPTS[1])):
        assert ids_of(events, key) == toy_model().greedy(prompt, 20, VOCAB_SIZE, EOS)
    assert loaded.deaths == []


GUIDED = {"guide_type": "ebnf_grammar", "guide": translate("json_schema", "{}").text}


@pytest.fixture
def tokenizer_settings(demo_engine: tuple[Path, Path]) -> dict[str, Any]:
    """A tokenizer that the library can read; its ends are the model's."""
    sample = tuple(load("gpt2", demo_engine[1]).encode(TOKENIZER_SAMPLE))
    return {"tokenizer": demo_engine[1], "tokenizer_sample": sample}


@ALL
def test_a_bad_guide_is_the_requests_fault_by_its_name(
    llm_api: Load, version: str, tokenizer_settings: dict[str, Any]
) -> None:
    loaded = llm_api(version, tokenizer_settings)
    bad = loaded.add(PROMPTS[1], **GUIDED | {"guide": "{"})
    good, free = loaded.add(PROMPTS[0], **GUIDED), loaded.add(PROMPTS[0])
    events = loaded.run()
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert (failure.key, failure.rejected) == (bad, True)
    assert failure.message.startswith("guided_decoding_guide: ")
    assert ids_of(events, good) == ids_of(events, free) != []


@BOTH
def test_the_end_of_a_guide_is_no_part_of_the_answer(
    llm_api: Load, version: str, tokenizer_settings: dict[str, Any]
) -> None:
    loaded = llm_api(
        version, tokenizer_settings, scripts=[{"after": 7, "ids": [50, 51, EOS, 52, 53]}]
    )
    for end_id in (-1, 60):
        key = loaded.add([7], **GUIDED, end_id=end_id)
        events = loaded.run()
        assert [token for event in of(events, key) for token in event.ids] == [50, 51]
        assert of(events, key)[-1].finish == "stop"


def test_without_a_tokenizer_the_engine_says_so(llm_api: Load) -> None:
    assert llm_api("1.2.1").engine.facts["no_guides"] == "there is none"


@ALL
def test_an_adapter_changes_its_own_requests(llm_api: Load, version: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {"model.layers.0.self_attn.q_proj": (8, 8)})
    loaded = llm_api(version, {"lora_adapters": {"polite": str(folder)}})
    assert loaded.engine.facts["adapters"] == ["polite"]
    adapted, free = loaded.add(PROMPTS[0], lora_name="polite"), loaded.add(PROMPTS[0])
    events = loaded.run()
    greedy = toy_model().greedy
    assert ids_of(events, adapted) == greedy(PROMPTS[0], 12, VOCAB_SIZE, EOS, adapter=1)
    assert ids_of(events, free) == greedy(PROMPTS[0], 12, VOCAB_SIZE, EOS)


def test_a_prompt_that_is_too_long_for_a_step_is_rejected_alone(loaded: Loaded) -> None:
    long, short = loaded.add([9] * 9000), loaded.add(PROMPTS[0])
    events = loaded.run()
    assert (
        "text_input: TensorRT-LLM rejected the request: The prompt length (9000)"
        in (failures(events)[long])
    )
    assert ids_of(events, short)
    assert loaded.deaths == []


@BOTH
def test_a_time_limit_of_the_librarys_own_is_an_error(llm_api: Load, version: str) -> None:
    loaded = llm_api(version, scripts=[{"after": 7, "ids": [50] * 9, "at": 2, "event": "timeout"}])
    key = loaded.add([7])
    assert failures(loaded.run()) == {key: TIMED_OUT}


def test_a_reason_that_nobody_knows_is_an_error_of_that_request(llm_api: Load) -> None:
    loaded = llm_api(
        "1.2.1", scripts=[{"after": 7, "ids": [50] * 9, "at": 1, "event": "odd_finish"}]
    )
    key = loaded.add([7])
    assert "nobody_knows" in failures(loaded.run())[key]
    assert loaded.deaths == []


@ALL
def test_a_cancelled_request_frees_its_place(llm_api: Load, version: str) -> None:
    loaded = llm_api(version, {"max_batch_size": 1}, step_seconds=0.005)
    long = loaded.add(PROMPTS[0], max_tokens=2000, end_id=-1)
    end = time.monotonic() + 5
    while not list(loaded.engine.step()):
        assert time.monotonic() < end
    waiting = loaded.add(PROMPTS[1], max_tokens=5)
    loaded.engine.cancel(long)
    events = loaded.run()
    assert ids_of(events, waiting) == toy_model().greedy(PROMPTS[1], 5, VOCAB_SIZE, EOS)
    assert not of(events, long)
    assert failures(events) == {}


def test_an_id_outside_the_vocabulary_does_not_get_there(loaded: Loaded) -> None:
    for ids in ([VOCAB_SIZE], [5, -1], []):
        with pytest.raises(
            RequestError, match=r"^text_input: has a token id outside of 0 to 31999"
        ):
            loaded.library.check(ids, Sampling())


@ALL
def test_beams_come_at_the_end_the_best_first(
    llm_api: Load, checkpoint: Path, version: str
) -> None:
    (checkpoint / "engine.yaml").write_text("max_beam_width: 3\n")
    loaded = llm_api(version)
    assert loaded.library.facts["beam_width"] == 3
    key = loaded.add(PROMPTS[3], beam_width=3, max_tokens=8)
    events = loaded.run()
    beams = [of(events, key, index) for index in range(3)]
    assert [len(news) for news in beams] == [1, 1, 1]
    assert len({tuple(news[0].ids) for news in beams}) == 3
    assert all(news[0].finish in ("stop", "length") for news in beams)
    narrow = loaded.add(PROMPTS[3])
    assert "Request beam width 1 is not equal" in failures(loaded.run())[narrow]
