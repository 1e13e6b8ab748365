# SPDX-License-Identifier: Apache-2.0
"""No input of the engine is ignored by `llmapi`: it reaches the library, or is rejected by name."""

import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from support.engine_inputs import (
    AROUND,
    ASKED,
    NOT_TOLD,
    STEP_ASKED,
    VOCAB_SIZE,
    answer,
    asked,
    engine_inputs,
    names_it,
    step_asked,
    without,
)
from support.fake_library import VERSIONS, import_adapter
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.kinds import ENGINE_TYPES, Limits, limits
from trellis.engine_host.step_inputs import STEP_INPUTS
from trellis.errors import RequestError

FACTS: dict[str, dict[str, Any]] = {
    "openvino": {},
    "transformers": {"vocab_size": VOCAB_SIZE},
    "llmapi": {
        "vocab_size": VOCAB_SIZE,
        "no_guides": "",
        "guides_backend": "xgrammar",
        "adapters": [],
        "beam_width": 1,
    },
}
VLLM = {key: value for key, value in FACTS["llmapi"].items() if key != "beam_width"}


@pytest.fixture(params=VERSIONS)
def adapter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    torch: Any = ModuleType("torch")
    torch.from_numpy = lambda array: array.tolist()
    monkeypatch.setitem(sys.modules, "torch", torch)
    return import_adapter(monkeypatch, request.param)


def test_the_table_has_every_input() -> None:
    assert set(engine_inputs()) == AROUND | ASKED.keys()
    assert not AROUND & ASKED.keys()
    assert set(STEP_INPUTS) == STEP_ASKED.keys()
    assert not ASKED.keys() & STEP_ASKED.keys()


@pytest.mark.parametrize("name", [*ASKED, *sorted(STEP_ASKED.keys() - NOT_TOLD)])
def test_an_input_reaches_the_llm_api_or_is_rejected_by_name(adapter: Any, name: str) -> None:
    def told(sampling: Sampling) -> dict[str, Any]:
        made = adapter.sampling_params(sampling, VOCAB_SIZE, guide_end=2)
        return {field.name: getattr(made, field.name) for field in fields(made)}

    made = answer(name, limits("llmapi", FACTS["llmapi"]).refuse)
    if isinstance(made, RequestError):
        assert names_it(made, name), made
    else:
        assert told(made) != told(without(name))


@pytest.mark.parametrize("name", ["lora_name", "embedding_bias"])
@pytest.mark.parametrize(
    "engine", [each for each in ENGINE_TYPES if each not in ("vllm", "llmapi")]
)
def test_what_some_engines_lack_is_rejected_by_name(engine: str, name: str) -> None:
    lacking: Limits = limits(engine, FACTS[engine])
    lacking.refuse(without(name))
    with pytest.raises(RequestError) as error:
        lacking.refuse(asked(name))
    assert names_it(error.value, name)


@pytest.mark.parametrize(
    ("name", "engine", "facts"),
    [
        ("top_log_probs", "openvino", {}),
        ("prompt_log_probs", "openvino", {"kv_cache_reuse": True}),
        ("priority", "openvino", {}),
        ("bias_ids", "openvino", {}),
        ("prompt_log_probs", "llmapi", FACTS["llmapi"] | {"top_log_probs": True}),
        ("priority", "llmapi", FACTS["llmapi"]),
        ("priority", "vllm", VLLM),
    ],
)
def test_what_some_engines_lack_of_the_step_inputs_is_rejected_by_name(
    name: str, engine: str, facts: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as error:
        limits(engine, facts).refuse(step_asked(name))
    assert names_it(error.value, name), error.value


@pytest.mark.parametrize("engine", ["openvino", "llmapi"])
@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        ({"top_log_probs": 1}, ""),
        ({"top_log_probs": 2}, "send 1"),
        ({"top_log_probs": 1, "sample": True}, "send 0"),
    ],
)
def test_without_sampling_the_chosen_token_is_the_likeliest(
    engine: str, sent: dict[str, Any], hint: str
) -> None:
    checked: Limits = limits(engine, FACTS[engine])
    if hint:
        with pytest.raises(RequestError, match=f"^top_log_probs: .*{hint}$"):
            checked.refuse(Sampling(**sent))
    else:
        checked.refuse(Sampling(**sent))


@pytest.mark.parametrize(
    ("engine", "facts", "sent"),
    [
        ("openvino", {}, {"prompt_log_probs": True}),
        ("openvino", {}, {"return_cached_tokens": True}),
        ("llmapi", FACTS["llmapi"] | {"top_log_probs": True}, {"top_log_probs": 20}),
        ("vllm", VLLM | {"priority": True}, {"priority": 5, "top_log_probs": 20}),
        ("vllm", VLLM, {"prompt_log_probs": True, "top_log_probs": 3}),
    ],
)
def test_what_an_engine_has_of_the_step_inputs_passes(
    engine: str, facts: dict[str, Any], sent: dict[str, Any]
) -> None:
    limits(engine, facts).refuse(Sampling(**sent))
