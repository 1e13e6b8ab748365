"""Bodies of `/generate` with every kind of input: what the gateway makes of each is compared."""

from typing import Any

from trellis.gateway.limits import LONG_BODY

KOREAN = "안녕하세요 세계 😀 naïve"
BODIES: dict[str, dict[str, Any]] = {
    "a prompt": {"text_input": "Say it"},
    "Korean, in lists": {"text_input": [KOREAN], "max_tokens": [7]},
    "sampling": {
        "top_k": 5,
        "top_p": 0.95,
        "min_p": 0.05,
        "temperature": 0.7,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.25,
        "random_seed": 2**64 - 1,
        "min_length": 3,
    },
    "newer names": {"seed": [2**40], "min_tokens": 2},
    "greedy": {"temperature": 0, "top_p": 0.0},
    "no end": {"end_id": -1, "pad_id": 5},
    "what is returned": {"return_log_probs": True},
    "a count": {"return_num_input_tokens": True},
    "the prompt too": {"exclude_input_in_output": False},
    "guided": {"guided_decoding_guide_type": "json", "guided_decoding_guide": '{"a": "\\u00e9"}'},
    "a grammar": {
        "guided_decoding_guide_type": ["ebnf_grammar"],
        "guided_decoding_guide": ["root ::= [0-9]+"],
    },
    "a guide of no type": {"guided_decoding_guide": "{}"},
    "an unknown guide": {"guided_decoding_guide_type": "yaml", "guided_decoding_guide": "{}"},
    "no guide": {"guided_decoding_guide_type": "regex"},
    "stop words": {"stop_words": ["it", "말"], "bad_words": ["no"]},
    "ends": {"stop_token_ids": [29, 30], "end_id": 31},
    "ends and words": {"stop_token_ids": [29], "stop_words": ["it", "말"], "end_id": -1},
    "an end of no vocabulary": {"stop_token_ids": [5, -1]},
    "special tokens": {"skip_special_tokens": False},
    "special tokens, in a list": {"skip_special_tokens": [False], "stream": False},
    "no special tokens": {"skip_special_tokens": True},
    "a bias": {"embedding_bias_words": ["yes"], "embedding_bias_weights": [2.5]},
    "nothing of it": {"stop_words": [""], "beam_width": 1, "num_return_sequences": 1},
    "a long prompt": {"text_input": "Say" + " " * LONG_BODY},
    "no prompt": {"text_input": ""},
    "an id to be quoted": {"id": 'a "quoted" \\ \u00e9', "text_input": "Say it"},
    "no tokens": {"max_tokens": 0},
    "too many tokens": {"max_tokens": 10**6},
    "no probability": {"top_p": 7.0},
    "an id of no vocabulary": {"end_id": 10**6},
    "a word too long": {"stop_words": ["x" * 5000]},
}
