# SPDX-License-Identifier: Apache-2.0
"""What is told of an answer besides its text, where TensorRT-LLM's own engine does not tell it.

How many tokens the prompt has, how many this response, and why a whole answer ended. Counted by
what `preprocessing` announced of the request.
"""

import numpy as np

from trellis.ipc.stream_announcements import (
    FINISH_REASON,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    Begun,
    CountedPrompt,
)

Tensors = dict[str, np.ndarray]


def told(begun: Begun, row: int, sequences: list[list[int]]) -> Tensors:
    """The tensors of one response, as its request asked for them.

    Numbers are [1, 1] int32, reasons [1, beams] object: UTF-8 bytes.
    `row`: which of the request's prompts it answers; `sequences`: the ids of its beams.

    >>> prompt = CountedPrompt(tokens=3, in_front=0, max_tokens=2)
    >>> begun = Begun(None, asked=NUM_OUTPUT_TOKENS | FINISH_REASON, prompts=(prompt,))
    >>> {name: array.tolist() for name, array in told(begun, 0, [[7, 8]]).items()}
    {'NUM_OUTPUT_TOKENS': [[2]], 'FINISH_REASON': [[b'length']]}
    """
    if not begun.asked or row >= len(begun.prompts):
        return {}
    prompt = begun.prompts[row]
    made = [ids[prompt.in_front :] for ids in sequences]
    tensors: Tensors = {}
    if begun.asked & NUM_INPUT_TOKENS:
        tensors["NUM_INPUT_TOKENS"] = np.array([[prompt.tokens]], np.int32)
    if begun.asked & NUM_OUTPUT_TOKENS:
        tensors["NUM_OUTPUT_TOKENS"] = np.array([[sum(map(len, made))]], np.int32)
    if begun.asked & FINISH_REASON:
        reasons = [reason(prompt, ids, begun.cancelled) for ids in made]
        tensors["FINISH_REASON"] = np.array([reasons], np.object_)
    return tensors


def reason(prompt: CountedPrompt, ids: list[int], cancelled: bool) -> bytes:
    """Why an answer ended. Most releases leave its end id out: it is then shorter than it may be.

    A text that ends in a stop word at the last token that it may have counts as `length`.
    """
    if ids and ids[-1] in prompt.ends:
        return b"stop"
    if len(ids) >= prompt.max_tokens:
        return b"length"
    return b"cancelled" if cancelled else b"stop"
