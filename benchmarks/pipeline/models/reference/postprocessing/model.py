"""`postprocessing` as the widely used plugins do it, written anew: `batch_decode` for each chunk.

A chunk is decoded by itself, so a stream loses the spaces between SentencePiece's words and shows
replacement characters inside others; what it costs is what is measured here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from transformers import AutoTokenizer


class TritonPythonModel:
    """Triton's entry point."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        folder = Path(args["model_repository"]) / args["model_version"] / "tokenizer"
        self.tokenizer = AutoTokenizer.from_pretrained(
            folder, legacy=False, padding_side="left", trust_remote_code=False
        )
        if not self.tokenizer.eos_token:  # a vocabulary whose folder names no special tokens
            last = len(self.tokenizer) - 1
            self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(last)
        if not self.tokenizer.pad_token:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with the text of its tokens."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        rows = [
            beam[:length]
            for beams, beam_lengths in zip(tokens, lengths, strict=True)
            for beam, length in zip(beams, beam_lengths, strict=True)
        ]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        output = pb_utils.Tensor("OUTPUT", np.array(texts).astype(object).reshape(len(tokens), -1))
        return pb_utils.InferenceResponse(output_tensors=[output])
