# SPDX-License-Identifier: Apache-2.0
"""What the OpenVINO engine cannot do, known without loading it."""

from collections.abc import Collection

from trellis.contract.client_inputs import BIAS_WORDS, GUIDE_TYPE
from trellis.engine_host.engines.beams import refuse_beside_beams
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.lacking import (
    PRIORITY,
    refuse_adapter,
    refuse_guide,
    refuse_lacking,
    refuse_log_probs,
)
from trellis.engine_host.engines.openvino_words import BadWords
from trellis.errors import RequestError

MAX_BEAMS = 16
MAX_PENALTY = 2


class OpenVinoLimits:
    """Refuses by the input's name; knows which lists of bad words the engine was given."""

    def __init__(
        self,
        kv_cache_reuse: bool = False,
        no_guides: str = "",
        adapters: Collection[str] = (),
        speculates: bool = False,
        draft_model: bool = False,
    ) -> None:
        """`kv_cache_reuse`: whether the library keeps prefixes of prompts.

        `no_guides`: why the library has no vocabulary for them; '': it has. `adapters`: names of
        LoRA adapters. `speculates`: whether tokens are guessed, and `draft_model`, whether by a
        model.
        """
        self._no_guides = no_guides
        self._adapters = adapters
        self._speculates = speculates
        self._draft_model = draft_model
        self.bad_words = BadWords()
        self._kv_cache_reuse = kv_cache_reuse

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the pipeline does not have, by the input's name."""
        refuse_lacking(sampling, "openvino", BIAS_WORDS, PRIORITY)
        refuse_adapter(sampling, "openvino", self._adapters)
        self._refuse_beside_speculation(sampling)
        refuse_log_probs(sampling, "openvino")
        self._refuse_prompt_log_probs(sampling)
        for name in ("presence_penalty", "frequency_penalty"):
            if abs(getattr(sampling, name)) > MAX_PENALTY:
                raise RequestError(
                    f"{name}: this engine (openvino) takes -{MAX_PENALTY} to {MAX_PENALTY}"
                )
        if sampling.beam_width > 1:
            _refuse_beams(sampling)
        elif sampling.no_repeat_ngram_size:
            raise RequestError(
                "no_repeat_ngram_size: this engine (openvino) heeds it in a search over beams"
                " alone; send beam_width above 1, or leave it out"
            )
        refuse_guide(sampling, "openvino", self._no_guides)
        if sampling.bad_words and sampling.guide_type:
            raise RequestError(f"bad_words: not beside {GUIDE_TYPE}; leave out one of them")
        guide = "bad_words" if sampling.bad_words else GUIDE_TYPE if sampling.guide_type else ""
        if guide and sampling.num_return_sequences > 1:  # the library has one automaton a request
            raise RequestError(
                "num_return_sequences: this engine (openvino) makes one sequence a request"
                f" where it has {guide}; send several requests"
            )
        if sampling.bad_words:
            self.bad_words.refuse(sampling.bad_words)

    def _refuse_beside_speculation(self, sampling: Sampling) -> None:
        """Raise RequestError for what the library does not do, or wrongly, where it guesses."""
        if not self._speculates:
            return
        for name in ("beam_width", "num_return_sequences", "min_tokens"):
            if getattr(sampling, name) > 1:
                raise RequestError(
                    f"{name}: this engine (openvino) guesses tokens, beside which its library does"
                    " not do that; send 1, or make the repository without SET=prompt_lookup or"
                    " draft_engine"
                )
        if self._draft_model and sampling.sample:
            raise RequestError(
                "temperature: this engine (openvino) has a draft model, beside which its library"
                " does not draw tokens as they are likely; send 0, and no top_k, top_p or min_p"
            )

    def _refuse_prompt_log_probs(self, sampling: Sampling) -> None:
        if sampling.prompt_log_probs and self._kv_cache_reuse:  # it has none of a cached prefix
            raise RequestError(
                "prompt_log_probs: this engine (openvino) has them without its prefix cache alone;"
                " make the repository with SET=enable_kv_cache_reuse:false"
            )

    def given(self, sampling: Sampling) -> None:
        """Note what the engine was given."""
        if sampling.bad_words:
            self.bad_words.given(sampling.bad_words)


def _refuse_beams(sampling: Sampling) -> None:
    """Raise RequestError for what the library does not do in a search over beams."""
    if sampling.beam_width > MAX_BEAMS:
        raise RequestError(f"beam_width: this engine (openvino) takes 1 to {MAX_BEAMS}")
    more = {
        "bad_words": bool(sampling.bad_words),
        "min_tokens above 1": sampling.min_tokens > 1,
        "prompt_log_probs": sampling.prompt_log_probs,
        "top_log_probs": sampling.top_log_probs > 0,
    }
    refuse_beside_beams(sampling, "openvino", more)
