"""`preprocessing` as the widely used plugins do it, written anew: one request after another.

transformers' AutoTokenizer encodes each prompt by itself, the rows are padded with numpy, word
lists and biases are always made, and eleven tensors leave for every request.
"""

import json
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
        self.end_id = self.tokenizer.encode(self.tokenizer.eos_token, add_special_tokens=False)[0]
        self.pad_id = self.tokenizer.encode(self.tokenizer.pad_token, add_special_tokens=False)[0]
        config = json.loads(args["model_config"])
        self.types = {
            output["name"]: pb_utils.triton_string_to_numpy(output["data_type"])
            for output in config["output"]
        }

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with its eleven tensors."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        prompts = _value(request, "QUERY")
        rows = prompts.shape[0]
        max_tokens = _value(request, "REQUEST_OUTPUT_LEN")
        ids, lengths = self._ids(prompts)
        decoder_prompts = _value(request, "DECODER_QUERY")
        if decoder_prompts is None:
            decoder_ids = np.full((rows, 1), self.pad_id, np.int32)
            decoder_lengths = np.ones((rows, 1), np.int32)
        else:
            decoder_ids, decoder_lengths = self._ids(decoder_prompts)
        end_id, pad_id = _value(request, "END_ID"), _value(request, "PAD_ID")
        arrays = {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": lengths,
            "DECODER_INPUT_ID": decoder_ids,
            "REQUEST_DECODER_INPUT_LEN": decoder_lengths,
            "BAD_WORDS_IDS": self._words(_value(request, "BAD_WORDS_DICT"), rows),
            "STOP_WORDS_IDS": self._words(_value(request, "STOP_WORDS_DICT"), rows),
            "EMBEDDING_BIAS": np.empty((rows, 0), np.float32),
            "REQUEST_OUTPUT_LEN": max_tokens,
            "OUT_END_ID": end_id if end_id is not None else np.full((rows, 1), self.end_id),
            "OUT_PAD_ID": pad_id if pad_id is not None else np.full((rows, 1), self.pad_id),
            "OUT_PROMPT_TABLE_EXTRA_IDS": np.zeros_like(ids),
        }
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor(name, np.array(array).astype(self.types[name]))
                for name, array in arrays.items()
            ]
        )

    def _ids(self, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [
            np.array(self.tokenizer.encode(prompt[0].decode(), add_special_tokens=True)).astype(int)
            for prompt in prompts
        ]
        lengths = np.array([[len(row)] for row in rows]).astype(int)
        longest = int(lengths.max())
        padded = [
            np.pad(row, (0, longest - len(row)), "constant", constant_values=self.pad_id)
            for row in rows
        ]
        return np.concatenate(padded).reshape(len(rows), longest), lengths

    def _words(self, lists: "np.ndarray | None", rows: int) -> np.ndarray:
        """[rows, 2, longest]: the ids of all words of a row, and where each ends."""
        if lists is None:
            return np.empty((rows, 2, 0), np.int32)
        flat, ends = [], []
        for words in lists:
            ids = [
                self.tokenizer.encode(word.decode(), add_special_tokens=False)
                for word in words
                if word
            ]
            flat.append(np.array([token for word in ids for token in word]))
            ends.append(np.cumsum([len(word) for word in ids]))
        longest = max(1, *map(len, flat))
        for row in range(rows):
            flat[row] = np.pad(flat[row], (0, longest - len(flat[row])), constant_values=0)
            ends[row] = np.pad(ends[row], (0, longest - len(ends[row])), constant_values=-1)
        return np.array([flat, ends], np.int32).transpose((1, 0, 2))


def _value(request: Any, name: str) -> "np.ndarray | None":
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()
