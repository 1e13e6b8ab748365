# SPDX-License-Identifier: Apache-2.0
"""How much memory vLLM will take for a checkpoint, and how many tokens its KV cache will hold.

On each GPU it takes a share of all memory (`gpu_memory_utilization`), and of that the cache gets
what is left:

    cache = share x memory - weights - activations - CUDA graphs - runtime

- weights: the checkpoint's numbers at the width of `dtype`, split over tensor x pipeline GPUs.
- activations: the most that its profiling run holds at once, with `max_num_batched_tokens` tokens
  in a layer's MLP or `max_num_seqs` rows of logits in the sampler.
- CUDA graphs: what it sets aside for them (from 0.21 on), unless `enforce_eager`.
- runtime: cuBLAS' workspaces and kernels loaded on first use; on several GPUs NCCL's buffers, too.

On a CPU the cache has `VLLM_CPU_KVCACHE_SPACE` GiB. Blocks have 16 tokens on a GPU, 128 on a CPU.
Every layer is taken for one with full attention, so a model with sliding windows or states holds
more tokens than said here. benchmarks/memory_estimate.py compares with vLLM's own log.
"""

from dataclasses import dataclass

from trellis.preflight.served_checkpoint import ServedCheckpoint

GIB = 2**30
DEFAULT_UTILIZATION = 0.92
DEFAULT_BATCHED_TOKENS = 2048
BLOCK_TOKENS, CPU_BLOCK_TOKENS = 16, 128
GRAPH_BYTES = 0.6 * GIB
RUNTIME_BYTES = 0.3 * GIB
NCCL_BYTES = 1.0 * GIB
RESERVED_BYTES = 0.5 * GIB  # the driver's own: nvidia-smi counts it, CUDA does not
SAMPLER_BYTES = 24  # for each logit: it, its copy in float32, and what sorts it
KV_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}  # of kv_cache_dtype; every fp8 is 1


@dataclass(frozen=True)
class VllmMemory:
    """Bytes on one GPU, or of one process on a CPU; the cache's in tokens, too."""

    weights: float
    overhead: float  # activations, CUDA graphs, runtime
    kv_cache: float
    kv_tokens: int
    room: float  # bytes that are left for the cache, which may be made smaller
    fitting_tokens: int  # the most that would fit in there
    token_bytes: float  # of one token in the cache
    block_tokens: int

    @property
    def held(self) -> float:
        """All of it."""
        return self.weights + self.overhead + self.kv_cache

    @property
    def request_tokens(self) -> int:
        """Of one request that has the cache for itself: vLLM keeps one block back."""
        return max(self.kv_tokens - self.block_tokens, 0)


def kv_bytes_per_token(served: ServedCheckpoint) -> float:
    """Bytes that a token takes in the cache of one GPU."""
    config = served.checkpoint.config
    layers = -(-(config.num_hidden_layers or 1) // served.pipeline)
    named = str(served.arguments.get("kv_cache_dtype") or "auto")
    width = served.checkpoint.width(served.dtype)
    if named != "auto":
        width = KV_WIDTHS.get(named, 1)
    if config.kv_lora_rank is not None:  # one vector for all heads, on every GPU
        return layers * (config.kv_lora_rank + (config.qk_rope_head_dim or 0)) * width
    heads = max((config.shared_heads or 1) // served.tensor, 1)
    return 2 * layers * heads * config.head_size * width


def estimate_gpu(served: ServedCheckpoint, total: float) -> VllmMemory:
    """On each GPU of so many bytes by nvidia-smi.

    Raises CheckpointError for a weight file that cannot be read.
    """
    weights = _weights(served)
    overhead = _activations(served) + RUNTIME_BYTES + (NCCL_BYTES if served.tensor > 1 else 0)
    if not served.arguments.get("enforce_eager"):
        overhead += GRAPH_BYTES
    room = utilization(served) * (total - RESERVED_BYTES) - weights - overhead
    return _filled(served, weights, overhead, max(room, 0.0), BLOCK_TOKENS)


def estimate_cpu(served: ServedCheckpoint, cache_gib: float) -> VllmMemory:
    """In each process, with a cache of so many GiB. Raises CheckpointError as `estimate_gpu`."""
    return _filled(served, _weights(served), 0.0, cache_gib * GIB, CPU_BLOCK_TOKENS)


def utilization(served: ServedCheckpoint) -> float:
    """The share of all memory that vLLM takes."""
    said = served.settings.get("kv_cache_free_gpu_mem_fraction")
    return float(said or DEFAULT_UTILIZATION)


def _weights(served: ServedCheckpoint) -> float:
    return served.checkpoint.weight_bytes(served.tensor, served.pipeline, served.dtype)


def _filled(
    served: ServedCheckpoint, weights: float, overhead: float, room: float, block: int
) -> VllmMemory:
    """With as many whole blocks as there is room for, or as were asked for."""
    token = kv_bytes_per_token(served)
    room = served.size("kv_cache_memory_bytes", room)
    size = int(served.size("block_size", block))
    fitting = int(room // (token * size)) * size
    asked = served.settings.get("max_tokens_in_paged_kv_cache")
    tokens = -(-asked // size) * size if asked else fitting
    held = tokens * token if asked else room
    return VllmMemory(weights, overhead, held, tokens, room, fitting, token, size)


def _activations(served: ServedCheckpoint) -> float:
    """The larger of a layer's and the sampler's, in the profiling run."""
    config = served.checkpoint.config
    sequences = int(served.settings["max_batch_size"])
    longest = served.settings.get("max_seq_len") or config.max_position_embeddings
    tokens = DEFAULT_BATCHED_TOKENS
    if longest:
        tokens = min(tokens, sequences * longest)
    tokens = int(served.size("max_num_batched_tokens", tokens))
    hidden = config.hidden_size or 0
    inner = (config.intermediate_size or 4 * hidden) / served.tensor
    layer = tokens * (3 * hidden + 3 * inner) * served.checkpoint.width(served.dtype)
    logits = min(sequences, tokens) * (config.vocab_size or 0) * SAMPLER_BYTES
    return max(layer, logits)
