# SPDX-License-Identifier: Apache-2.0
"""Ranks of the C++ backend under a real mpirun: they serve as one, stop as one, and die as one.

The backend is the stand-in, whose ranks do not talk to each other: what is shown is what Trellis
does around them.
"""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from ranks.asked import ask, chunks
from ranks.conftest import ANSWER, PROMPT
from support.launched import Launched
from support.serving import serve
from support.waiting import wait_for, wait_within

# No check: nothing of NVIDIA's is on this machine.
MPIRUN = ("--world_size", "2", "--oversubscribe", "--no-check")


def launch(repo: Path, folder: Path) -> AbstractContextManager[Launched]:
    return serve(repo, folder, *MPIRUN, launcher=True)


@pytest.fixture(scope="module")
def two(standin_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launch(standin_repo, tmp_path_factory.mktemp("two")) as ranks:
        yield ranks


@pytest.fixture
def http(two: Launched) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=two.url, timeout=60) as client:
        yield client


def test_rank_0_answers(http: httpx.Client) -> None:
    assert ask(http, PROMPT, max_tokens=50) == ANSWER
    parts = chunks(http, PROMPT, max_tokens=50)
    assert len(parts) > 2
    assert "".join(parts) == ANSWER


def test_ready_is_said_once_and_every_line_has_its_rank(two: Launched) -> None:
    lines = [line for line in two.log().splitlines() if line.strip()]
    assert sum("ready after" in line for line in lines) == 1
    server_lines = [line for line in lines if "model_lifecycle.cc" in line]
    assert {line[:8] for line in server_lines} == {"[rank 0]", "[rank 1]"}


def test_rank_1_loads_the_engine_alone_and_listens_nowhere(two: Launched) -> None:
    server = two.find("bin/tritonserver", 1)
    assert [c for c in server.net_connections("tcp") if c.status == "LISTEN"] == []
    loaded = [line for line in two.log().splitlines() if "successfully loaded" in line]
    names = {line.partition("successfully loaded '")[2].partition("'")[0] for line in loaded}
    rank_1 = {name for name in names for line in loaded if f"'{name}'" in line and "rank 1" in line}
    assert rank_1 == {"tensorrt_llm"}
    assert {"ensemble", "preprocessing", "postprocessing"} <= names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_rank(
    standin_repo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with launch(standin_repo, tmp_path) as ranks:
        assert ranks.stop(number) == 0
        ranks.assert_nothing_left("trellis-*")
        assert "failed:" not in ranks.log()


@pytest.mark.parametrize(
    ("rank", "what"),
    [
        (0, "triton_python_backend_stub"),
        (0, "bin/tritonserver"),
        (1, "bin/tritonserver"),
        (1, "trellis.ranks.run"),
    ],
)
def test_a_killed_rank_stops_all_with_an_error(
    standin_repo: Path, tmp_path: Path, rank: int, what: str
) -> None:
    with launch(standin_repo, tmp_path) as ranks:
        ranks.find(what, rank).kill()
        wait_within(15, lambda: ranks.process.poll() is not None)
        assert ranks.process.returncode == 1
        ranks.assert_nothing_left("trellis-*")
        assert "a rank died" in ranks.log()
        if what != "trellis.ranks.run":  # a killed watcher says nothing; mpirun does
            assert f"[rank {rank}] failed: " in ranks.log()
            assert f"[rank {rank}]   | " in ranks.log()


def test_a_killed_launcher_takes_every_rank_with_it(standin_repo: Path, tmp_path: Path) -> None:
    with launch(standin_repo, tmp_path) as ranks:
        ranks.process.kill()
        wait_for(lambda: not any(process.is_running() for process in ranks.tree), 20)
