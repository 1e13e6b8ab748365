# SPDX-License-Identifier: Apache-2.0
"""What the vLLM engine cannot do, known without loading it."""

from collections.abc import Collection

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.lacking import (
    NGRAMS,
    refuse_adapter,
    refuse_bad_words,
    refuse_guide,
    refuse_lacking,
)
from trellis.engine_host.engines.vocabulary import check_ids
from trellis.errors import RequestError

MAX_TEMPERATURE = 2.0
MAX_PENALTY = 2.0


class VllmLimits:
    """Rejects by the input's name."""

    def __init__(
        self,
        vocab_size: int,
        no_guides: str,
        guides_backend: str,
        adapters: Collection[str],
        priority: bool = False,
    ) -> None:
        """`no_guides`: why the library has no tokenizer for them; '': it has.

        `guides_backend`: what follows them. `adapters`: names of LoRA adapters.
        `priority`: whether its scheduler heeds priorities.
        """
        self._priority = priority
        self._adapters = adapters
        self._backend = guides_backend
        self._vocab_size = vocab_size
        self._no_guides = no_guides

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what this engine does not have."""
        if sampling.beam_width > 1:
            raise RequestError("beam_width: this engine (vllm) has no beam search; send 1")
        if sampling.sample and sampling.temperature > MAX_TEMPERATURE:
            raise RequestError(f"temperature: this engine (vllm) takes 0 to {MAX_TEMPERATURE:.0f}")
        for name in ("presence_penalty", "frequency_penalty"):
            if abs(getattr(sampling, name)) > MAX_PENALTY:
                raise RequestError(f"{name}: this engine (vllm) takes -2 to 2")
        if sampling.priority and not self._priority:
            raise RequestError(
                "priority: this engine (vllm) heeds none; leave it out, or load it with"
                " scheduling_policy: priority in engine.yaml"
            )
        refuse_lacking(sampling, "vllm", NGRAMS)
        refuse_guide(sampling, "vllm", self._no_guides)
        refuse_bad_words(sampling, "vllm", self._no_guides, self._backend)
        refuse_adapter(sampling, "vllm", self._adapters)
        check_ids(sampling, self._vocab_size)

    def given(self, sampling: Sampling) -> None:
        """Nothing that was asked limits what comes."""
