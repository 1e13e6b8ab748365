# SPDX-License-Identifier: Apache-2.0
"""Which tensor and pipeline sizes a checkpoint's config.json allows."""

from typing import Any

import pytest

from trellis.engine_files.checkpoint import TextConfig, text_config
from trellis.engine_files.parallel import (
    ParallelError,
    check_parallel,
    fitting,
    quantisation_groups,
)

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
}
QWEN_0_5B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "num_hidden_layers": 24,
}
LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}
QWEN_30B_A3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "num_hidden_layers": 48,
}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
PACKED = {
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}},
    }
}


def tensor_sizes(config: dict[str, Any], most: int = 16, **options: bool) -> list[int]:
    return sorted({tensor for tensor, _ in fitting(config, most, **options)})


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (SMOLLM2, [1, 3]),  # 9 heads; a third of 49152 is whole
        (SMOLLM2 | {"vocab_size": 49154}, [1]),  # padded to 49216, which 3 does not divide
        (QWEN_0_5B, [1, 2]),  # 14 heads, of which 7 do not share 2 of keys and values
        (LLAMA_8B, [1, 2, 4, 8, 16]),  # 16 parts repeat each of 8 heads of keys and values
        (QWEN_30B_A3B, [1, 2, 4, 8, 16]),
        (QWEN_30B_A3B | FP8, [1, 2]),  # a quarter of 768 is no multiple of 128
        (LLAMA_8B | PACKED, [1, 2, 4, 8, 16]),
        (QWEN_0_5B | PACKED, [1]),  # 14 heads of 64 / 2 = 3.5 x 128
        (LLAMA_8B | {"intermediate_size": 11008} | PACKED, [1, 2]),  # 11008 / 4 = 21.5 x 128
        (LLAMA_8B | {"intermediate_size": 14338}, [1, 2]),
        (LLAMA_8B | {"num_key_value_heads": 3, "kv_lora_rank": 512}, [1, 2, 4, 8, 16]),
        ({"num_hidden_layers": 4}, list(range(1, 17))),  # nothing is known of its sizes
    ],
)
def test_tensor_sizes_are_those_that_split_everything(
    config: dict[str, Any], sizes: list[int]
) -> None:
    assert tensor_sizes(config) == sizes
    for size in range(1, 17):
        if size in sizes:
            check_parallel(config, size, 1)
        else:
            with pytest.raises(ParallelError, match=f"TP={size} PP=1: .*; TP may be 1"):
                check_parallel(config, size, 1)


def test_whole_experts_are_not_split() -> None:
    sizes = tensor_sizes(QWEN_30B_A3B | FP8, expert_parallel=True)
    assert sizes == [1, 2, 4, 8, 16]
    check_parallel(QWEN_30B_A3B | FP8, 4, 1, expert_parallel=True)


def test_pairs_use_no_more_gpus_than_there_are() -> None:
    assert fitting(SMOLLM2, 4) == [(1, 1), (1, 2), (1, 3), (1, 4), (3, 1)]
    assert fitting(LLAMA_8B | {"num_hidden_layers": 2}, 4) == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (4, 1),
    ]
    assert max(tensor * pipeline for tensor, pipeline in fitting(LLAMA_8B, 64)) == 64


@pytest.mark.parametrize(
    ("tensor", "pipeline", "message"),
    [
        (2, 1, r"TP=2 PP=1: num_attention_heads 9 is no multiple of TP; TP may be 1 or 3$"),
        (4, 2, r"TP=4 PP=2: num_attention_heads 9 is no multiple of TP; TP may be 1 or 3$"),
        (1, 31, r"TP=1 PP=31: num_hidden_layers is 30; PP may be 1 to 30$"),
        (0, 1, r"TP=0 PP=1: both have to be 1 or more$"),
    ],
)
def test_the_error_says_what_fits(tensor: int, pipeline: int, message: str) -> None:
    with pytest.raises(ParallelError, match=message):
        check_parallel(SMOLLM2, tensor, pipeline)


def test_a_whole_config_is_read_at_its_text_model() -> None:
    whole = {"architectures": ["X"], "text_config": QWEN_30B_A3B, "hidden_size": 7, **FP8}
    assert tensor_sizes(whole) == [1, 2]
    form = text_config(whole)
    assert form.hidden_size == 2048
    assert fitting(form, 8) == fitting(whole, 8)


@pytest.mark.parametrize("strange", [[16384] * 35, 0, "4096", None, {"a": 1}])
def test_sizes_of_another_form_are_left_out(strange: Any) -> None:
    config = TextConfig.model_validate(LLAMA_8B | {"intermediate_size": strange})
    assert config.intermediate_size is None
    assert tensor_sizes(LLAMA_8B | {"quantization_config": strange}) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("quantisation", "found"),
    [
        ({"quant_method": "gptq", "group_size": -1}, (set(), set())),
        ({"quant_method": "awq", "group_size": 64}, ({64}, set())),
        (FP8["quantization_config"], (set(), {128})),
        (PACKED["quantization_config"], ({128}, set())),
        ({"config_groups": {"a": {"weights": None}, "b": 5}, "group_size": "x"}, (set(), set())),
        ({"config_groups": {"a": {"weights": {"block_structure": [64, 32]}}}}, (set(), {32, 64})),
    ],
)
def test_group_sizes_are_found_in_each_librarys_form(
    quantisation: dict[str, Any], found: tuple[set[int], set[int]]
) -> None:
    assert quantisation_groups(quantisation) == found
