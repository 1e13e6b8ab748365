"""The memory estimate, against the two engines that were measured."""

import json
from pathlib import Path

import pytest

from support.fake_engines import config
from trellis.engine_files.engine_config import EngineConfig, read_engine_config
from trellis.preflight.memory import GIB, estimate_memory, kv_bytes_per_token


def engine(folder: Path, **changes: int) -> EngineConfig:
    (folder / "config.json").write_text(json.dumps(config("0.5.0", **changes)))
    return read_engine_config(folder / "config.json")


@pytest.mark.parametrize(
    ("sizes", "weights", "held"),
    [
        ({"hidden_size": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 32}, 13, 33.77),
        ({"hidden_size": 5120, "num_layers": 40, "num_heads": 40, "num_kv_heads": 40}, 25, 45.0),
    ],
)
def test_the_measured_engines_are_met_within_two_percent(
    tmp_path: Path, sizes: dict[str, int], weights: float, held: float
) -> None:
    estimate = estimate_memory(engine(tmp_path, **sizes), weights * GIB, 80 * GIB, 0.2)
    assert estimate.held / GIB == pytest.approx(held, rel=0.02)
    assert estimate.held == estimate.weights + estimate.activations + estimate.kv_cache


def test_a_token_of_llama_2_7b_takes_half_a_mebibyte(tmp_path: Path) -> None:
    assert kv_bytes_per_token(engine(tmp_path)) == 2 * 32 * 32 * 128 * 2 == 512 * 1024


def test_the_kv_cache_is_split_over_ranks_and_limited_in_tokens(tmp_path: Path) -> None:
    split = engine(tmp_path, tensor_parallel=2, pipeline_parallel=2)
    assert kv_bytes_per_token(split) == 128 * 1024
    estimate = estimate_memory(split, 4 * GIB, 80 * GIB, 0.9, max_tokens=8192)
    assert estimate.kv_tokens == 8192
    assert estimate.kv_cache == GIB


def test_nothing_is_left_for_the_cache_where_the_weights_do_not_fit(tmp_path: Path) -> None:
    estimate = estimate_memory(engine(tmp_path), 13 * GIB, 16 * GIB, 0.9)
    assert (estimate.kv_cache, estimate.kv_tokens) == (0, 0)
    assert estimate.held > 16 * GIB
