# SPDX-License-Identifier: Apache-2.0
"""A real vLLM behind Triton and the gateway, on a CPU: exact text, and an end of everything."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ranks.asked import ENSEMBLE, PROMPTS, ask, ask_all, chunks
from support.launched import Launched
from support.paths import ROOT
from support.serving import serve
from support.waiting import wait_within
from trellis.tokenizers import load
from vllm_engine.greedy_texts import greedy_texts

READY_SECONDS = 400
TOKENS = 12


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("server")
    with serve(repo, folder, launcher=True, ready_seconds=READY_SECONDS) as launched:
        yield launched


@pytest.fixture
def http(server: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def expected(checkpoint: Path, demo_engine: tuple[Path, Path]) -> list[str]:
    """The greedy texts of transformers' own loop over the same weights."""
    return greedy_texts(checkpoint, load("gpt2", demo_engine[1]), PROMPTS, TOKENS)


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_greedy_text_is_the_models_own(
    http: httpx.Client, expected: list[str], at_a_time: int
) -> None:
    assert ask_all(http, at_a_time) == expected


def test_a_stream_gives_the_same_text(http: httpx.Client, expected: list[str]) -> None:
    for prompt, text in zip(PROMPTS[:4], expected, strict=False):
        assert "".join(chunks(http, prompt)) == text


def test_a_seed_decides_and_another_one_differs(http: httpx.Client) -> None:
    sampling = {"top_k": 50, "top_p": 0.95, "temperature": 1.3, "repetition_penalty": 1.2}
    first, again, other = (
        ask(http, PROMPTS[1], random_seed=seed, **sampling) for seed in (42, 42, 43)
    )
    assert first == again
    assert first != other


def test_stop_words_and_stop_ids_end_an_answer(http: httpx.Client, expected: list[str]) -> None:
    text = expected[0]
    word = text.split()[1]
    assert ask(http, PROMPTS[0], stop_words=[word]) == text[: text.index(word)]


def test_log_probabilities_sum_up(http: httpx.Client) -> None:
    body = {"text_input": PROMPTS[0], "parameters": {"max_tokens": 5, "return_log_probs": True}}
    answer = http.post(f"{ENSEMBLE}/generate", json=body).json()
    assert len(answer["output_log_probs"]) == 5
    assert all(value <= 0 for value in answer["output_log_probs"])
    assert sum(answer["output_log_probs"]) == pytest.approx(answer["cum_log_probs"], abs=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad_words", ["a" * 300]),
        ("beam_width", 2),
        ("presence_penalty", 3.0),
        ("temperature", 2.5),
        ("end_id", 60000),
        ("return_context_logits", True),
    ],
)
def test_what_vllm_cannot_do_is_rejected_by_name(http: httpx.Client, name: str, value: Any) -> None:
    body: dict[str, Any] = {"text_input": "a", "parameters": {"max_tokens": 4, name: value}}
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    assert response.status_code == 400, response.text
    assert f"{name}:" in response.json()["error"]


def test_guides_reach_vllm_and_bad_ones_are_rejected(http: httpx.Client) -> None:
    name = "guided_decoding_guide"
    assert ask(http, "Yes or no?", **{f"{name}_type": "regex", name: " (yes|no)"}) in (
        " yes",
        " no",
    )
    body = {"text_input": "a", "parameters": {"max_tokens": 4, f"{name}_type": "regex", name: "("}}
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    assert response.status_code == 400, response.text
    assert f"{name}: $: not a regular expression" in response.json()["error"]


def test_bad_words_reach_vllm(http: httpx.Client, expected: list[str]) -> None:
    word = expected[0].split()[0]
    text = ask(http, PROMPTS[0], bad_words=[word])
    assert text
    assert word not in text
    assert ask(http, PROMPTS[0]) == expected[0]


def test_a_bias_reaches_vllm(http: httpx.Client, expected: list[str]) -> None:
    bias = {"embedding_bias_words": [" banana"], "embedding_bias_weights": [100.0]}
    assert ask(http, PROMPTS[0], max_tokens=2, **bias) == " banana banana"
    assert ask(http, PROMPTS[0]) == expected[0]


def test_clients_that_leave_free_the_cache(http: httpx.Client, expected: list[str]) -> None:
    body = {"text_input": "On", "stream": True, "parameters": {"max_tokens": 1900, "end_id": -1}}
    for _ in range(16):  # together more than the cache of 16,384 tokens holds
        with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response:
            assert next(response.iter_raw())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, http, PROMPTS[0])
        wait_within(20, answer.done)
    assert answer.result() == expected[0]


@pytest.mark.parametrize("what", ["VLLM::EngineCore", "VLLM::Worker", "keeper"])
def test_any_killed_process_ends_all_within_15_seconds(
    repo: Path, tmp_path: Path, what: str
) -> None:
    with serve(repo, tmp_path, launcher=True, ready_seconds=READY_SECONDS) as launched:
        doomed = _find(launched, what)
        parameters = {"max_tokens": 1000, "end_id": -1}
        body = {"text_input": "On", "stream": True, "parameters": parameters}
        with (
            httpx.Client(base_url=launched.url, timeout=60) as http,
            http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            doomed.send_signal(signal.SIGKILL)
            wait_within(15, lambda: launched.process.poll() is not None)
            assert "error" in [line for line in lines if line][-1]
        assert launched.process.returncode != 0
        launched.assert_nothing_left()


def _find(launched: Launched, what: str) -> psutil.Process:
    for process in launched.tree:
        command = " ".join(process.cmdline())
        is_keeper = "process_main" in command and "process_main" not in " ".join(
            (process.parent() or process).cmdline()
        )
        if what in command or (what == "keeper" and is_keeper):
            return process
    raise AssertionError(f"there is no {what}")


def test_preflight_estimates_the_cache_that_vllm_logs(server: Launched, repo: Path) -> None:
    script = ROOT / "benchmarks" / "memory_estimate.py"
    options = [f"--model_repo={repo}", f"--log={server.log_file}", "--cpu_gib=1", "--most=0.1"]
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["kv_tokens"]["vllm"] == 16384
