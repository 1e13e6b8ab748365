"""Several ranks answer as one does, stop as one, and die as one."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)

from ranks.asked import ENSEMBLE, PROMPTS, ask, ask_all, chunks
from ranks.launched_ranks import Launched, command, wait_for
from trellis.server.ports import free_ports
from trellis.tokenizers import load

MPIRUN = ("--world_size", "2", "--oversubscribe")
NO_MPI = ("--world_size", "2", "--no-mpi")


def of_one_rank(repo: Path, folder: Path) -> list[str]:
    """The greedy answers of one rank to all prompts."""
    with Launched(repo, folder) as one, httpx.Client(base_url=one.url, timeout=120) as http:
        return ask_all(http, 1)


@pytest.fixture(scope="module")
def expected(random_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return of_one_rank(random_repo, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(random_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with Launched(random_repo, tmp_path_factory.mktemp("two"), *MPIRUN) as ranks:
        yield ranks


@pytest.fixture
def http(two: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=two.url, timeout=120) as client:
        yield client


@pytest.mark.parametrize("at_a_time", [1, 8])
def test_two_ranks_answer_as_one(http: httpx.Client, expected: list[str], at_a_time: int) -> None:
    assert len(set(expected)) == len(PROMPTS)
    assert ask_all(http, at_a_time) == expected


def test_two_ranks_stream(http: httpx.Client, expected: list[str]) -> None:
    parts = chunks(http, PROMPTS[0])
    assert len(parts) > 2
    assert "".join(parts) == expected[0]


def test_two_ranks_draw_the_same_for_the_same_seed(http: httpx.Client) -> None:
    sampling = {"top_k": 50, "top_p": 0.9, "temperature": 1.3, "repetition_penalty": 1.2}
    first, again, other = (
        ask(http, PROMPTS[0], random_seed=seed, **sampling) for seed in (42, 42, 43)
    )
    assert first == again
    assert first != other


def test_an_answer_ends_at_every_id_that_ends_it(
    smollm2_repo: Path, demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    """The library knows one of them."""
    tokenizer = load("gpt2", demo_engine[1])
    with (
        Launched(smollm2_repo, tmp_path) as one,
        httpx.Client(base_url=one.url, timeout=120) as http,
    ):
        ids = tokenizer.encode_fragment(ask(http, PROMPTS[0], end_id=-1))
        late, early = (
            max(ids, key=ids.index),
            ids[1],
        )  # the one that comes last for the first time
        text = tokenizer.decode(ids[: ids.index(early)])
        for ends in ([late, early], [early, late]):
            for values in ({"end_id": ends[0]}, {"end_id": -1}, {}):
                asked = {**values, "stop_token_ids": ends}
                assert ask(http, PROMPTS[0], **asked) == text
                assert "".join(chunks(http, PROMPTS[0], **asked)) == text


def test_a_client_that_leaves_frees_both_ranks(http: httpx.Client, expected: list[str]) -> None:
    body = {"text_input": "On", "stream": True, "parameters": {"max_tokens": 1500, "end_id": -1}}
    for _ in range(24):  # together more than the KV cache holds
        with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response:
            assert next(response.iter_raw())
    begin = time.monotonic()
    assert ask(http, PROMPTS[0]) == expected[0]
    assert time.monotonic() - begin < 20


def test_ready_is_said_once_and_every_line_has_its_rank(two: Launched) -> None:
    lines = [line for line in two.log().splitlines() if line.strip()]
    assert sum("ready after" in line for line in lines) == 1
    server_lines = [line for line in lines if "model_lifecycle.cc" in line]
    assert {line[:8] for line in server_lines} == {"[rank 0]", "[rank 1]"}


def test_rank_1_loads_the_engine_alone_and_listens_nowhere(two: Launched) -> None:
    server = two.find(1, "tritonserver")
    assert [c for c in server.net_connections("tcp") if c.status == "LISTEN"] == []
    assert two.find(1, "triton_python_backend_stub")
    stubs = [c for c in server.children() if "tensorrt_llm" in " ".join(c.cmdline())]
    assert len(stubs) == len(server.children()) == 1


@pytest.mark.parametrize(
    ("how", "number"),
    [(MPIRUN, signal.SIGTERM), (NO_MPI, signal.SIGTERM), (MPIRUN, signal.SIGINT)],
)
def test_a_signal_stops_every_rank(
    random_repo: Path, tmp_path: Path, how: tuple[str, ...], number: signal.Signals
) -> None:
    with Launched(random_repo, tmp_path, *how) as ranks:
        assert ranks.stop(number) == 0
        ranks.assert_nothing_left()
        assert "failed:" not in ranks.log()


@pytest.mark.parametrize(
    ("how", "rank", "what"),
    [
        (MPIRUN, 1, "triton_python_backend_stub"),
        (NO_MPI, 1, "triton_python_backend_stub"),
        (MPIRUN, 0, "triton_python_backend_stub"),
        (MPIRUN, 1, "bin/tritonserver"),
        (NO_MPI, 1, "trellis.ranks.run"),
        (MPIRUN, 1, "trellis.ranks.run"),
        (NO_MPI, 0, "process_main"),
        (NO_MPI, 1, "process_main"),
    ],
)
def test_a_killed_rank_stops_all_with_an_error(
    random_repo: Path, tmp_path: Path, how: tuple[str, ...], rank: int, what: str
) -> None:
    with Launched(random_repo, tmp_path, *how) as ranks:
        begin = time.monotonic()
        ranks.find(rank, what).kill()
        assert ranks.process.wait(15) == 1
        assert time.monotonic() - begin < 15
        ranks.assert_nothing_left()
        assert "a rank died" in ranks.log()
        if what != "trellis.ranks.run":  # a killed watcher says nothing; mpirun does
            # The other rank loses its peer; mpirun may end all before the killed one has spoken.
            said = re.findall(r"\[rank (\d)\] failed: ", ranks.log())
            assert said
            assert how == MPIRUN or str(rank) in said
            assert f"[rank {said[0]}]   | " in ranks.log()


def test_a_killed_launcher_takes_every_rank_with_it(random_repo: Path, tmp_path: Path) -> None:
    with Launched(random_repo, tmp_path, *MPIRUN) as ranks:
        ranks.process.kill()
        wait_for(lambda: not any(process.is_running() for process in ranks.tree), 20)


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
    assert "3 for 4 attention heads and 2 key/value heads" in done.stderr
    assert "launch with --world_size 1 or 2" in done.stderr


def test_three_ranks_answer_as_one_with_a_real_model(smollm2_repo: Path, tmp_path: Path) -> None:
    expected = of_one_rank(smollm2_repo, tmp_path / "one")
    assert "Paris" in expected[0]
    arguments = ("--world_size", "3", "--oversubscribe")
    with (
        Launched(smollm2_repo, tmp_path / "three", *arguments) as ranks,
        httpx.Client(base_url=ranks.url, timeout=300) as http,
    ):
        assert ask_all(http, 1) == expected
        assert ask_all(http, 8) == expected
        assert "".join(chunks(http, PROMPTS[0])) == expected[0]
        assert ranks.stop() == 0
        ranks.assert_nothing_left()
