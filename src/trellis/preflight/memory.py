# SPDX-License-Identifier: Apache-2.0
"""How much memory of a GPU an engine of TensorRT-LLM will hold, on one rank:

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
"""

from dataclasses import dataclass

from trellis.engine_files.engine_config import BYTES, EngineConfig

GIB = 2**30
RUNTIME_BYTES = 1.06 * GIB
ACTIVATION_NUMBERS = 65


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
