# SPDX-License-Identifier: Apache-2.0
"""Two models of vLLM in one server, on a CPU: each answers with its own text, and both end."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from ranks.asked import PROMPTS
from ranks.checkpoints import random_llama
from support.launched import Launched
from support.serving import serve
from support.waiting import wait_within
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.tokenizers import load
from vllm_engine.greedy_texts import greedy_texts

READY_SECONDS = 400
TOKENS = 12
MODELS = ("ensemble", "random")
ENGINES = ("tensorrt_llm", "random_tensorrt_llm")
ASKED = PROMPTS[:6]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoints(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SmolLM2, and a small Llama of random weights, which says something else."""
    folder = tmp_path_factory.mktemp("random") / "checkpoint"
    random_llama(folder, 49152)
    (folder / "engine.yaml").write_text("enforce_eager: true\n")
    return dict(zip(MODELS, (checkpoint, folder), strict=True))


@pytest.fixture(scope="module")
def repo(
    checkpoints: dict[str, Path],
    demo_engine: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two `make repo BACKEND=vllm` make, the second with NAME=random."""
    target = tmp_path_factory.mktemp("several") / "triton_model_repo"
    settings = {"triton_max_batch_size": "8", "max_tokens_in_paged_kv_cache": "16384"}
    for name, folder in checkpoints.items():
        engine = read_engine(folder, "vllm")
        assemble(Plan(engine, "gpt2", demo_engine[1], name=name, settings=settings), target)
    return target


@pytest.fixture(scope="module")
def expected(checkpoints: dict[str, Path], demo_engine: tuple[Path, Path]) -> dict[str, list[str]]:
    tokenizer = load("gpt2", demo_engine[1])
    return {
        name: greedy_texts(folder, tokenizer, ASKED, TOKENS) for name, folder in checkpoints.items()
    }


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("server")
    with serve(repo, folder, launcher=True, ready_seconds=READY_SECONDS) as launched:
        yield launched


def ask(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"text_input": prompt, "max_tokens": TOKENS}
    response = http.post(f"/v2/models/{model}/generate", json=body)
    assert response.status_code == 200, response.text
    text: str = response.json()["text_output"]
    return text


def engine_cores(launched: Launched, model: str) -> list[psutil.Process]:
    """vLLM's own processes of one model."""
    below = launched.stub(model).children(recursive=True)
    return [each for each in below if "VLLM::EngineCore" in " ".join(each.cmdline())]


def test_each_answers_with_its_own_text_while_the_other_is_asked(
    server: Launched, expected: dict[str, list[str]]
) -> None:
    assert not set(expected["ensemble"]) & set(expected["random"])
    each = [(model, number) for number in range(len(ASKED)) for model in MODELS]
    with httpx.Client(base_url=server.url, timeout=120) as http, ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda pair: ask(http, pair[0], ASKED[pair[1]]), each))
    assert said == [expected[model][number] for model, number in each]


def test_openai_s_api_asks_the_one_that_is_named(
    server: Launched, expected: dict[str, list[str]]
) -> None:
    with httpx.Client(base_url=server.url, timeout=120) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == list(MODELS)
        for model in MODELS:
            body = {"model": model, "prompt": ASKED[0], "max_tokens": TOKENS, "temperature": 0}
            answer = http.post("/v1/completions", json=body).json()
            assert answer["choices"][0]["text"] == expected[model][0]


def test_both_end_with_their_server(server: Launched) -> None:
    """The last that is asked of this server."""
    assert [len(engine_cores(server, model)) for model in ENGINES] == [1, 1]
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_killed_process_of_one_ends_both_within_15_seconds(repo: Path, tmp_path: Path) -> None:
    with serve(repo, tmp_path, launcher=True, ready_seconds=READY_SECONDS) as launched:
        (core,) = engine_cores(launched, ENGINES[1])
        body = {"text_input": "On", "stream": True, "max_tokens": 1900, "end_id": -1}
        with (
            httpx.Client(base_url=launched.url, timeout=60) as http,
            http.stream("POST", "/v2/models/ensemble/generate_stream", json=body) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            core.send_signal(signal.SIGKILL)
            wait_within(15, lambda: launched.process.poll() is not None)
            assert "error" in [line for line in lines if line][-1]
        assert launched.process.returncode != 0
        assert f"the process of {ENGINES[1]} " in launched.log()
        launched.assert_nothing_left()
