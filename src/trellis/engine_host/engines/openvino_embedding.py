# SPDX-License-Identifier: Apache-2.0
"""Embeddings by an OpenVINO IR: ids of texts in, a vector for each out.

The library's own TextEmbeddingPipeline takes texts alone, reads them with a tokenizer of its own
and cuts them without a word. Here are ids and the model's own outputs; the pooling is the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import openvino

POOLINGS = ("mean", "cls", "last")
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
OUTPUT = "last_hidden_state"
MASK = "attention_mask"
KNOWN_INPUTS = frozenset(("input_ids", MASK, "token_type_ids", "position_ids"))
BATCH_TOKENS = 8192  # in one inference, padding among them


class OpenVinoEmbedding:
    """One compiled model. Callers must not call `embed` from several threads at once."""

    def __init__(self, folder: Path, pooling: str, normalize: bool = True) -> None:
        """Raises RuntimeError for a model that cannot be asked so."""
        if pooling not in POOLINGS:
            raise RuntimeError(f"pooling: {pooling!r} is not known; use {', '.join(POOLINGS)}")
        file = folder / "openvino_model.xml"
        try:
            model = openvino.Core().compile_model(str(file), "CPU", PROPERTIES)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"engine_dir: OpenVINO cannot load {file}: {reason}") from error
        self._inputs = [port.get_any_name() for port in model.inputs]
        strange = sorted(set(self._inputs) - KNOWN_INPUTS)
        if strange:
            raise RuntimeError(f"engine_dir: {file} has inputs that are not known: {strange}")
        self._request = model.create_infer_request()
        self._pooling = pooling
        self._normalize = normalize

    def embed(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Vectors of texts, given as ids, none empty: [n, size] float32."""
        found: list[np.ndarray | None] = [None] * len(prompts)
        for batch in batches([len(prompt) for prompt in prompts]):
            vectors = self._infer([prompts[index] for index in batch])
            for index, vector in zip(batch, vectors, strict=True):
                found[index] = vector
        return np.stack([vector for vector in found if vector is not None])

    def _infer(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        lengths = np.array([len(prompt) for prompt in prompts])
        shape = (len(prompts), int(lengths.max()))
        places = np.broadcast_to(np.arange(shape[1]), shape)
        mask = (places < lengths[:, None]).astype(np.int64)
        ids = np.zeros(shape, np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        given = {
            "input_ids": ids,
            MASK: mask,
            "token_type_ids": np.zeros(shape, np.int64),
            "position_ids": np.ascontiguousarray(places * mask),
        }
        for name in self._inputs:
            self._request.set_tensor(name, openvino.Tensor(given[name]))
        self._request.infer()
        hidden = np.array(self._request.get_tensor(OUTPUT).data, np.float32)
        return self._pooled(hidden, mask, lengths)

    def _pooled(self, hidden: np.ndarray, mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """[n, length, size] to [n, size]."""
        if self._pooling == "mean":
            vectors = (hidden * mask[..., None]).sum(axis=1) / lengths[:, None]
        elif self._pooling == "cls":
            vectors = hidden[:, 0]
        else:
            vectors = hidden[np.arange(len(hidden)), lengths - 1]
        if self._normalize:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        made: np.ndarray = vectors.astype(np.float32)
        return made


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts, those of like lengths together, BATCH_TOKENS with padding at most.

    >>> list(batches([3, 9000, 1]))
    [[2, 0], [1]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
