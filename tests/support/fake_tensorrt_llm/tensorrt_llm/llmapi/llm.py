"""LLM: the one class that users construct."""

import json
import time
from pathlib import Path
from typing import Any

from tensorrt_llm.behaviour import BEHAVIOUR, read
from tensorrt_llm.executor.proxy import GenerationExecutorProxy
from tensorrt_llm.executor.request import LoRARequest
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.llmapi.llm_args import TorchLlmArgs, _Args
from tensorrt_llm.sampling_params import SamplingParams, _SamplingParams, set_up

TENSORRT_ONLY = ("build_config", "batching_type", "normalize_log_probs", "enable_tqdm")


class _BaseLLM:
    """What all releases have; `generate_async` differs in its arguments."""

    def __init__(
        self,
        model: str | Path,
        tokenizer: Any = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if name in TENSORRT_ONLY:
                raise ValueError(f"{name} is for the LLM of tensorrt_llm._tensorrt_engine")
            if name not in TorchLlmArgs.model_fields:
                raise ValueError(f"{type(self).__name__} got invalid argument: {name}")
        self.args: _Args = TorchLlmArgs(
            model=str(model),
            tokenizer=None if skip_tokenizer_init else tokenizer,
            tokenizer_mode=tokenizer_mode,
            skip_tokenizer_init=skip_tokenizer_init,
            trust_remote_code=trust_remote_code,
            tensor_parallel_size=tensor_parallel_size,
            dtype=dtype,
            revision=revision,
            tokenizer_revision=tokenizer_revision,
            **kwargs,
        )
        time.sleep(read().load_seconds)
        folder = Path(self.args.model)
        config = json.loads((folder / "config.json").read_text())
        generation = folder / "generation_config.json"
        self._generation = json.loads(generation.read_text()) if generation.is_file() else {}
        self._executor: GenerationExecutorProxy | None = GenerationExecutorProxy(
            self._worker_config(config), self.args.tensor_parallel_size
        )

    def _worker_config(self, config: dict[str, Any]) -> dict[str, Any]:
        return {
            "vocab_size": config["vocab_size"],
            "eos": config.get("eos_token_id", 0),
            "max_seq_len": self.args.max_seq_len or config["max_position_embeddings"],
            "max_batch_size": self.args.max_batch_size or 256,
            "max_beam_width": self.args.max_beam_width or 1,
            "cpp_sampler": self.args.cpp_sampler,
            "guides": self.args.guided_decoding_backend if self.args.tokenizer else None,
        }

    def _generate(
        self, inputs: Any, params: Any, streaming: bool, adapter: LoRARequest | None
    ) -> RequestOutput:
        if self._executor is None or self._executor.is_shutdown():
            raise RuntimeError("LLM is shutting down")
        if isinstance(inputs, dict):
            inputs = inputs["prompt_token_ids"]
        if not isinstance(inputs, list):
            raise TypeError(f"The inputs must be type list of int, got {type(inputs)}")
        params = SamplingParams() if params is None else params
        if not isinstance(params, SamplingParams):
            raise TypeError(f"The sampling_params must be SamplingParams, got {type(params)}")
        set_up(params, False, self._generation)
        self._check(inputs, params)
        assert isinstance(inputs[0], int), "prompt_token_ids must be a list of int"
        if adapter is not None and self.args.lora_config is None:
            raise ValueError("LoRA is not enabled: lora_config is missing")
        return self._executor.submit(inputs, params, streaming, adapter)

    def _check(self, ids: list[int], params: _SamplingParams) -> None:
        most = self.args.max_num_tokens
        if not self.args.enable_chunked_prefill and most is not None and len(ids) > most:
            error = RequestError if BEHAVIOUR.late else ValueError
            raise error(
                f"The prompt length ({len(ids)}) exceeds the maximum number of tokens ({most})"
            )

    def shutdown(self) -> None:
        """End the executor; may block for ever."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def __enter__(self) -> "_BaseLLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class _LLM10(_BaseLLM):
    def generate_async(
        self,
        inputs: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        _postproc_params: Any = None,
    ) -> RequestOutput:
        """Submit; returns at once."""
        return self._generate(inputs, sampling_params, streaming, lora_request)


class _LLM12(_BaseLLM):
    def generate_async(
        self,
        inputs: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        """Submit; returns at once."""
        return self._generate(inputs, sampling_params, streaming, lora_request)


class _LLM14(_BaseLLM):
    def generate_async(
        self,
        inputs: Any,
        sampling_params: Any = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        trace_headers: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
        conversation_params: Any = None,
        priority: float = 0.5,
    ) -> RequestOutput:
        """Submit; returns at once."""
        return self._generate(inputs, sampling_params, streaming, lora_request)

    def _check_health(self) -> bool:
        return self._executor is not None and self._executor.healthy()


_BY_RELEASE: dict[tuple[int, ...], Any] = {(1, 0): _LLM10, (1, 2): _LLM12}
LLM: Any = _BY_RELEASE.get(BEHAVIOUR.numbers, _LLM14)
