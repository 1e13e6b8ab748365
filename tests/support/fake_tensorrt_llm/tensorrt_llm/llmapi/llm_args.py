"""The arguments of LLM: pydantic classes that forbid what they do not have, by release."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tensorrt_llm.behaviour import BEHAVIOUR


class StrictBaseModel(BaseModel):
    """Rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class KvCacheConfig(StrictBaseModel):
    """The paged KV cache."""

    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = None if BEHAVIOUR.numbers < (1, 2) else 0.9
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    cross_kv_cache_fraction: float | None = None
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    use_uvm: bool = False
    max_gpu_total_bytes: int = 0
    dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    tokens_per_block: int = 32


class SchedulerConfig(StrictBaseModel):
    """The scheduler."""

    capacity_scheduler_policy: str = "GUARANTEED_NO_EVICT"
    context_chunking_policy: str | None = None
    dynamic_batch_config: Any = None


class CudaGraphConfig(StrictBaseModel):
    """CUDA graphs."""

    batch_sizes: list[int] | None = None
    max_batch_size: int = 0
    enable_padding: bool = False


class LoraConfig(StrictBaseModel):
    """LoRA adapters."""

    lora_dir: list[str] = Field(default_factory=list)
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: list[str] = Field(default_factory=list)
    max_loras: int | None = None
    max_cpu_loras: int | None = None


class _Args(StrictBaseModel):
    """What all releases have."""

    model: str
    tokenizer: Any = None
    tokenizer_mode: Literal["auto", "slow"] = "auto"
    skip_tokenizer_init: bool = False
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    context_parallel_size: int = 1
    gpus_per_node: int | None = None
    enable_attention_dp: bool = False
    dtype: str = "auto"
    revision: str | None = None
    tokenizer_revision: str | None = None
    max_batch_size: int | None = None
    max_num_tokens: int | None = 8192
    max_seq_len: int | None = None
    max_beam_width: int | None = None
    enable_chunked_prefill: bool = False
    kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig)
    scheduler_config: SchedulerConfig = Field(default_factory=SchedulerConfig)
    cuda_graph_config: CudaGraphConfig | None = None
    disable_overlap_scheduler: bool = False
    guided_decoding_backend: str | None = None
    enable_lora: bool = False
    lora_config: LoraConfig | None = None
    speculative_config: Any = None
    stream_interval: int = 1
    enable_iter_perf_stats: bool = False
    gather_generation_logits: bool = False
    num_postprocess_workers: int = 0
    batched_logits_processor: Any = None
    load_format: str = "auto"
    attn_backend: str = "TRTLLM"
    backend: str | None = "pytorch"

    @property
    def cpp_sampler(self) -> bool:
        """Whether the sampler in C++ runs."""
        raise NotImplementedError


class _Args10(_Args):
    enable_trtllm_sampler: bool = False
    enable_mixed_sampler: bool = False
    kv_cache_dtype: str = "auto"

    @property
    def cpp_sampler(self) -> bool:
        return self.enable_trtllm_sampler


class _Args12(_Args):
    max_input_len: int | None = None
    sampler_type: Literal["auto", "TorchSampler", "TRTLLMSampler"] = "auto"
    orchestrator_type: Literal["rpc", "ray"] | None = None
    return_perf_metrics: bool = False

    @property
    def cpp_sampler(self) -> bool:
        beams = (self.max_beam_width or 1) > 1
        return self.sampler_type == "TRTLLMSampler" or (self.sampler_type == "auto" and beams)


class _Args14(_Args):
    max_batch_size: int | None = 2048
    max_input_len: int | None = 1024
    max_beam_width: int | None = 1
    cuda_graph_config: CudaGraphConfig | None = Field(default_factory=CudaGraphConfig)
    sampler_type: str = "auto"
    orchestrator_type: Literal["rpc", "ray"] | None = None
    return_perf_metrics: bool = False
    custom_tokenizer: str | None = None
    env_overrides: dict[str, str] | None = None

    @field_validator("sampler_type")
    @classmethod
    def _one_sampler(cls, value: str) -> str:
        if value not in ("auto", "TorchSampler"):
            raise ValueError(f"sampler_type={value!r} has been removed; TorchSampler is the one")
        return value

    @property
    def cpp_sampler(self) -> bool:
        return False


_BY_RELEASE: dict[tuple[int, ...], type[_Args]] = {(1, 0): _Args10, (1, 2): _Args12}
TorchLlmArgs: type[_Args] = _BY_RELEASE.get(BEHAVIOUR.numbers, _Args14)
