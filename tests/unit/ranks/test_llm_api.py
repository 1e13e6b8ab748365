# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's LLM API on several hosts: who starts what, and what is rejected."""

from pathlib import Path

import pytest

from support.fake_engines import write_checkpoint
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_host.engines.topology import Topology
from trellis.ranks.llm_api import INSIDE, SIZE, check_hosts, mpi_command, needs_mpi
from trellis.ranks.options import Host, RankOptions, RanksError
from trellis.ranks.workers import read_workers
from trellis.repository.assemble import Plan, assemble

SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}
HOSTS = RankOptions(4, nodes="a:2,b:2")


@pytest.fixture(autouse=True)
def mpirun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mpirun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_named_hosts_get_a_task_a_gpu_by_the_library_s_command() -> None:
    launcher = ["/usr/bin/python3", "tools/launch_triton_server.py", "--world_size", "4"]
    command = mpi_command(HOSTS, launcher, {"LD_LIBRARY_PATH": "/lib", "HOME": "/root"})
    assert command[command.index("--host") + 1] == "a:2,b:2"
    assert command[command.index("-n") + 1] == "4"
    assert command[command.index("-x") + 1] == "LD_LIBRARY_PATH"
    assert command[-5:] == ["trtllm-llmapi-launch", *launcher]
    assert needs_mpi(HOSTS, {})
    assert not needs_mpi(HOSTS, {INSIDE: "1"})  # it is that launcher
    assert not needs_mpi(RankOptions(4), {})


@pytest.mark.parametrize("word", ["two words", ""])
def test_what_the_library_s_command_would_take_apart_is_rejected(word: str) -> None:
    with pytest.raises(RanksError, match="takes no argument with a space"):
        mpi_command(HOSTS, ["python3", "launch.py", word], {})


def test_a_launcher_a_host_cannot_start_what_meets_over_mpi() -> None:
    with pytest.raises(RanksError, match=r"Slurm runs 2 .* srun --mpi=pmix --ntasks=4 trtllm-"):
        check_hosts(RankOptions(4), SLURM)


def test_inside_of_the_library_s_command_there_is_one_launcher(
    tmp_path: Path, llama_folder: Path
) -> None:
    inside = {**SLURM, INSIDE: "1", SIZE: "4"}
    assert check_hosts(HOSTS, inside) == Host()
    with pytest.raises(RanksError, match="--world_size 4: trtllm-llmapi-launch runs 2 tasks"):
        check_hosts(HOSTS, {**inside, SIZE: "2"})
    engine = read_engine(write_checkpoint(tmp_path / "llama"), "llmapi")
    assemble(Plan(engine, "llama", llama_folder), tmp_path / "repo")
    workers = read_workers(tmp_path / "repo", HOSTS, inside)
    assert workers is not None
    assert workers.topology == Topology(4)
