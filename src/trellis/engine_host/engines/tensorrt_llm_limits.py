# SPDX-License-Identifier: Apache-2.0
"""What the engine `llmapi`, TensorRT-LLM's LLM API, cannot do, known without its package."""

from collections.abc import Collection

from trellis.engine_host.engines.beams import refuse_beside_beams
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.lacking import (
    NGRAMS,
    PRIORITY,
    PROMPT_LOG_PROBS,
    refuse_adapter,
    refuse_bad_words,
    refuse_guide,
    refuse_lacking,
    refuse_log_probs,
)
from trellis.engine_host.engines.vocabulary import check_ids
from trellis.errors import RequestError


class TensorRtLlmLimits:
    """Rejects by the input's name."""

    def __init__(
        self,
        vocab_size: int,
        beam_width: int,
        no_guides: str,
        guides_backend: str,
        adapters: Collection[str],
        top_log_probs: bool = False,
        ngrams: bool = True,
    ) -> None:
        """`beam_width`: what the engine was loaded with; the library takes no other.

        `no_guides`: why the library has no tokenizer for them; '': it has. `guides_backend`:
        what follows them. `adapters`: names of LoRA adapters.
        `top_log_probs`: whether the release tells those of tokens that were not chosen.
        `ngrams`: whether its sampler is known to heed no_repeat_ngram_size.
        """
        self._ngrams = ngrams
        self._top_log_probs = top_log_probs
        self._adapters = adapters
        self._backend = guides_backend
        self._no_guides = no_guides
        self._vocab_size = vocab_size
        self._beam_width = beam_width

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what this engine does not have."""
        self._refuse_beam_width(sampling.beam_width)
        if sampling.beam_width > 1:
            more = {"bad_words": bool(sampling.bad_words)}
            refuse_beside_beams(sampling, "llmapi", more)
        if sampling.min_tokens > 1 and len(sampling.end_ids) > 1:
            # Its samplers hold back `end_id` alone; `stop_token_ids` would end an answer early.
            raise RequestError(
                f"min_tokens: this engine (llmapi) holds back one end id until then, and this"
                f" request ends at {len(sampling.end_ids)}; send the one end_id, or leave"
                " min_tokens out"
            )
        refuse_lacking(sampling, "llmapi", PROMPT_LOG_PROBS, PRIORITY)
        if not self._ngrams:
            refuse_lacking(sampling, "llmapi", NGRAMS)
        if not self._top_log_probs:
            refuse_log_probs(sampling, "llmapi")
        refuse_guide(sampling, "llmapi", self._no_guides)
        refuse_bad_words(sampling, "llmapi", self._no_guides, self._backend)
        refuse_adapter(sampling, "llmapi", self._adapters)
        check_ids(sampling, self._vocab_size)

    def given(self, sampling: Sampling) -> None:
        """Nothing that was asked limits what comes."""

    def _refuse_beam_width(self, asked: int) -> None:
        if asked == self._beam_width:
            return
        if self._beam_width == 1:
            raise RequestError(
                f"beam_width: {asked} is not 1, for which this engine (llmapi) was loaded; send 1,"
                f" or load it with max_beam_width: {asked} in engine.yaml"
            )
        raise RequestError(
            f"beam_width: {asked} is not {self._beam_width}, for which this engine (llmapi) was"
            f" loaded (max_beam_width in engine.yaml); send {self._beam_width}"
        )
