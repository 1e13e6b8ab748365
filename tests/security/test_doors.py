"""Before a real server: whatever a client calls a body, and only ensembles over HTTP."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.serving import serve
from trellis.server.process import Server

KNOWN = {"text_input": "The capital of France is", "max_tokens": 4}
ENSEMBLE = "/v2/models/ensemble"
INNER = ("preprocessing", "tensorrt_llm", "postprocessing")
VERBS = ("infer", "generate", "generate_stream")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PATHS = [
    f"{ENSEMBLE}/generate",
    f"{ENSEMBLE}/generate_stream",
    f"{ENSEMBLE}/infer",
    f"{ENSEMBLE}/stats",
    "/v2",
    "/v2/health/ready",
    "/v2/repository/index",
    "/v2/logging",
    "/nothing",
]


@pytest.fixture(autouse=True)
def unharmed(server: Server, http: httpx.Client) -> Iterator[None]:
    """The server answers after the test as it did before."""
    before = http.post(f"{ENSEMBLE}/generate", json=KNOWN).json()["text_output"]
    yield
    assert http.post(f"{ENSEMBLE}/generate", json=KNOWN).json()["text_output"] == before
    assert server.process.poll() is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("filling", [b"a=b&", b" "])
def test_a_large_body_of_curls_own_type_is_an_answer(
    http: httpx.Client, path: str, filling: bytes
) -> None:
    body = b'{"text_input": "x", "max_tokens": 1}' + filling * (4_300_000 // len(filling))
    for method in ("POST", "GET"):
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            # else it was answered before all of it had come
            assert http.request(method, path, content=body, headers=FORM).status_code


@pytest.mark.promise("shut")
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("verb", VERBS)
def test_inner_models_are_not_asked_over_http(http: httpx.Client, name: str, verb: str) -> None:
    for version in ("", "/versions/1"):
        answer = http.post(f"/v2/models/{name}{version}/{verb}", json={"inputs": []})
        assert answer.status_code == 404
        assert answer.json()["error"] == (
            f"{name}: over HTTP only ensembles are asked; ask ensemble, or launch with"
            " --expose-inner-models"
        )


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/TENSORRT_LLM/infer", "/V2/MODELS/tensorrt_llm/infer",
        "/v2/models/tensorrt%5Fllm/infer", "/v2/models/tensorrt_llm/%69nfer",
        "//v2/models/tensorrt_llm/infer", "/v2/models//tensorrt_llm/infer",
        "/v2/models/tensorrt_llm/versions/1//infer", "/v2/models/ensemble/../tensorrt_llm/infer",
        "http://x/v2/models/tensorrt_llm/infer", "HTTP://x/v2/models/tensorrt_llm/generate",
        "/v2/models/tensorrt_llm/infer/", "/v2/models/tensorrt_llm/infer?x", "/nope/infer",
    ],
)  # fmt: skip
def test_no_way_of_writing_a_path_goes_around_it(
    server: Server, http: httpx.Client, path: str
) -> None:
    request = http.build_request("POST", "/", json={"inputs": []})
    request.extensions = {"target": path.encode()}
    assert http.send(request).status_code in (400, 404)


def test_what_is_shown_of_inner_models(http: httpx.Client) -> None:
    """Readiness and statistics; how they are configured is nobody's business."""
    for name in INNER:
        for what, status in (("/ready", 200), ("/stats", 200), ("", 404), ("/config", 404)):
            assert http.get(f"/v2/models/{name}{what}").status_code == status


def test_a_model_that_is_not_there_is_a_404_that_says_what_to_ask(http: httpx.Client) -> None:
    for verb in VERBS:
        answer = http.post(f"/v2/models/no_such_model/{verb}", json=KNOWN)
        assert answer.status_code == 404
        assert "no_such_model" in answer.json()["error"]
        assert answer.json()["error"].endswith("; ask /v2/models/ensemble")


def test_inner_models_are_asked_where_the_launcher_was_told_so(
    demo_repo: Path, tmp_path: Path
) -> None:
    inputs = [
        {"name": "QUERY", "shape": [1, 1], "datatype": "BYTES", "data": ["Hello"]},
        {"name": "REQUEST_OUTPUT_LEN", "shape": [1, 1], "datatype": "INT32", "data": [1]},
    ]
    with serve(demo_repo, tmp_path, expose_inner_models=True) as server:
        url = server.settings.url
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            answer = client.post("/v2/models/preprocessing/infer", json={"inputs": inputs})
            assert answer.status_code == 200, answer.text
            assert client.post(f"{ENSEMBLE}/generate", json=KNOWN).status_code == 200
