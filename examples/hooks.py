# SPDX-License-Identifier: Apache-2.0
"""Hooks: every prompt is a question in SmolLM2's chat form, and no answer says "Paris"."""

WORD, MASK = "Paris", "*****"


def prompt(text: str) -> str:
    """A prompt's text, before it is encoded."""
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


class Answer:
    """One answer. Its text comes in chunks, and WORD may fall on the border of two."""

    def __init__(self) -> None:
        self.kept = ""  # what may be the beginning of WORD

    def push(self, text: str) -> str:
        """What goes out for the text of a chunk."""
        text = (self.kept + text).replace(WORD, MASK)
        lengths = range(len(WORD) - 1, 0, -1)
        kept = next((n for n in lengths if text.endswith(WORD[:n])), 0)
        self.kept = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """What is left when nothing follows."""
        return self.kept
