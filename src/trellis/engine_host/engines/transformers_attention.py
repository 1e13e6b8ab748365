# SPDX-License-Identifier: Apache-2.0
"""Attention on GPUs for the `transformers` engine, by the flash kernel that torch itself has.

Without the package flash-attn the library would take sdpa, with one mask for the whole batch: every
request's queries against every other's keys, most of it masked out. With 64 requests of 330 tokens
on an H100 that was 29 of the 44 ms that a step took on the GPU. This kernel takes each request's
queries and keys alone, by their places in the batch, and needs no mask.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

TORCH_FLASH = "torch_flash"  # "flash" in a name tells the library that it needs no mask
MOST_HEAD_SIZE = 256
DTYPES = (torch.bfloat16, torch.float16)


def use_torch_flash(model: Any) -> bool:
    """Have the model use it, where it can and nothing better is there. Whether it does."""
    if not _fits(model):
        return False
    AttentionInterface.register(TORCH_FLASH, paged_flash_attention)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config._attn_implementation_internal = TORCH_FLASH  # the setter would look for flash-attn
    return True


def _fits(model: Any) -> bool:
    text = model.config.get_text_config()
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers = getattr(text, "layer_types", None) or ["full_attention"]
    return (
        model.device.type == "cuda"
        and model.dtype in DTYPES
        and model.config._attn_implementation == "sdpa"
        and bool(model._supports_flash_attn)
        and head_size <= MOST_HEAD_SIZE
        and set(layers) == {"full_attention"}
        and not getattr(text, "sliding_window", None)
        and not getattr(text, "attn_logit_softcapping", None)
        and not (is_flash_attn_2_available() or is_flash_attn_3_available())
    )


def paged_flash_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Queries [1, heads, tokens, size] of a whole batch -> [1, tokens, heads, size].

    `cache` adds the new keys and values and gives all that are to be read; `kwargs` say where each
    request's begin and end, in tokens: cu_seq_lens_q, cu_seq_lens_k.
    """
    key, value = cache.update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    output = varlen_attention(
        query.squeeze(0).transpose(0, 1),
        key.squeeze(0).transpose(0, 1),
        value.squeeze(0).transpose(0, 1),
        kwargs["cu_seq_lens_q"],
        kwargs["cu_seq_lens_k"],
        kwargs["max_length_q"],
        kwargs["max_length_k"],
        scaling,
    )
    return output.unsqueeze(0), None


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    most_queries: int,
    most_keys: int,
    scaling: float | None,
) -> torch.Tensor:
    """Causal attention of requests laid end to end, [tokens, heads, size] each.

    `*_ends` are int32 [requests + 1], from 0; a request's last query sees its last key.
    """
    output: torch.Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        query_ends,
        key_ends,
        most_queries,
        most_keys,
        0.0,  # dropout
        True,  # causal
        False,
        scale=scaling,
    )[0]
    return output
