# SPDX-License-Identifier: Apache-2.0
"""How much memory of a GPU an engine will hold.

TensorRT-LLM's, on one rank:

    held = weights + runtime + activations + KV cache

- weights: the size of the rank's engine file.
- runtime: CUDA's context, cuBLAS' and NCCL's workspaces: 1.06 GiB.
- activations: laid out when the engine loads, for the most tokens that it may see at once
  (`max_num_tokens`, or batch x input length): 65 numbers a token and unit of the hidden size, at
  the width of the engine's dtype, spread over the ranks of tensor parallelism.
- KV cache: `kv_cache_free_gpu_mem_fraction` of what is left then, but no more than
  `max_tokens_in_paged_kv_cache` tokens, of 2 x layers x key/value heads x head size numbers each.

The two constants are fitted to two measured engines, both of bfloat16 with build.py's default
sizes (batch 8, input 2048), on one GPU of 80 GiB at a fraction of 0.2: a 7B of 13 GiB held
33.77 GiB, a 13B of 25 GiB held 45 GiB. Two points settle two numbers: expect the right size for
Llama-like models, and more error the further an engine is from these.

The `transformers` engine, on each of its ranks:

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
from trellis.engine_files.engine_config import BYTES, EngineConfig
from trellis.engine_host.engines.transformers_limits import BATCH_TOKENS, PAGE_TOKENS

GIB = 2**30
RUNTIME_BYTES = 1.06 * GIB
ACTIVATION_NUMBERS = 65

# The `transformers` engine's.
RESERVED_BYTES = 0.5 * GIB  # the driver's own, in no process' name
CHECKPOINT_RUNTIME_BYTES = 0.75 * GIB
NCCL_BYTES = 3.0 * GIB
TRASH_PAGES = 2  # beside those that are used
INDEX_BYTES = 8
BATCH_TOKEN_BYTES = 52  # its places in index tensors


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU; the KV cache's also in tokens."""

    weights: float
    activations: float  # with the runtime's
    kv_cache: float
    kv_tokens: int

    @property
    def held(self) -> float:
        """All of it."""
        return self.weights + self.activations + self.kv_cache


def kv_bytes_per_token(engine: EngineConfig) -> float:
    """Bytes that a token takes in the KV cache of one rank."""
    layers = -(-engine.layers // engine.pipeline_parallel)
    heads = max(engine.kv_heads // engine.tensor_parallel, 1)
    return 2 * layers * heads * engine.head_size * BYTES.get(engine.kv_dtype, 2.0)


def estimate_memory(
    engine: EngineConfig,
    weights: float,
    free: float,
    fraction: float,
    max_tokens: int | None = None,
) -> MemoryEstimate:
    """What an engine would hold on a GPU with `free` bytes; `weights` is its rank's file size."""
    width = BYTES.get(engine.dtype, 2.0)
    activations = (
        ACTIVATION_NUMBERS * width * engine.tokens_at_once * engine.hidden_size
    ) / engine.tensor_parallel + RUNTIME_BYTES
    per_token = kv_bytes_per_token(engine)
    kv_cache = max(fraction * (free - weights - activations), 0.0)
    if max_tokens is not None:
        kv_cache = min(kv_cache, max_tokens * per_token)
    return MemoryEstimate(weights, activations, kv_cache, int(kv_cache / per_token))


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
    runtime = CHECKPOINT_RUNTIME_BYTES + (NCCL_BYTES if ranks > 1 else 0)
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
