# SPDX-License-Identifier: Apache-2.0
"""What no engine's library does in a search over beams."""

from collections.abc import Mapping

from trellis.contract.client_inputs import BIAS_WORDS, GUIDE_TYPE
from trellis.engine_host.engines.engine import Sampling
from trellis.errors import RequestError


def refuse_beside_beams(
    sampling: Sampling, engine: str, more: Mapping[str, bool] | None = None
) -> None:
    """Raise RequestError for what was asked beside beams.

    `more`: what this engine does not do beside them either, and whether it was asked.
    """
    others = {
        "temperature, top_k, top_p or min_p": sampling.sample,
        "num_return_sequences": sampling.num_return_sequences > 1,
        "repetition_penalty": sampling.repetition_penalty != 1.0,
        "presence_penalty": sampling.presence_penalty != 0.0,
        "frequency_penalty": sampling.frequency_penalty != 0.0,
        GUIDE_TYPE: bool(sampling.guide_type),
        BIAS_WORDS: bool(sampling.bias_ids),
        **(more or {}),
    }
    for name, asked in others.items():
        if asked:
            raise RequestError(
                f"beam_width: a search over beams has no {name} in this engine ({engine}); leave"
                " out one of them"
            )
