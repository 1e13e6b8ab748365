# SPDX-License-Identifier: Apache-2.0
"""How much memory of a GPU the `transformers` engine will hold, on each of its ranks.

    held = weights + runtime + KV cache, and while a step runs, steps

- weights: the checkpoint's numbers at the width of `dtype`, or their own; split over the ranks, but
  for vectors, which each has whole.
- runtime: CUDA's context, cuBLAS' workspaces; on several ranks NCCL's buffers too.
- KV cache: as large as transformers' continuous batching makes it: `kv_cache_free_gpu_mem_fraction`
  of what is left beside weights and runtime is for the cache and what a step over all of it takes.
  Or `max_tokens_in_paged_kv_cache`, which must fit in there.
- steps: what the largest step takes that can be, one that reads the whole cache: keys and values
  copied out of it, activations, and a mask where attention is not flash. With less to read, less.

The sizes are the library's own sums (5.23, PagedAttentionMemoryHandler). The runtime's were read
off H100 and H200 GPUs.
"""

import math
from dataclasses import dataclass

from trellis.engine_files.checkpoint import Checkpoint
from trellis.preflight.memory import GIB

RESERVED_BYTES = 0.5 * GIB  # the driver's own, in no process' name
RUNTIME_BYTES = 0.75 * GIB
NCCL_BYTES = 3.0 * GIB
PAGE_TOKENS = 64  # as the engine has it
TRASH_PAGES = 2  # beside those that are used
BATCH_TOKENS = 1024
INDEX_BYTES = 8
BATCH_TOKEN_BYTES = 52  # its places in index tensors


@dataclass(frozen=True)
class CacheOptions:
    """The parameters of `tensorrt_llm` that decide the cache's size."""

    fraction: float = 0.9
    max_tokens: int | None = None
    max_batch_size: int = 1
    dtype: str = ""  # "": the checkpoint's
    attention: str = ""  # "": flash, as on GPUs


@dataclass(frozen=True)
class CheckpointMemory:
    """Bytes on one GPU, the cache's also in tokens; `fitting_tokens` is the largest that fits."""

    weights: float
    runtime: float
    kv_cache: float
    kv_tokens: int
    steps: float
    fitting_tokens: int

    @property
    def held(self) -> float:
        """Between two steps."""
        return self.weights + self.runtime + self.kv_cache


def estimate_checkpoint(
    checkpoint: Checkpoint, ranks: int, free: float, options: CacheOptions
) -> CheckpointMemory:
    """What each of so many ranks would hold on a GPU with `free` bytes by nvidia-smi."""
    sizes = _Sizes.of(checkpoint, ranks, options)
    runtime = RUNTIME_BYTES + (NCCL_BYTES if ranks > 1 else 0)
    weights = sizes.weights
    budget = options.fraction * (free - RESERVED_BYTES - weights - runtime)
    page = PAGE_TOKENS * (sizes.cached_token + sizes.read_token)
    fitting = max(math.floor((budget - sizes.fixed) / page), 0) * PAGE_TOKENS
    tokens = fitting
    if options.max_tokens is not None:
        tokens = -(-options.max_tokens // PAGE_TOKENS) * PAGE_TOKENS
    cache = (tokens + TRASH_PAGES * PAGE_TOKENS) * sizes.cached_token
    steps = sizes.fixed - TRASH_PAGES * PAGE_TOKENS * sizes.cached_token
    steps += tokens * sizes.read_token
    return CheckpointMemory(weights, runtime, cache, tokens, steps, fitting)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the parts, on one rank."""

    weights: float
    cached_token: float  # in the KV cache
    read_token: float  # while a step reads it
    fixed: float  # whatever the cache's size

    @classmethod
    def of(cls, checkpoint: Checkpoint, ranks: int, options: CacheOptions) -> "_Sizes":
        width = checkpoint.width(options.dtype)
        heads, shared = checkpoint.attention_heads or 1, checkpoint.key_value_heads or 1
        flash = not options.attention or "flash" in options.attention
        # Others repeat the keys and values that heads share.
        copies = (2 * shared if flash else 2 * heads + shared) * checkpoint.head_size
        batch = max(BATCH_TOKENS, options.max_batch_size)
        masked = 0 if flash else batch * width  # bytes for each token of cache and batch
        cached = 2 * checkpoint.layers * (shared // ranks) * checkpoint.head_size * width
        new = checkpoint.hidden_size + (heads + 2 * shared) * checkpoint.head_size + copies
        logits = checkpoint.hidden_size * width + (checkpoint.vocab_size or 0) * 4
        return cls(
            weights=checkpoint.weight_bytes(ranks, options.dtype),
            cached_token=cached,
            read_token=copies * width + INDEX_BYTES + masked,
            fixed=TRASH_PAGES * PAGE_TOKENS * cached
            + options.max_batch_size * logits
            + batch * (new * width + BATCH_TOKEN_BYTES)
            + batch * masked,
        )
