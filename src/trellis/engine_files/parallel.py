# SPDX-License-Identifier: Apache-2.0
"""Into how many parts a checkpoint can be split: tensor parallel times pipeline parallel.

    9 heads, 3 of keys and values, 30 layers, at most 3 GPUs -> (1, 1), (1, 2), (1, 3), (3, 1)

vLLM's rules, which are the stricter ones; of what `config.json` does not say nothing is checked.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from trellis.engine_files.checkpoint import TextConfig, text_config
from trellis.errors import TrellisError

VOCABULARY_PADDING = 64  # a vocabulary is padded to a multiple of it, and then split


class ParallelError(TrellisError, ValueError):
    """A split that the checkpoint does not allow; the message says which ones it allows."""


def check_parallel(
    config: TextConfig | Mapping[str, Any],
    tensor: int,
    pipeline: int,
    *,
    expert_parallel: bool = False,
) -> None:
    """Raise ParallelError if a checkpoint cannot be split so, with the sizes that fit.

    Args:
        config: of the checkpoint: its form, or `config.json` as it was read.
        tensor: parts of each layer, on as many GPUs.
        pipeline: groups of layers, on as many GPUs each.
        expert_parallel: whether experts are dealt out whole instead of split.
    """
    form = _form(config)
    asked = f"TP={tensor} PP={pipeline}"
    if tensor < 1 or pipeline < 1:
        raise ParallelError(f"{asked}: both have to be 1 or more")
    layers = form.num_hidden_layers
    if layers is not None and pipeline > layers:
        raise ParallelError(f"{asked}: num_hidden_layers is {layers}; PP may be 1 to {layers}")
    why = next(_obstacles(form, tensor, expert_parallel), "")
    if why:
        most = max(tensor, form.num_attention_heads or 1)
        sizes = [n for n in range(1, most + 1) if _splits(form, n, expert_parallel)]
        raise ParallelError(f"{asked}: {why}; TP may be {_listed(sizes)}")


def fitting(
    config: TextConfig | Mapping[str, Any], most: int, *, expert_parallel: bool = False
) -> list[tuple[int, int]]:
    """Every (tensor, pipeline) that a checkpoint allows on at most so many GPUs, sorted."""
    form = _form(config)
    layers = form.num_hidden_layers or most
    return [
        (tensor, pipeline)
        for tensor in range(1, most + 1)
        if _splits(form, tensor, expert_parallel)
        for pipeline in range(1, min(most // tensor, layers) + 1)
    ]


def _form(config: TextConfig | Mapping[str, Any]) -> TextConfig:
    return config if isinstance(config, TextConfig) else text_config(config)


def _splits(config: TextConfig, tensor: int, expert_parallel: bool) -> bool:
    return not any(_obstacles(config, tensor, expert_parallel))


def _obstacles(config: TextConfig, tensor: int, expert_parallel: bool) -> Iterator[str]:
    """What keeps the layers from being split in so many parts."""
    if tensor == 1:
        return
    inner = {"intermediate_size": config.intermediate_size}
    if not expert_parallel:
        inner["moe_intermediate_size"] = config.moe_intermediate_size
    for name, size in {"num_attention_heads": config.num_attention_heads, **inner}.items():
        if size is not None and size % tensor:
            yield f"{name} {size} is no multiple of TP"
    shared = config.shared_heads
    if shared is not None and max(shared, tensor) % min(shared, tensor):
        yield f"num_key_value_heads {shared} is neither a multiple nor a divisor of TP"
    if config.vocab_size is not None:
        padded = -(-config.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
        if padded % tensor:
            yield f"vocab_size {config.vocab_size}, padded to {padded}, is no multiple of TP"
    yield from _cut_groups(config, tensor, inner)


def _cut_groups(config: TextConfig, tensor: int, inner: Mapping[str, int | None]) -> Iterator[str]:
    """Sizes that would be split within a group of weights that were quantised together."""
    groups, blocks = quantisation_groups(config.quantization_config or {})
    split = dict(inner)
    head, heads, shared = config.head_size, config.num_attention_heads, config.shared_heads
    if head and heads and shared:
        split["num_attention_heads x head_dim"] = heads * head
    for name, size in split.items():
        for group in groups | blocks:
            if size and size // tensor % group:
                yield f"{name} {size} in {tensor} parts cuts groups of {group} quantised weights"
    for block in blocks:
        if head and shared and max(shared // tensor, 1) * head % block:
            yield (
                f"num_key_value_heads x head_dim {shared * head} in {tensor} parts cuts blocks of"
                f" {block} quantised weights"
            )


def quantisation_groups(quantisation: Mapping[str, Any]) -> tuple[set[int], set[int]]:
    """Sizes of groups (of a layer's inputs) and of square blocks in `quantization_config`.

    >>> quantisation_groups({"quant_method": "awq", "group_size": 128})
    ({128}, set())
    >>> quantisation_groups({"quant_method": "fp8", "weight_block_size": [128, 128]})
    (set(), {128})
    """
    tables = [quantisation]
    named = quantisation.get("config_groups")  # of compressed-tensors, one for a kind of layer
    for group in named.values() if isinstance(named, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            tables.append(weights)
    groups, blocks = set(), set()
    for table in tables:
        groups |= set(_sizes(table.get("group_size")))
        blocks |= {*_sizes(table.get("weight_block_size")), *_sizes(table.get("block_structure"))}
    return groups, blocks


def _sizes(value: Any) -> Iterator[int]:
    """The numbers above 1 in what may be a number, a list of some, or neither."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and item > 1:
            yield item


def _listed(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes[:-1])) + " or " * (len(sizes) > 1) + str(sizes[-1])
