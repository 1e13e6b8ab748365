# SPDX-License-Identifier: Apache-2.0
"""openvino-genai's continuous batching pipeline, asked in texts."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from support.library import Output
from trellis.engine_host.engines.openvino_pipeline import device_properties
from trellis.tokenizers import Tokenizer

NEUTRAL = {"max_new_tokens": 24, "min_new_tokens": 1, "do_sample": False}


class OpenVinoLibrary:
    """The library on a GGUF file; see `support.library.Library`."""

    def __init__(self, model: Path, tokenizer: Tokenizer) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = 64
        scheduler.enable_prefix_caching = False
        scheduler.cache_size = 1
        self.pipeline = genai.ContinuousBatchingPipeline(
            str(model), scheduler, "CPU", device_properties()
        )
        self.tokenizer = tokenizer
        self.next = 0

    def ask(self, prompts: list[str], **fields: Any) -> list[list[Output]]:
        """All prompts are in the pipeline before its first step."""
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
        return [
            [
                Output(list(each.generated_ids), list(each.generated_log_probs), each.score)
                for each in handle.read_all()
            ]
            for handle in handles
        ]

    def close(self) -> None:
        """It has no processes."""
