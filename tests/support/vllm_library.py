# SPDX-License-Identifier: Apache-2.0
"""vLLM's own `LLM`, asked in texts."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB

from vllm import LLM, SamplingParams

from support.library import Output
from trellis.tokenizers import load

NEUTRAL = {"max_tokens": 24, "temperature": 0.0, "ignore_eos": True, "detokenize": False}


class VllmLibrary:
    """The library on a checkpoint; see `support.library.Library`."""

    def __init__(self, checkpoint: Path, tokenizer: Path) -> None:
        self.tokenizer = load("gpt2", tokenizer)
        self.llm = LLM(
            str(checkpoint),
            tokenizer=str(tokenizer),
            dtype="float32",
            enforce_eager=True,
            max_num_seqs=64,
            enable_prefix_caching=False,
            disable_log_stats=True,
        )

    def ask(self, prompts: list[str], **fields: Any) -> list[list[Output]]:
        """All prompts are given to the library in one call."""
        params = SamplingParams(**NEUTRAL | fields)
        ids: Any = [{"prompt_token_ids": self.tokenizer.encode(prompt)} for prompt in prompts]
        answers = self.llm.generate(ids, params, use_tqdm=False)
        return [[_output(each) for each in answer.outputs] for answer in answers]

    def close(self) -> None:
        """End its processes."""
        self.llm.llm_engine.engine_core.shutdown()


def _output(completion: Any) -> Output:
    ids = list(completion.token_ids)
    told = zip(ids, completion.logprobs or (), strict=False)
    log_probs = [float(at[token].logprob) for token, at in told]
    return Output(ids, log_probs, completion.cumulative_logprob or 0.0)
