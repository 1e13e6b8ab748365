# SPDX-License-Identifier: Apache-2.0
"""vLLM with two workers on one CPU: they answer as one does, stop as one, and die as one."""

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

pytest.importorskip("vllm", reason="needs vLLM: `make setup-vllm`", exc_type=ImportError)

from ranks.asked import ENSEMBLE, PROMPTS, ask, ask_all, chunks
from ranks.vllm_processes import find, is_vllm, serve_vllm
from support.launched import Launched, command
from support.waiting import wait_within
from trellis.server.ports import free_ports

TWO = ("--world_size", "2")
LONG = {"text_input": "On", "stream": True, "parameters": {"max_tokens": 1900, "end_id": -1}}
AT_ONCE = ("--drain_timeout", "1", "--exit_timeout", "1")
WHOLE = {**LONG, "stream": False}
BESIDE = 12  # requests beside the stream: with it more than the KV cache holds


@pytest.fixture(scope="module")
def expected(random_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The greedy answers of one worker to all prompts."""
    with (
        serve_vllm(random_repo, tmp_path_factory.mktemp("one")) as one,
        httpx.Client(base_url=one.url, timeout=120) as http,
    ):
        return ask_all(http, 1)


@pytest.fixture(scope="class")
def two(random_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with serve_vllm(random_repo, tmp_path_factory.mktemp("two"), *TWO) as server:
        yield server


@pytest.fixture
def http(two: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=two.url, timeout=120) as client:
        yield client


class TestTwoWorkers:
    """All by one server, which is ended behind them: its idle workers take much of the cores."""

    @pytest.mark.parametrize("at_a_time", [1, 8])
    def test_two_workers_answer_as_one(
        self, http: httpx.Client, expected: list[str], at_a_time: int
    ) -> None:
        assert len(set(expected)) == len(PROMPTS)
        assert ask_all(http, at_a_time) == expected

    def test_two_workers_stream(self, http: httpx.Client, expected: list[str]) -> None:
        parts = chunks(http, PROMPTS[0])
        assert len(parts) > 1
        assert "".join(parts) == expected[0]

    def test_two_workers_draw_the_same_for_the_same_seed(self, http: httpx.Client) -> None:
        sampling = {"top_k": 50, "top_p": 0.9, "temperature": 1.3, "repetition_penalty": 1.2}
        first, again, other = (
            ask(http, PROMPTS[0], random_seed=seed, **sampling) for seed in (42, 42, 43)
        )
        assert first == again
        assert first != other

    def test_there_is_one_server_and_no_mpirun(self, two: Launched) -> None:
        commands = [" ".join(process.cmdline()[:1]) for process in two.look()]
        assert sum("bin/tritonserver" in each for each in commands) == 1
        assert not [each for each in commands if "mpirun" in each]
        assert sum(is_vllm(process, "Worker") for process in two.look()) == 2

    def test_a_client_that_leaves_frees_both_workers(
        self, http: httpx.Client, expected: list[str]
    ) -> None:
        for _ in range(16):  # together more than the KV cache holds
            with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=LONG) as response:
                assert next(response.iter_raw())
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, http, PROMPTS[0])
            wait_within(20, answer.done)
        assert answer.result() == expected[0]


# tests/vllm_engine kills these of one worker, and each of these tests takes more than a minute.
AS_OF_ONE = [pytest.param(each, marks=pytest.mark.slow) for each in ("engine core", "engine")]


@pytest.mark.parametrize("what", ["worker 0", "worker 1", "launcher", *AS_OF_ONE])
def test_any_killed_process_ends_all_within_15_seconds(
    random_repo: Path, tmp_path: Path, what: str
) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if killed_while_it_streams(random_repo, folder, what):
            return
    raise AssertionError("the stream was over each time before the process was killed")


def killed_while_it_streams(repo: Path, folder: Path, what: str) -> bool:
    """Whether it was.

    Two workers of one machine leave others little of its cores: a client may read the first line of
    a stream many seconds after it was written. So much else is asked that the stream lasts.
    """
    with serve_vllm(repo, folder, *TWO) as server, ThreadPoolExecutor(BESIDE) as pool:
        doomed = find(server, what)
        for _ in range(BESIDE):
            pool.submit(httpx.post, f"{server.url}{ENSEMBLE}/generate", json=WHOLE, timeout=120)
        with (
            httpx.Client(base_url=server.url, timeout=120) as http,
            http.stream("POST", f"{ENSEMBLE}/generate_stream", json=LONG) as response,
        ):
            lines = response.iter_lines()
            next(lines)
            doomed.send_signal(signal.SIGKILL)
            wait_within(15, lambda: ended(server))
            rest = [] if what == "launcher" else [line for line in lines if line]
        assert server.process.returncode != 0
        if what == "launcher":  # without it the server ends as if it was asked to,
            return True  # and nobody is left to tidy up
        server.assert_nothing_left("trellis-*")
        return "error" in rest[-1]


def ended(server: Launched) -> bool:
    return server.process.poll() is not None and not alive(server)


def alive(server: Launched) -> list[psutil.Process]:
    return [each for each in server.tree if each.is_running()]


def test_sigterm_ends_all_while_a_request_runs(random_repo: Path, tmp_path: Path) -> None:
    with serve_vllm(random_repo, tmp_path, *TWO, *AT_ONCE) as server:
        with (
            httpx.Client(base_url=server.url, timeout=60) as http,
            http.stream("POST", f"{ENSEMBLE}/generate_stream", json=LONG) as response,
        ):
            assert next(response.iter_raw())
            server.look()
            server.process.terminate()
            wait_within(15, lambda: server.process.poll() is not None)
        assert server.process.returncode == 0
        server.assert_nothing_left("trellis-*")


def test_a_world_size_that_does_not_divide_the_heads_is_refused(random_repo: Path) -> None:
    http, grpc, metrics = map(str, free_ports(3))
    ports = ("--http_port", http, "--grpc_port", grpc, "--metrics_port", metrics)
    done = subprocess.run(
        command(random_repo, "--world_size", "3", *ports),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "--world_size 3: TP=3 PP=1: num_attention_heads 4 is no multiple of TP" in done.stderr
    assert "TP may be 1, 2 or 4" in done.stderr
