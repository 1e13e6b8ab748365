# SPDX-License-Identifier: Apache-2.0
"""What the OpenVINO engine cannot do, known without loading it."""

from trellis.contract.client_inputs import BIAS_WORDS, GUIDE_TYPE, LORA_NAME
from trellis.engine_host.engines.beams import refuse_beside_beams
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.lacking import refuse_lacking
from trellis.engine_host.engines.openvino_words import BadWords
from trellis.errors import RequestError

MAX_BEAMS = 16
MAX_PENALTY = 2


class OpenVinoLimits:
    """Refuses by the input's name; knows which lists of bad words the engine was given."""

    def __init__(self) -> None:
        self.bad_words = BadWords()

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError for what the pipeline does not have, by the input's name."""
        refuse_lacking(sampling, "openvino", GUIDE_TYPE, BIAS_WORDS, LORA_NAME)
        for name in ("presence_penalty", "frequency_penalty"):
            if abs(getattr(sampling, name)) > MAX_PENALTY:
                raise RequestError(
                    f"{name}: this engine (openvino) takes -{MAX_PENALTY} to {MAX_PENALTY}"
                )
        if sampling.beam_width > 1:
            _refuse_beams(sampling)
        if sampling.bad_words:
            if sampling.num_return_sequences > 1:  # the library has one automaton a request
                raise RequestError(
                    "num_return_sequences: this engine (openvino) makes one sequence a request"
                    " where it has bad_words; send several requests"
                )
            self.bad_words.refuse(sampling.bad_words)

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
    }
    refuse_beside_beams(sampling, "openvino", more)
