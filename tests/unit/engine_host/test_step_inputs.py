# SPDX-License-Identifier: Apache-2.0
"""The step socket's own inputs: read, checked by name, put into the settings."""

from typing import Any

import pytest

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.step_inputs import read_step_inputs, with_step_inputs
from trellis.errors import RequestError


def test_a_body_without_them_changes_nothing() -> None:
    sampling = Sampling()
    assert read_step_inputs({"input_ids": [1], "id": "x"}) == {}
    assert with_step_inputs(sampling, {}) is sampling


def test_what_is_sent_is_asked() -> None:
    body = {
        "top_log_probs": 5,
        "prompt_log_probs": True,
        "return_cached_tokens": True,
        "priority": -3,
        "bias_ids": [7, 9, 8],
        "bias_weights": [1.5, 0, -100],
    }
    expected = Sampling(
        max_tokens=4,
        log_probs=True,
        top_log_probs=5,
        prompt_log_probs=True,
        return_cached_tokens=True,
        priority=-3,
        bias_ids=(7, 8),
        bias_weights=(1.5, -100.0),
    )
    assert with_step_inputs(Sampling(max_tokens=4), read_step_inputs(body)) == expected


def test_no_likeliest_tokens_ask_for_no_chosen_ones() -> None:
    made = with_step_inputs(Sampling(), read_step_inputs({"top_log_probs": 0}))
    assert made == Sampling()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_log_probs", 21),
        ("top_log_probs", -1),
        ("top_log_probs", True),
        ("top_log_probs", 1.0),
        ("prompt_log_probs", 1),
        ("return_cached_tokens", "yes"),
        ("priority", 2**31),
        ("priority", None),
        ("bias_ids", [1, 1]),
        ("bias_ids", [-1]),
        ("bias_ids", [True]),
        ("bias_ids", [[1]]),
        ("bias_ids", {"1": 2}),
        ("bias_ids", [2**31]),
        ("bias_weights", [float("nan")]),
        ("bias_weights", [float("inf")]),
        ("bias_weights", [10**400]),
        ("bias_weights", ["1"]),
        ("bias_weights", 1.0),
        ("bias_weights", [1.0]),  # without ids
    ],
)
def test_a_bad_value_is_rejected_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as error:
        read_step_inputs({name: value})
    assert error.value.field == name
    assert len(str(error.value)) < 200


def test_a_bias_of_both_forms_is_rejected() -> None:
    sent = read_step_inputs({"bias_ids": [1], "bias_weights": [1.0]})
    with pytest.raises(RequestError, match=r"^bias_ids: contradicts embedding_bias"):
        with_step_inputs(Sampling(bias_ids=(2,), bias_weights=(1.0,)), sent)
