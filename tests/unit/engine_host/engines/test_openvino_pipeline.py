# SPDX-License-Identifier: Apache-2.0
"""What OpenVINO's pipeline is told of the numbers that it computes with."""

import pytest

from trellis.engine_host.engines.openvino_pipeline import device_properties

HINT = "INFERENCE_PRECISION_HINT"


@pytest.mark.parametrize(
    ("dtype", "hint"), [("", "f32"), ("float32", "f32"), ("bfloat16", "bf16"), ("float16", "f16")]
)
def test_numbers_are_of_the_dtype_that_is_asked_for(dtype: str, hint: str) -> None:
    assert device_properties(dtype)[HINT] == hint


def test_another_dtype_is_rejected_by_name() -> None:
    with pytest.raises(RuntimeError, match="dtype: int8: use one of float32, bfloat16, float16"):
        device_properties("int8")
