"""Guessed tokens on OpenVINO, from the prompt or by a smaller model: the text stays what it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.lora_adapters import write_adapter
from support.openvino_ir import copy_ir, read, spoil
from trellis.engine_host.engines import openvino_pipeline
from trellis.engine_host.engines.engine import EngineSettings, Failure, Progress, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.errors import RequestError
from trellis.guides.translate import translate

pytestmark = pytest.mark.slow  # the demo's model makes every token

# Numbers that do not depend on how many tokens are in a step, which guesses change.
EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
}
CACHE = 256
PROMPT = [504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4521, 314]
PROMPTS = [PROMPT, PROMPT[:9] * 3]
GUESSING = ("prompt_lookup", "draft_engine")


@pytest.fixture(scope="module")
def draft(openvino_ir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with other weights, whose guesses are right at times."""
    model = read(openvino_ir)
    spoil(model, 0.15)
    return copy_ir(openvino_ir, tmp_path_factory.mktemp("draft") / "ir", model)


@pytest.fixture(scope="module")
def engines(openvino_ir: Path, draft: Path) -> Iterator[dict[str, OpenVinoEngine]]:
    """An engine without guesses, and one a way to guess."""
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "prompt_lookup": {"prompt_lookup": 4},
        "draft_engine": {"draft_engine": str(draft)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino_pipeline, "PROPERTIES", openvino_pipeline.PROPERTIES | EXACT)
        made = {
            name: OpenVinoEngine(
                EngineSettings(
                    openvino_ir,
                    max_batch_size=8,
                    max_tokens_in_paged_kv_cache=CACHE,
                    enable_kv_cache_reuse=False,
                    **guessing,
                )
            )
            for name, guessing in ways.items()
        }
    yield made
    for engine in made.values():
        engine.close()


def run(
    engine: OpenVinoEngine, prompts: list[list[int]], **asked: Any
) -> tuple[list[list[int]], list[list[float]], int]:
    """The ids of each prompt, their log probabilities, and in how many steps."""
    for key, prompt in enumerate(prompts):
        sampling = Sampling(**{"max_tokens": 24, "log_probs": True, **asked})
        engine.refuse(sampling)
        engine.add(key, np.array(prompt), sampling)
    ids: list[list[int]] = [[] for _ in prompts]
    log_probs: list[list[float]] = [[] for _ in prompts]
    steps = 0
    while engine.busy:
        steps += 1
        for event in engine.step():
            assert isinstance(event, Progress), event
            ids[event.key] += event.ids
            log_probs[event.key] += event.log_probs
    return ids, log_probs, steps


WORDS = translate("regex", "([a-z]+ ){4,6}[a-z]+")
ASKED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.3},
    "several ends": {"end_id": 2, "stop_token_ids": (28, 198)},
    "bad words": {"bad_words": ("capital", "France"), "end_id": 2},
    "a guide": {"guide_type": WORDS.kind, "guide": WORDS.text, "end_id": 2},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("guessing", GUESSING)
def test_the_text_is_that_without_guesses(
    engines: dict[str, OpenVinoEngine], guessing: str, asked: dict[str, Any]
) -> None:
    expected, log_probs, steps = run(engines["plain"], PROMPTS, **asked)
    ids, told, fewer = run(engines[guessing], PROMPTS, **asked)
    assert ids == expected
    for mine, theirs in zip(told, log_probs, strict=True):
        assert mine == pytest.approx(theirs, abs=0.01)
    assert fewer <= steps


@pytest.mark.parametrize("guessing", GUESSING)
def test_a_text_that_repeats_takes_fewer_steps(
    engines: dict[str, OpenVinoEngine], guessing: str
) -> None:
    ids, _, steps = run(engines[guessing], [PROMPT[:5] * 8], max_tokens=40, min_tokens=1)
    assert len(ids[0]) == 40
    assert steps < 35


def test_drawn_tokens_are_those_without_guesses_from_the_prompt(
    engines: dict[str, OpenVinoEngine],
) -> None:
    drawn = {"sample": True, "seed": 9, "temperature": 0.8, "top_k": 8, "min_p": 0.05}
    expected, _, _ = run(engines["plain"], PROMPTS, **drawn)
    assert run(engines["prompt_lookup"], PROMPTS, **drawn)[0] == expected


def test_drawn_tokens_are_rejected_beside_a_draft_model(
    engines: dict[str, OpenVinoEngine],
) -> None:
    with pytest.raises(RequestError, match=r"^temperature: .*draft model.*send 0"):
        engines["draft_engine"].refuse(Sampling(sample=True, temperature=0.8))


@pytest.mark.parametrize("guessing", GUESSING)
def test_min_tokens_are_rejected(engines: dict[str, OpenVinoEngine], guessing: str) -> None:
    with pytest.raises(RequestError, match=r"^min_tokens: .*guesses tokens.*send 1"):
        engines[guessing].refuse(Sampling(max_tokens=9, min_tokens=2))


@pytest.mark.parametrize("guessing", GUESSING)
@pytest.mark.parametrize(
    "asked", [{"beam_width": 2}, {"num_return_sequences": 2, "sample": True}], ids=str
)
def test_several_sequences_are_rejected_by_name(
    engines: dict[str, OpenVinoEngine], guessing: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=rf"^{next(iter(asked))}: .*guesses tokens.*send 1"):
        engines[guessing].refuse(Sampling(**asked))


@pytest.mark.parametrize("guessing", GUESSING)
def test_requests_that_only_together_exceed_the_cache_all_finish(
    engines: dict[str, OpenVinoEngine], guessing: str
) -> None:
    expected, _, _ = run(engines["plain"], PROMPTS, max_tokens=110)
    assert run(engines[guessing], PROMPTS, max_tokens=110)[0] == expected


@pytest.mark.parametrize("guessing", GUESSING)
def test_what_exceeds_the_cache_fails_alone(
    engines: dict[str, OpenVinoEngine], guessing: str
) -> None:
    engine = engines[guessing]
    for key, (length, most) in enumerate(((10, 20), (600, 5), (12, 20), (100, 300))):
        engine.add(key, np.full(length, 504), Sampling(max_tokens=most))
    events: list[Progress | Failure] = []
    while engine.busy:
        events += engine.step()
    failed = {event.key for event in events if isinstance(event, Failure)}
    assert failed == {1, 3}
    assert sum(len(event.ids) for event in events if isinstance(event, Progress)) == 40


@pytest.mark.parametrize("guessing", GUESSING)
def test_cancelling_disturbs_nobody(engines: dict[str, OpenVinoEngine], guessing: str) -> None:
    engine = engines[guessing]
    expected, _, _ = run(engines["plain"], PROMPTS[:1], max_tokens=20)
    for key in range(3):
        engine.add(key, np.array(PROMPT), Sampling(max_tokens=20))
    for _ in range(3):
        list(engine.step())
    engine.cancel(1)
    made: dict[int, list[int]] = {}
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Progress)
            made.setdefault(event.key, []).extend(event.ids)
    assert set(made) == {0, 2}
    assert made[0] == made[2] == expected[0][-len(made[0]) :]
    assert run(engine, PROMPTS[:1], max_tokens=20)[0] == expected


def test_guesses_without_a_known_cache_are_rejected(openvino_ir: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^max_tokens_in_paged_kv_cache: with prompt_lookup"):
        OpenVinoEngine(EngineSettings(openvino_ir, max_batch_size=8, prompt_lookup=4))


def test_a_draft_that_is_none_is_named(openvino_ir: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^draft_engine: OpenVINO cannot load"):
        OpenVinoEngine(
            EngineSettings(
                openvino_ir,
                max_batch_size=8,
                max_tokens_in_paged_kv_cache=CACHE,
                draft_engine=str(tmp_path),
            )
        )


def test_an_adapter_s_text_is_that_without_guesses(
    openvino_ir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_pipeline, "PROPERTIES", openvino_pipeline.PROPERTIES | EXACT)
    shapes = {f"model.layers.{layer}.self_attn.q_proj": (576, 576) for layer in range(10)}
    adapter = write_adapter(tmp_path / "adapter", shapes)
    texts = []
    for guessed in (None, 4):
        engine = OpenVinoEngine(
            EngineSettings(
                openvino_ir,
                max_batch_size=2,
                max_tokens_in_paged_kv_cache=CACHE,
                enable_kv_cache_reuse=False,
                lora_adapters={"polite": str(adapter)},
                prompt_lookup=guessed,
            )
        )
        texts.append([run(engine, PROMPTS, lora_name=name)[0] for name in ("polite", "")])
        engine.close()
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]
