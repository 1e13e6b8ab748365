"""An embedding model behind Triton and the gateway: the vectors are the library's own."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import openvino_genai as genai
import pytest
import tritonclient.grpc as triton

from support.embedding_ir import SIZES, write_embedding_engine
from support.launched import Launched
from support.openai_api import error, post
from support.serving import serve
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_host.engines.openvino_embedding import PROPERTIES
from trellis.repository.assemble import Plan, assemble

NAME, PATH = "embed", "/v1/embeddings"
TEXTS = ["the light house keeper climbed the stairs", "a cat", "the sea and the ship, a lamp."]
CLOSE = 1e-6


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_engine(tmp_path_factory.mktemp("embedding") / "engine")


@pytest.fixture(scope="module")
def launched(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"triton_max_batch_size": "2"}
    assemble(Plan(read_engine(engine), "auto", engine, settings=settings, name=NAME), folder / "m")
    with serve(folder / "m", folder, launcher=True) as running:
        yield running


@pytest.fixture(scope="module")
def http(launched: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=launched.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(engine: Path) -> np.ndarray:
    """The library's vectors of TEXTS."""
    mean = genai.TextEmbeddingPipeline.PoolingType.MEAN
    library = genai.TextEmbeddingPipeline(
        str(engine), "CPU", pooling_type=mean, normalize=True, **PROPERTIES
    )
    return np.array(library.embed_documents(TEXTS), np.float32)


def vectors(answer: dict[str, Any]) -> np.ndarray:
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return np.array([each["embedding"] for each in answer["data"]], np.float32)


def test_the_vectors_are_the_library_s(http: httpx.Client, expected: np.ndarray) -> None:
    answer = post(http, PATH, model=NAME, input=TEXTS)
    assert vectors(answer) == pytest.approx(expected, abs=CLOSE)
    assert answer["object"] == "list"
    assert answer["model"] == NAME
    assert answer["usage"] == {"prompt_tokens": 24, "total_tokens": 24}


def test_one_text_is_as_a_list_of_one(http: httpx.Client, expected: np.ndarray) -> None:
    for text, vector in zip(TEXTS, expected, strict=True):
        found = vectors(post(http, PATH, model=NAME, input=text))
        assert found == pytest.approx(vector[None], abs=CLOSE)


def test_base64_holds_the_same_floats(http: httpx.Client) -> None:
    floats = vectors(post(http, PATH, model=NAME, input=TEXTS, encoding_format="float"))
    coded = post(http, PATH, model=NAME, input=TEXTS, encoding_format="base64")["data"]
    found = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in coded]
    assert np.array_equal(np.stack(found), floats)


def test_ids_are_the_texts_that_they_spell(
    http: httpx.Client, engine: Path, expected: np.ndarray
) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(engine)(TEXTS)["input_ids"]
    assert len(set(map(len, ids))) > 1
    assert vectors(post(http, PATH, model=NAME, input=ids)) == pytest.approx(expected, abs=CLOSE)
    one = vectors(post(http, PATH, model=NAME, input=ids[1]))
    assert one == pytest.approx(expected[1:2], abs=CLOSE)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"input": []}, "input"),
    "an empty text": ({"input": ["a cat", ""]}, "input[1]"),
    "empty ids": ({"input": [[1], []]}, "input[1]"),
    "a long text": ({"input": "a cat " * 40}, "input"),
    "a strange id": ({"input": [1, 9999]}, "input"),
    "a number": ({"input": 7}, "input"),
    "other dimensions": ({"input": "a cat", "dimensions": 7}, "dimensions"),
    "another format": ({"input": "a cat", "encoding_format": "hex"}, "encoding_format"),
    "an unknown field": ({"input": "a cat", "tempo": 1}, "tempo"),
    "an unknown model": ({"input": "a cat", "model": "other"}, "model"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(http: httpx.Client, name: str) -> None:
    sent, param = WRONG[name]
    status = 404 if "model" in sent else 400
    assert error(http, PATH, {"model": NAME, **sent}, status)["param"] == param


def test_its_own_dimensions_are_no_wish(http: httpx.Client) -> None:
    answer = post(http, PATH, model=NAME, input="a cat", dimensions=SIZES["hidden_size"])
    assert vectors(answer).shape == (1, SIZES["hidden_size"])


def test_it_is_listed_and_makes_no_text(http: httpx.Client) -> None:
    listed = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [NAME]
    found = error(http, "/v1/completions", {"model": NAME, "prompt": "Hi"})
    assert found["param"] == "model"
    assert "/v1/embeddings" in found["message"]


def test_for_a_client_that_left_no_more_is_computed(http: httpx.Client) -> None:
    def computed() -> int:
        found = http.get(f"/v2/models/{NAME}/stats").json()
        return int(found["model_stats"][0]["inference_count"])

    before, texts = computed(), TEXTS[:1] * 2048
    with pytest.raises(httpx.ReadTimeout):
        http.post(PATH, json={"model": NAME, "input": texts}, timeout=httpx.Timeout(60, read=0.2))
    time.sleep(0.3)  # what was in flight ends
    left = computed()
    time.sleep(0.3)
    assert computed() == left < before + 2048
    assert vectors(post(http, PATH, model=NAME, input=TEXTS)).shape[0] == len(TEXTS)


def test_clients_of_triton_ask_it_too(launched: Launched, expected: np.ndarray) -> None:
    with triton.InferenceServerClient(f"localhost:{launched.grpc}") as client:
        sent = triton.InferInput("text_input", [2, 1], "BYTES")
        sent.set_data_from_numpy(np.array([[text.encode()] for text in TEXTS[:2]], object))
        answer = client.infer(NAME, [sent])
    assert answer.as_numpy("embedding") == pytest.approx(expected[:2], abs=CLOSE)
    assert answer.as_numpy("num_input_tokens").tolist() == [[9], [4]]


def test_the_openai_client_makes_the_same(http: httpx.Client, expected: np.ndarray) -> None:
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model=NAME, input=TEXTS)
    found = np.array([each.embedding for each in answer.data], np.float32)
    assert found == pytest.approx(expected, abs=CLOSE)
