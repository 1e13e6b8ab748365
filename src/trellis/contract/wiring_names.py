# SPDX-License-Identifier: Apache-2.0
"""Names in the wiring of an assembled repository that several parts must agree on."""

# Input of a Python engine: its chunks go to `postprocessing`, where streams nobody reads are found.
STEP_MARK = "ensemble_step"
GUIDES = "guided_decoding_backend"  # parameter, of releases that have guided decoding
# What `postprocessing` tells of an answer where the release's engine does not: its output, and the
# ensemble's.
TOLD = {
    "NUM_INPUT_TOKENS": "num_input_tokens",
    "NUM_OUTPUT_TOKENS": "num_output_tokens",
    "FINISH_REASON": "finish_reason",
}
IDS_SUFFIX = "_ids"  # of the ensemble beside one, whose answers are token ids
