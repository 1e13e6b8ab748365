"""The engine library driven directly, on the demo engine's file, with the engine's properties."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from trellis.tokenizers import Tokenizer, load

END = 2  # the demo model's end token
NEUTRAL = {"max_new_tokens": 24, "min_new_tokens": 1, "do_sample": False}
ENDING = {"eos_token_id": END, "stop_token_ids": {END}}


class Library:
    """openvino-genai's continuous batching pipeline, asked in texts."""

    def __init__(self, model: Path, tokenizer: Tokenizer) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = 64
        scheduler.enable_prefix_caching = False
        scheduler.cache_size = 1
        self.pipeline = genai.ContinuousBatchingPipeline(
            str(model), scheduler, "CPU", {"PERFORMANCE_HINT": "LATENCY"}
        )
        self.tokenizer = tokenizer
        self.next = 0

    def ask(self, prompts: list[str], **fields: Any) -> list[list[Any]]:
        """Each prompt's outputs, as many as it has sequences: ids, score and log probabilities.

        All prompts are in the pipeline before its first step. `fields`: those of GenerationConfig.
        """
        handles = []
        for prompt in prompts:
            config = genai.GenerationConfig()
            for name, value in (NEUTRAL | fields).items():
                setattr(config, name, value)
            ids = np.array([self.tokenizer.encode(prompt)], np.int64)
            self.next += 1
            handles.append(self.pipeline.add_request(self.next, openvino.Tensor(ids), config))
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        return [handle.read_all() for handle in handles]

    def texts(self, prompts: list[str], **fields: Any) -> list[list[str]]:
        """The texts of `ask`."""
        return [[self.text(output) for output in row] for row in self.ask(prompts, **fields)]

    def text(self, output: Any) -> str:
        """The text of one output; its end token has none."""
        return self.tokenizer.decode(output.generated_ids)


def open_library(engine: Path, tokenizer: Path) -> Library:
    """The library on the GGUF file of an engine folder."""
    (model,) = engine.glob("*.gguf")
    return Library(model, load("gpt2", tokenizer))
