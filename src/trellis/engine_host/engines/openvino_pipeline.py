# SPDX-License-Identifier: Apache-2.0
"""How OpenVINO's continuous batching pipeline is made: model, KV cache, speculation, adapters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino_genai as genai

from trellis.engine_host.engines.engine import EngineSettings
from trellis.engine_host.engines.openvino_queue import cache_blocks

DEVICE = "CPU"
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY"}
# By itself the library computes in bfloat16 where a processor has AMX: there a text would be
# another than elsewhere, and depend on what else is in its batch.
DTYPE = "float32"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
DEFAULT_CACHE_GIB = 1
LOOKUP_NGRAM = 3  # tokens, at most, that are looked for in the prompt
DRAFT_TOKENS = 4  # that the draft model makes for each step


@dataclass(frozen=True)
class Speculation:
    """How many tokens are guessed for each step, and how; the library is told with each request."""

    tokens: int = 0
    ngram: int = 0  # tokens of what is looked for; 0: a draft model guesses

    def tell(self, config: Any) -> None:
        """Put it into a request's GenerationConfig."""
        if self.tokens:
            config.num_assistant_tokens = self.tokens
            config.max_ngram_size = self.ngram


def speculation(settings: EngineSettings) -> Speculation:
    """What an engine was made with."""
    if settings.prompt_lookup:
        return Speculation(settings.prompt_lookup, LOOKUP_NGRAM)
    return Speculation(DRAFT_TOKENS if settings.draft_engine else 0)


def load_pipeline(settings: EngineSettings, adapters: dict[str, Any]) -> Any:
    """The library's pipeline. `adapters`: its property for LoRA adapters, or {}.

    Raises RuntimeError with the parameter that is at fault.
    """
    file = _model_file(settings)
    properties: dict[str, Any] = device_properties(settings.dtype) | adapters
    if settings.prompt_lookup:
        properties["prompt_lookup"] = True
    if settings.draft_engine:
        properties["draft_model"] = _draft(settings.draft_engine)
    try:
        return genai.ContinuousBatchingPipeline(str(file), _scheduler(settings), DEVICE, properties)
    except RuntimeError as error:
        raise RuntimeError(
            f"gpt_model_path: OpenVINO cannot load {file}: {_reason(error)}"
        ) from error


def device_properties(dtype: str = "") -> dict[str, Any]:
    """The library's, for numbers of that dtype; "": DTYPE. Raises RuntimeError for another."""
    precision = PRECISIONS.get(dtype or DTYPE)
    if precision is None:
        raise RuntimeError(f"dtype: {dtype}: use one of {', '.join(PRECISIONS)}")
    return {"INFERENCE_PRECISION_HINT": precision, **PROPERTIES}


def _draft(folder: str) -> Any:
    try:
        return genai.draft_model(folder, DEVICE)
    except RuntimeError as error:
        raise RuntimeError(
            f"draft_engine: OpenVINO cannot load {folder}: {_reason(error)}"
        ) from error


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]


def _scheduler(settings: EngineSettings) -> Any:
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = settings.max_batch_size
    scheduler.enable_prefix_caching = settings.enable_kv_cache_reuse
    if settings.max_tokens_in_paged_kv_cache:
        guesses = settings.max_batch_size * cache_blocks(speculation(settings).tokens)
        scheduler.num_kv_blocks = cache_blocks(settings.max_tokens_in_paged_kv_cache) + guesses
    else:
        scheduler.cache_size = DEFAULT_CACHE_GIB
    return scheduler


def _model_file(settings: EngineSettings) -> Path:
    """The GGUF file of an engine folder, or the folder itself when it holds OpenVINO IR."""
    files = sorted(settings.path.glob("*.gguf"))
    return files[0] if files else settings.path
