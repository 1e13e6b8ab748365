# SPDX-License-Identifier: Apache-2.0
"""Fields that clients add to a request although no ensemble has them, and what becomes of each.

What is not in this table, and no input, is rejected: a mistyped name must not go unnoticed. Of what
is in it nothing reaches Triton, whose newer releases reject the keys that they reserve
(triton-inference-server/server, pull request 8763).
"""

from dataclasses import dataclass

from trellis.contract.client_inputs import BEAMS, MAX_TOKENS, PROMPT, SEQUENCES, STREAM


@dataclass(frozen=True, slots=True)
class Accepted:
    """One field: mapped to the input `to`, or ignored because of `why`."""

    name: str
    to: str = ""
    why: str = ""


_NO_SEQUENCES = "an ensemble keeps nothing from one request to the next"
_NO_QUEUE_POLICY = "Triton heeds it in a model's own queue, and an ensemble has none"
ACCEPTED_FIELDS = {
    field.name: field
    for field in (
        Accepted("max_completion_tokens", to=MAX_TOKENS),
        Accepted("model", why="the path names the model"),
        Accepted("user", why="nothing is kept for each user"),
        Accepted("sequence_id", why=_NO_SEQUENCES),
        Accepted("sequence_start", why=_NO_SEQUENCES),
        Accepted("sequence_end", why=_NO_SEQUENCES),
        Accepted("priority", why=_NO_QUEUE_POLICY),
        Accepted("timeout", why=_NO_QUEUE_POLICY),
        Accepted("triton_enable_empty_final_response", why="over HTTP an answer has its own end"),
    )
}
# Parameter keys that Triton keeps to itself: these, and all that begin so.
RESERVED_KEYS = frozenset(
    (
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "headers",
        "binary_data_output",
    )
)
RESERVED_PREFIX = "triton_"

# An input -> what other servers call it. Those names are rejected, with the input as the hint.
_ELSEWHERE = {
    PROMPT: "prompt text input inputs query content",
    MAX_TOKENS: "max_new_tokens max_length max_output_tokens num_tokens n_predict num_predict"
    " request_output_len output_len",
    "min_tokens": "min_new_tokens",
    STREAM: "streaming",
    SEQUENCES: "n num_sequences",
    BEAMS: "num_beams",
    "stop_words": "stop_sequences stop_strings stop_word",
    "bad_words": "bad_words_list",
    "end_id": "eos_token_id",
    "pad_id": "pad_token_id",
    "return_log_probs": "logprobs log_probs",
    "length_penalty": "len_penalty",
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "lora_task_id": "lora_id",
    "lora_name": "adapter_id lora_adapter",
}
OTHER_NAMES = {name: to for to, names in _ELSEWHERE.items() for name in names.split()}
