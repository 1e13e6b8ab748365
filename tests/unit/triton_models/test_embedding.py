"""The adapter of an embedding model: a request at fault leaves the others of its batch alone."""

import json
from typing import Any

import numpy as np
import pytest

from support.embedding_ir import SIZES, write_embedding_engine
from support.fake_triton import Tensor
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.triton_models.embedding import TritonPythonModel


class Given:
    """A tensor of a request."""

    def __init__(self, name: str, array: Any) -> None:
        self._tensor = Tensor(name, array)

    def name(self) -> str:
        return self._tensor.name

    def as_numpy(self) -> np.ndarray:
        return self._tensor.array


class Request:
    """One request."""

    def __init__(self, **arrays: Any) -> None:
        self._given = [Given(name, array) for name, array in arrays.items()]

    def inputs(self) -> list[Given]:
        return self._given


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TritonPythonModel:
    folder = tmp_path_factory.mktemp("embedding")
    engine = write_embedding_engine(folder / "engine")
    assemble(Plan(read_engine(engine), "auto", engine, name="embed"), folder / "repo")
    parameters = {
        "pooling": "mean",
        "tokenizer_type": "auto",
        "max_seq_len": "24",
        "max_prompt_bytes": "200",
    }
    config = {
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        "output": [{"name": "embedding", "data_type": "TYPE_FP32"}],
        "max_batch_size": 8,
    }
    made = TritonPythonModel()
    place = str(folder / "repo" / "embed")
    made.initialize(
        {
            "model_config": json.dumps(config),
            "model_name": "embed",
            "model_repository": place,
            "model_version": "1",
        }
    )
    return made


def texts(*words: str) -> Request:
    return Request(text_input=np.array([[word.encode()] for word in words], object))


def ids(*rows: list[int], lengths: list[int] | None = None) -> Request:
    arrays: dict[str, Any] = {"input_ids": np.array(rows, np.int32)}
    if lengths is not None:
        arrays["input_lengths"] = np.array(lengths, np.int32)[:, None]
    return Request(**arrays)


def test_requests_of_a_batch_get_their_own(model: TritonPythonModel) -> None:
    both, one = model.execute([texts("the sea", "a cat"), texts("a cat")])
    assert both.array("embedding").shape == (2, SIZES["hidden_size"])
    assert both.array("embedding")[1:] == pytest.approx(one.array("embedding"), abs=1e-6)
    assert both.array("num_input_tokens").tolist() == [[4], [4]]


def test_ids_count_as_far_as_their_lengths_say(model: TritonPythonModel) -> None:
    (text,) = model.execute([texts("a cat")])
    cat = [2, 8, 10, 3]
    (same,) = model.execute([ids([*cat, 0, 0], [*cat, 7, 7], lengths=[4, 4])])
    for row in same.array("embedding"):
        assert row == pytest.approx(text.array("embedding")[0], abs=1e-6)
    (bare,) = model.execute([ids(cat)])
    assert bare.array("embedding") == pytest.approx(text.array("embedding"), abs=1e-6)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(), "text_input: send either"),
        (texts("a cat " * 20), "text_input: 42 tokens do not fit"),
        (texts("z" * 201), "text_input: 201 bytes; send at most 200"),
        (ids([5, 999]), "input_ids: an id is not in the vocabulary"),
        (ids([5, -1]), "input_ids: an id is not in the vocabulary"),
        (ids([5, 6], lengths=[0]), "input_ids: empty"),
        (ids([5, 6], lengths=[3]), "input_lengths: more than input_ids has"),
        (Request(text_input=np.array([[b"\xff"]], object)), "text_input: "),
    ],
)
def test_a_request_at_fault_is_alone(
    model: TritonPythonModel, request_: Request, message: str
) -> None:
    before, wrong, after = model.execute([texts("a cat"), request_, texts("a cat")])
    assert wrong.error is not None
    assert wrong.error.message.startswith(message)
    assert wrong.error.code == "INVALID_ARG"
    assert np.array_equal(before.array("embedding"), after.array("embedding"))


def test_a_model_that_fails_fails_all_that_asked_it(
    model: TritonPythonModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model._engine, "embed", fail)
    good, wrong = model.execute([texts("a cat"), Request()])
    assert good.error is not None
    assert (good.error.message, good.error.code) == ("the model failed: out of memory", "INTERNAL")
    assert wrong.error is not None
    assert wrong.error.code == "INVALID_ARG"
