"""Embeddings: the vectors are the library's own, whatever lies together in a batch."""

from pathlib import Path

import numpy as np
import openvino_genai as genai
import pytest
from transformers import AutoTokenizer

from support.embedding_ir import write_embedding_engine
from trellis.engine_host.engines import openvino_embedding
from trellis.engine_host.engines.openvino_embedding import (
    POOLINGS,
    PROPERTIES,
    OpenVinoEmbedding,
    batches,
)

TEXTS = ["the light house keeper climbed the stairs", "a cat", "the sea and the ship, a lamp.", "a"]
CLOSE = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_engine(tmp_path_factory.mktemp("embedding") / "engine")


@pytest.fixture(scope="module")
def ids(folder: Path) -> list[list[int]]:
    made: list[list[int]] = AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    return made


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_vectors_are_the_library_s(
    folder: Path, ids: list[list[int]], pooling: str, normalize: bool
) -> None:
    kinds = genai.TextEmbeddingPipeline.PoolingType
    kind = {"mean": kinds.MEAN, "cls": kinds.CLS, "last": kinds.LAST_TOKEN}[pooling]
    library = genai.TextEmbeddingPipeline(
        str(folder), "CPU", pooling_type=kind, normalize=normalize, **PROPERTIES
    )
    found = OpenVinoEmbedding(folder, pooling, normalize).embed(ids)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array(library.embed_documents(TEXTS)), abs=CLOSE)
    lengths = np.linalg.norm(found, axis=1)
    assert np.allclose(lengths, 1, atol=CLOSE) == normalize


def test_a_vector_does_not_depend_on_what_is_beside(
    folder: Path, ids: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OpenVinoEmbedding(folder, "mean")
    alone = np.concatenate([engine.embed([each]) for each in ids])
    for tokens in (1, 12, 8192):
        monkeypatch.setattr(openvino_embedding, "BATCH_TOKENS", tokens)
        assert engine.embed(ids) == pytest.approx(alone, abs=CLOSE)


def test_a_batch_holds_like_lengths_and_no_more_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_embedding, "BATCH_TOKENS", 10)
    assert list(batches([5, 1, 5, 2, 30])) == [[1, 3], [0, 2], [4]]
    assert list(batches([])) == []


def test_an_unknown_pooling_and_a_missing_model_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^pooling: 'max' is not known; use mean, cls, last$"):
        OpenVinoEmbedding(folder, "max")
    with pytest.raises(RuntimeError, match=r"^engine_dir: OpenVINO cannot load"):
        OpenVinoEmbedding(tmp_path, "mean")


def test_a_model_that_keeps_state_is_rejected(openvino_ir: Path) -> None:
    with pytest.raises(RuntimeError, match=r"inputs that are not known: .*beam_idx"):
        OpenVinoEmbedding(openvino_ir, "last")
