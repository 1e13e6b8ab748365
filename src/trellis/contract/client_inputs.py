# SPDX-License-Identifier: Apache-2.0
"""The inputs of `ensemble` that clients know, in one table, and the names that code speaks of.

`sampling_fields.py` has what may be in those that sample, and what the engine calls them.
"""

from dataclasses import dataclass

PROMPT = "text_input"
MAX_TOKENS = "max_tokens"
STREAM = "stream"
STOP = "stop"
SEQUENCES, BEAMS = "num_return_sequences", "beam_width"
SKIP = "skip_special_tokens"
EXCLUDE = "exclude_input_in_output"
BIAS_WORDS = "embedding_bias_words"
LORA_NAME = "lora_name"
GUIDE_TYPE, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"


@dataclass(frozen=True, slots=True)
class ClientInput:
    """One input; its array is [prompts, values]."""

    name: str
    dtype: str  # Triton's, as gRPC has it: INT32; in releases 0.5 and 0.6 that is UINT32
    text: str = ""  # what `preprocessing` calls it, as TensorRT-LLM's own does; '': the same
    many: bool = False  # a prompt may have several values


# What `trellis ask` sends: the prompt, and an option each, in the order of its --help.
CLIENT_INPUTS = (
    ClientInput(PROMPT, "BYTES", text="QUERY"),
    ClientInput(MAX_TOKENS, "INT32", text="REQUEST_OUTPUT_LEN"),
    ClientInput("min_tokens", "INT32"),
    ClientInput("min_length", "INT32"),
    ClientInput(SEQUENCES, "INT32"),
    ClientInput(BEAMS, "INT32"),
    ClientInput("end_id", "INT32", text="END_ID"),
    ClientInput("pad_id", "INT32", text="PAD_ID"),
    ClientInput("stop_token_ids", "INT32", text="STOP_TOKEN_IDS", many=True),
    ClientInput("top_k", "INT32"),
    ClientInput("top_p", "FP32"),
    ClientInput("min_p", "FP32"),
    ClientInput("temperature", "FP32"),
    ClientInput("length_penalty", "FP32"),
    ClientInput("repetition_penalty", "FP32"),
    ClientInput("presence_penalty", "FP32"),
    ClientInput("frequency_penalty", "FP32"),
    ClientInput("no_repeat_ngram_size", "INT32"),
    ClientInput("seed", "UINT64"),
    ClientInput("random_seed", "UINT64"),
    ClientInput(STREAM, "BOOL"),
    ClientInput(EXCLUDE, "BOOL"),
    ClientInput(SKIP, "BOOL"),
    ClientInput("return_log_probs", "BOOL"),
    ClientInput("return_num_input_tokens", "BOOL"),
    ClientInput("return_num_output_tokens", "BOOL"),
    ClientInput("return_finish_reason", "BOOL"),
    ClientInput(STOP, "BOOL", text="STOP"),
    ClientInput("stop_words", "BYTES", text="STOP_WORDS_DICT", many=True),
    ClientInput("decoder_text_input", "BYTES", text="DECODER_QUERY"),
    ClientInput("bad_words", "BYTES", text="BAD_WORDS_DICT", many=True),
    ClientInput(BIAS_WORDS, "BYTES", text="EMBEDDING_BIAS_WORDS", many=True),
    ClientInput("embedding_bias_weights", "FP32", text="EMBEDDING_BIAS_WEIGHTS", many=True),
    ClientInput(GUIDE_TYPE, "BYTES"),
    ClientInput(GUIDE, "BYTES"),
    ClientInput(LORA_NAME, "BYTES"),
)
# Inputs of `preprocessing` under the names that TensorRT-LLM's users know -> the client's.
TEXT_INPUTS = {item.text: item.name for item in CLIENT_INPUTS if item.text}
