# SPDX-License-Identifier: Apache-2.0
"""No input of the engine is ignored by `vllm`: it reaches the library, or is rejected by name."""

from typing import Any

import pytest
from msgspec.structs import asdict

from support.engine_inputs import ASKED, NOT_TOLD, STEP_ASKED, VOCAB_SIZE, answer, names_it, without
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.kinds import limits
from trellis.engine_host.engines.vllm_requests import sampling_params
from trellis.errors import RequestError

FACTS: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "no_guides": "",
    "guides_backend": "xgrammar",
    "adapters": [],
}


def told(sampling: Sampling) -> dict[str, Any]:
    return dict(asdict(sampling_params(sampling, 2)))


@pytest.mark.parametrize("name", [*ASKED, *sorted(STEP_ASKED.keys() - NOT_TOLD)])
def test_an_input_reaches_vllm_or_is_rejected_by_name(name: str) -> None:
    made = answer(name, limits("vllm", FACTS).refuse)
    if isinstance(made, RequestError):
        assert names_it(made, name), made
    else:
        assert told(made) != told(without(name))


def test_the_same_request_is_told_in_the_same_way() -> None:
    assert told(without("temperature")) == told(without("beam_width"))
