# SPDX-License-Identifier: Apache-2.0
"""What the `transformers` engine cannot do, and the sizes that it works with.

Both are known without loading it, which takes torch.
"""

from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.lacking import FIELDS, refuse_lacking
from trellis.engine_host.engines.vocabulary import check_ids
from trellis.errors import RequestError

PAGE_TOKENS = 64  # the library's default, 256, wastes most of a page on short requests
BATCH_TOKENS = 1024  # most tokens in one forward pass; longer prompts go in pieces
DEFAULT_GPU_FRACTION = 0.9  # of the free memory, for the KV cache


class TransformersLimits:
    """Refuses by the input's name."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what this engine does not have."""
        if sampling.beam_width > 1:
            raise RequestError("beam_width: this engine (transformers) has no beam search; send 1")
        if sampling.log_probs:
            raise RequestError(
                "return_log_probs: this engine (transformers) cannot do it; leave it out"
            )
        refuse_lacking(sampling, "transformers", *FIELDS)
        check_ids(sampling, self._vocab_size)

    def given(self, sampling: Sampling) -> None:
        """Nothing that was asked limits what comes."""
