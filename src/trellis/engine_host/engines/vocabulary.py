# SPDX-License-Identifier: Apache-2.0
"""Token ids outside of a model's vocabulary, which some libraries do not survive."""

from trellis.contract.client_inputs import BIAS_WORDS
from trellis.engine_host.engines.engine import Sampling
from trellis.errors import RequestError


def check_prompt(ids: list[int], vocab_size: int) -> None:
    """Raise RequestError for a prompt ([n] token ids) with an id that the model does not have."""
    if not ids or min(ids) < 0 or max(ids) >= vocab_size:
        raise RequestError(
            f"text_input: has a token id outside of 0 to {vocab_size - 1}, which are this model's;"
            " the tokenizer is another model's"
        )


def check_ids(sampling: Sampling, vocab_size: int) -> None:
    """Raise RequestError, by the input's name, for an id that the model never makes."""
    if sampling.bias_ids and max(sampling.bias_ids) >= vocab_size:
        raise RequestError(
            f"{BIAS_WORDS}: has a weight for the id {max(sampling.bias_ids)}, which is not in the"
            f" vocabulary; use 0 to {vocab_size - 1}"
        )
    for token in sampling.end_ids:
        if token >= vocab_size:
            name = "end_id" if token == sampling.end_id else "stop_token_ids"
            raise RequestError(
                f"{name}: {token} is not in the vocabulary; use 0 to {vocab_size - 1}"
            )
