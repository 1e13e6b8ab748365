# SPDX-License-Identifier: Apache-2.0
"""What each rank is started with, and which host this is among several."""

import json
from pathlib import Path

import pytest

from trellis.ranks.launch import run_ranks
from trellis.ranks.options import (
    Host,
    RankOptions,
    RanksError,
    check_options,
    find_host,
    first_node,
    mpirun_command,
    rank_settings,
    share,
)
from trellis.server.settings import ServerSettings

SETTINGS = ServerSettings(Path("/repo"), http_port=9000, log_file=Path("/logs/triton.txt"))


@pytest.fixture(autouse=True)
def mpirun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    binary = tmp_path / "mpirun"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return str(binary)


def contexts(command: list[str]) -> list[list[str]]:
    """An mpirun command cut at its colons."""
    parts: list[list[str]] = [[]]
    for word in command:
        if word == ":":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def test_mpirun_has_one_context_a_rank_and_rank_0_alone_serves(mpirun: str) -> None:
    command = mpirun_command(SETTINGS, RankOptions(3, oversubscribe=True), {"LD_LIBRARY_PATH": "a"})
    assert command[0] == mpirun
    parts = contexts(command)
    assert len(parts) == 3
    assert "--oversubscribe" in parts[0]
    settings = [json.loads(part[-1]) for part in parts]
    assert [values["serves"] for values in settings] == [True, False, False]
    assert [values["models"] for values in settings] == [[], ["tensorrt_llm"], ["tensorrt_llm"]]
    assert all(part[part.index("-x") + 1] == "LD_LIBRARY_PATH" for part in parts)
    assert all(part[part.index("-n") + 1] == "1" for part in parts)


def test_a_follower_loads_what_it_is_told_and_opens_no_port() -> None:
    options = RankOptions(2, models=("tensorrt_llm", "tensorrt_llm_draft"))
    follower = rank_settings(SETTINGS, 1, options)
    arguments = follower.arguments("p_")
    assert "--model-control-mode=explicit" in arguments
    assert "--load-model=tensorrt_llm_draft" in arguments
    for name in ("http", "grpc", "metrics"):
        assert f"--allow-{name}=false" in arguments
        assert not [word for word in arguments if word.startswith(f"--{name}-")]
    assert "--log-file=/logs/triton_rank1.txt" in arguments
    assert "--http-port=9000" in rank_settings(SETTINGS, 0, options).arguments("p_")


def test_hosts_go_to_mpirun_and_the_first_is_rank_0_s(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# comment\n\nalpha slots=1\nbeta slots=1\n")
    listed = RankOptions(2, hostfile=hosts)
    assert listed.first_host == "alpha"
    command = mpirun_command(SETTINGS, listed, {})
    assert command[command.index("--hostfile") + 1] == str(hosts)
    named = RankOptions(2, nodes="gamma:1,delta:1")
    assert named.first_host == "gamma"
    assert "gamma:1,delta:1" in mpirun_command(SETTINGS, named, {})


def test_several_models_without_spawning_put_workers_on_the_other_ranks() -> None:
    options = RankOptions(3, multi_model=True, spawn_processes=False)
    assert options.environment()["TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES"] == "0"
    parts = contexts(mpirun_command(SETTINGS, options, options.environment()))
    assert parts[0][-3:-1] == ["-m", "trellis.ranks.run"]
    assert [Path(part[-1]).name for part in parts[1:]] == ["trtllmExecutorWorker"] * 2
    assert "TRTLLM_ORCHESTRATOR" in parts[2]


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({}, Host()),
        (
            {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "llm-0.llm"},
            Host(1, 2, "llm-0.llm", "LeaderWorkerSet"),
        ),
        (
            {
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "2",
                "SLURM_STEP_NODELIST": "gpu[07-08]",
            },
            Host(1, 2, "gpu07", "Slurm"),
        ),
        # Inside an allocation, but not started by srun: an ordinary launcher.
        ({"SLURM_JOB_ID": "4", "SLURM_NTASKS": "2"}, Host()),
    ],
)
def test_the_environment_says_which_host_this_is(environ: dict[str, str], host: Host) -> None:
    assert find_host(environ) == host


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("gpu[03-05,9],x", "gpu03"), ("n-1-[2,4]", "n-1-2")],
)
def test_the_first_of_slurm_s_nodes(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_hosts_share_the_ranks_in_order() -> None:
    assert share(Host(1, 2, "a", "Slurm"), 8) == range(4, 8)
    with pytest.raises(RanksError, match="--world_size 3: Slurm has 2 hosts"):
        share(Host(0, 2, "a", "Slurm"), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RankOptions(2, nodes="a", hostfile=Path("/h")), "give one"),
        (RankOptions(2, hostfile=Path("/no/such")), "no such file"),
        (RankOptions(1, nodes="a,b"), "need --world_size above 1"),
        (RankOptions(2, spawn_processes=False), "--multi-model"),
        (RankOptions(1, multi_model=True, spawn_processes=False), "above 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: RankOptions, message: str) -> None:
    with pytest.raises(RanksError, match=message):
        check_options(options)


@pytest.mark.parametrize(
    ("no_mpi", "environ", "message"),
    [
        (True, {}, "--no-mpi: the 2 ranks of this engine meet over MPI"),
        (
            False,
            {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0", "LWS_LEADER_ADDRESS": "a"},
            "LeaderWorkerSet runs 2 launchers, but the ranks of this engine meet over MPI",
        ),
    ],
)
def test_ranks_are_not_started_where_they_would_not_meet(
    monkeypatch: pytest.MonkeyPatch, no_mpi: bool, environ: dict[str, str], message: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RanksError, match=message):
        run_ranks(SETTINGS, RankOptions(2), no_mpi, lambda: True)


def test_without_any_mpirun_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.prefix", "/nowhere")
    with pytest.raises(RanksError, match="no mpirun: install Open MPI"):
        mpirun_command(SETTINGS, RankOptions(2), {})
