"""gpu_device_ids counts among the GPUs that CUDA_VISIBLE_DEVICES leaves."""

import pytest

from trellis.engine_host.engines.gpus import choose_gpus


@pytest.mark.parametrize(
    ("ids", "visible", "chosen"),
    [
        ("", "", None),
        ("", "3", None),
        ("1", "", "1"),
        ("0,1", "4,5,6", "4,5"),
        ("2,0", "a,b,c", "c,a"),
    ],
)
def test_the_gpus_that_are_left(ids: str, visible: str, chosen: str | None) -> None:
    assert choose_gpus(ids, {"CUDA_VISIBLE_DEVICES": visible}) == chosen


@pytest.mark.parametrize("ids", ["x", "0,0", "-1", "0,3"])
def test_what_is_no_gpu_is_refused_by_name(ids: str) -> None:
    with pytest.raises(ValueError, match="gpu_device_ids is"):
        choose_gpus(ids, {"CUDA_VISIBLE_DEVICES": "0,1"})
