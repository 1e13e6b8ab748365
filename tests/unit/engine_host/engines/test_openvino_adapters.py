"""LoRA adapters on OpenVINO: each request gets its own, however they fall together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import pytest
from safetensors.numpy import load_file

from support.lora_adapters import ALPHA, PREFIX, write_adapter
from support.openvino_ir import add_to_weight, copy_ir, read
from trellis.engine_host.engines.engine import EngineSettings, Failure, Progress, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.engine_host.engines.openvino_pipeline import device_properties
from trellis.errors import RequestError

pytestmark = pytest.mark.slow  # the demo's model makes every token

RANK, SHORT_ALPHA = 4, 6
SCALES = {"polite": ALPHA / RANK, "short": SHORT_ALPHA / RANK**0.5}
SHAPES = {
    f"model.layers.{layer}.{module}": shape
    for layer in range(10)
    for module, shape in (
        ("self_attn.q_proj", (576, 576)),
        ("self_attn.v_proj", (192, 576)),
        ("mlp.down_proj", (576, 1536)),
    )
}
PROMPT = [504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4521, 314]
TOKENS = 12
CLOSE = 0.25  # log probabilities by weights of 8 bits and of 32, on average


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "polite": write_adapter(folder / "polite", SHAPES, RANK, seed=1),
        "short": write_adapter(
            folder / "short", SHAPES, RANK, seed=2, use_rslora=True, lora_alpha=SHORT_ALPHA
        ),
    }


@pytest.fixture(scope="module")
def engine(openvino_ir: Path, adapters: dict[str, Path]) -> Iterator[OpenVinoEngine]:
    made = OpenVinoEngine(settings(openvino_ir, adapters))
    yield made
    made.close()


def settings(folder: Path, adapters: dict[str, Path], **more: Any) -> EngineSettings:
    named = {name: str(adapter) for name, adapter in adapters.items()}
    values = {"enable_kv_cache_reuse": False, "max_tokens_in_paged_kv_cache": 2048, **more}
    return EngineSettings(folder, max_batch_size=8, lora_adapters=named, **values)


def run(engine: OpenVinoEngine) -> dict[int, list[int]]:
    """The ids of each request."""
    ids: dict[int, list[int]] = {}
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Progress), event
            ids.setdefault(event.key, []).extend(event.ids)
    return ids


def add(engine: OpenVinoEngine, key: int, name: str) -> None:
    sampling = Sampling(max_tokens=TOKENS, lora_name=name)
    engine.refuse(sampling)
    engine.add(key, np.array(PROMPT), sampling)


def library(folder: Path, adapters: dict[str, Path]) -> dict[str, list[int]]:
    """What the library itself makes with each adapter, and without any."""
    loaded = {
        name: (genai.Adapter(str(adapter / "adapter_model.safetensors")), SCALES[name])
        for name, adapter in adapters.items()
    }
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1
    properties = device_properties() | {"adapters": genai.AdapterConfig(list(loaded.values()))}
    pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    made = {}
    for name in ("", *adapters):
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = TOKENS, True
        config.adapters = genai.AdapterConfig([loaded[name]] if name else [])
        (answer,) = pipeline.generate([openvino.Tensor(np.array([PROMPT]))], [config])
        made[name] = answer.m_generation_ids[0]
    return made


def test_each_request_gets_what_the_library_makes_with_its_adapter(
    engine: OpenVinoEngine, openvino_ir: Path, adapters: dict[str, Path]
) -> None:
    expected = library(openvino_ir, adapters)
    assert len({tuple(ids) for ids in expected.values()}) == 3
    order = ["", "polite", "short", "", "short", "polite"]
    for key, name in enumerate(order, start=1):
        add(engine, key, name)
    ids = run(engine)
    assert ids == {key: expected[name] for key, name in enumerate(order, start=1)}


def test_requests_of_one_adapter_run_together(engine: OpenVinoEngine) -> None:
    for key, name in ((11, "polite"), (12, "polite"), (13, "short")):
        add(engine, key, name)
    steps: list[set[int]] = []
    while engine.busy:
        steps.append({event.key for event in engine.step()})
    assert steps.count({11, 12}) == TOKENS
    assert steps.count({13}) == TOKENS
    assert {11, 12, 13} not in steps


@pytest.mark.parametrize("name", SCALES)
def test_an_adapter_is_scaled_as_peft_scales(
    engine: OpenVinoEngine,
    openvino_ir: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    name: str,
) -> None:
    plain, adapted = prompt_log_probs(engine, ""), prompt_log_probs(engine, name)
    folder = merge(openvino_ir, adapters[name], SCALES[name], tmp_path / "merged")
    other = OpenVinoEngine(settings(folder, {}))
    merged = prompt_log_probs(other, "")
    other.close()
    rounding = np.abs(adapted - merged).mean()
    assert rounding < CLOSE
    assert np.abs(adapted - plain).mean() > 3 * rounding


def prompt_log_probs(engine: OpenVinoEngine, name: str) -> np.ndarray:
    """How likely each token of the prompt is after those before it."""
    sampling = Sampling(max_tokens=1, lora_name=name, log_probs=True, prompt_log_probs=True)
    engine.add(20, np.array(PROMPT), sampling)
    while engine.busy:
        for event in engine.step():
            assert isinstance(event, Progress)
            assert event.extras is not None
            assert event.extras.prompt_log_probs is not None
            found = [each[0] for each in event.extras.prompt_log_probs if each is not None]
    return np.array(found)


def merge(ir: Path, adapter: Path, scale: float, folder: Path) -> Path:
    """The model with what an adapter adds in its own weights."""
    model, matrices = read(ir), load_file(adapter / "adapter_model.safetensors")
    for node in model.get_ops():
        name = node.get_friendly_name().removeprefix("__module.").partition("/")[0]
        first = matrices.get(f"{PREFIX}{name}.lora_A.weight")
        if first is not None and node.get_type_name() == "MatMul":
            second = matrices[f"{PREFIX}{name}.lora_B.weight"]
            add_to_weight(node, scale * (second @ first))
    return copy_ir(ir, folder, model)


def test_who_waits_for_an_adapter_can_be_cancelled(engine: OpenVinoEngine) -> None:
    for key, name in ((31, "polite"), (32, "short"), (33, "")):
        add(engine, key, name)
    engine.cancel(32)
    list(engine.step())
    engine.cancel(31)
    ids = run(engine)
    assert list(ids) == [33]
    assert len(ids[33]) == TOKENS


def test_an_adapter_that_the_engine_does_not_have_is_rejected_by_name(
    engine: OpenVinoEngine,
) -> None:
    with pytest.raises(RequestError, match=r"^lora_name: .*known: polite, short$"):
        engine.refuse(Sampling(lora_name="rude"))


def test_adapters_are_not_loaded_beside_a_prefix_cache(
    openvino_ir: Path, adapters: dict[str, Path]
) -> None:
    with pytest.raises(RuntimeError, match=r"^lora_adapters: not with enable_kv_cache_reuse"):
        OpenVinoEngine(settings(openvino_ir, adapters, enable_kv_cache_reuse=True))


def test_a_prompt_that_cannot_be_fails_alone(engine: OpenVinoEngine) -> None:
    engine.add(41, np.full(3000, 504), Sampling(max_tokens=1, lora_name="polite"))
    add(engine, 42, "short")
    events: list[Progress | Failure] = []
    while engine.busy:
        events += engine.step()
    assert [event.key for event in events if isinstance(event, Failure)] == [41]
    assert sum(len(e.ids) for e in events if isinstance(e, Progress)) == TOKENS
