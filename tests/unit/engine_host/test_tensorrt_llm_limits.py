# SPDX-License-Identifier: Apache-2.0
"""What the engine `llmapi` rejects by name, known without its package."""

from dataclasses import replace
from typing import Any

import pytest

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.kinds import ENGINE_TYPES, WITH_WORKERS, limits
from trellis.errors import RequestError

PLAIN: dict[str, Any] = {
    "vocab_size": 1000,
    "beam_width": 1,
    "no_guides": "",
    "guides_backend": "xgrammar",
    "adapters": ["a", "b"],
}
BEAMS = PLAIN | {"beam_width": 4}
BLIND = PLAIN | {"no_guides": "it has no files"}
GUIDED = {"guide_type": "regex", "guide": "a+", "end_id": 2}
WARM = {"sample": True, "temperature": 0.7, "seed": 3}


@pytest.mark.parametrize(
    ("facts", "asked", "message"),
    [
        (PLAIN, {"beam_width": 2}, "beam_width: 2 is not 1, .* max_beam_width: 2 in engine.yaml"),
        (BEAMS, {"beam_width": 1}, "beam_width: 1 is not 4, .* send 4"),
        (BEAMS, {"beam_width": 5}, "beam_width: 5 is not 4, .* send 4"),
        (BEAMS, {"beam_width": 4, **WARM}, "beam_width: .* no temperature, top_k, top_p or min_p"),
        (BEAMS, {"beam_width": 4, "repetition_penalty": 1.1}, "beam_width: .* repetition_penalty"),
        (BEAMS, {"beam_width": 4, "presence_penalty": 0.1}, "beam_width: .* presence_penalty"),
        (BEAMS, {"beam_width": 4, "frequency_penalty": 0.1}, "beam_width: .* frequency_penalty"),
        (
            BLIND,
            {"bad_words": ("a",)},
            "bad_words: this engine .llmapi. keeps none out here, .*: it has no files",
        ),
        (
            PLAIN | {"guides_backend": "llguidance"},
            {"bad_words": ("a",)},
            "bad_words: .* with xgrammar, and was loaded with llguidance",
        ),
        (PLAIN, GUIDED | {"bad_words": ("a",)}, "bad_words: not beside guided_decoding_guide_type"),
        (PLAIN, {"bad_words": ("a" * 300,)}, "bad_words: 300 bytes of UTF-8 in all; .* takes 256"),
        (BEAMS, {"beam_width": 4, "bad_words": ("a",)}, "beam_width: .* no bad_words"),
        (
            BLIND,
            GUIDED,
            "guided_decoding_guide_type: this engine .llmapi. follows none here, .*: it has no",
        ),
        (PLAIN, GUIDED | {"min_tokens": 2, "max_tokens": 5}, "min_tokens: .* where the guide does"),
        (BEAMS, GUIDED | {"beam_width": 4}, "beam_width: .* no guided_decoding_guide_type"),
        (
            BEAMS,
            {"bias_ids": (5,), "bias_weights": (1.0,), "beam_width": 4},
            "beam_width: .* no embedding_bias_words",
        ),
        (
            PLAIN,
            {"bias_ids": (5, 1000), "bias_weights": (1.0, 2.0)},
            "embedding_bias_words: has a weight for the id 1000, .* use 0 to 999",
        ),
        (PLAIN, {"lora_name": "c"}, "lora_name: .* has no adapter 'c'; known: a, b"),
        (
            PLAIN | {"adapters": []},
            {"lora_name": "c"},
            "lora_name: .* there are none; make the repository with SET=lora_adapters:name=folder",
        ),
        (PLAIN, {"end_id": 1000}, "end_id: 1000 is not in the vocabulary; use 0 to 999"),
        (PLAIN, {"stop_token_ids": (5, 1000)}, "stop_token_ids: 1000 is not in the vocabulary"),
        (
            PLAIN,
            {"end_id": 2, "stop_token_ids": (3,), "min_tokens": 2, "max_tokens": 5},
            "min_tokens: .* one end id until then, and this request ends at 2",
        ),
    ],
)
def test_what_it_cannot_do_is_rejected_by_name(
    facts: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=f"^{message}"):
        limits("llmapi", facts).refuse(replace(Sampling(), **asked))


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        (PLAIN, {}),
        (PLAIN, {"end_id": 999, "stop_token_ids": (0, 5)}),
        (PLAIN, {"end_id": 2, "min_tokens": 3, "max_tokens": 5}),
        (PLAIN, {**WARM, "temperature": 5.0, "presence_penalty": 3.0, "num_return_sequences": 9}),
        (PLAIN, {"log_probs": True, "repetition_penalty": 1.3}),
        (PLAIN, GUIDED),
        (PLAIN, {"lora_name": "b"}),
        (PLAIN, {"bad_words": ("Paris", "é")}),
        (PLAIN, {"bias_ids": (999,), "bias_weights": (-3.5,)}),
        (BEAMS, {"beam_width": 4, "length_penalty": 0.5, "log_probs": True}),
    ],
)
def test_what_it_can_do_passes(facts: dict[str, Any], asked: dict[str, Any]) -> None:
    made = limits("llmapi", facts)
    made.refuse(replace(Sampling(), **asked))
    made.given(Sampling())


def test_it_is_an_engine_with_workers_of_its_own() -> None:
    assert "llmapi" in ENGINE_TYPES
    assert "llmapi" in WITH_WORKERS
