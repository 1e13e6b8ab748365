# SPDX-License-Identifier: Apache-2.0
"""Engines with workers of their own: how many there are, where, and which sizes are rejected."""

import json
from pathlib import Path

import pytest

from support.cli import run
from support.fake_engines import write_checkpoint
from trellis.engine_files.engine_folder import read_engine
from trellis.engine_host.engine_settings import read_engine_settings
from trellis.engine_host.engines.topology import Topology
from trellis.pipeline.model_settings import ConfigError, ModelSettings
from trellis.ranks.options import RankOptions, RanksError
from trellis.ranks.workers import interface, own_address, read_workers, this_host, worker_command
from trellis.repository.assemble import Plan, assemble
from trellis.repository.model_config import parameters, parse_config

ELSEWHERE = "192.0.2.7"  # kept for documentation: nobody's
LWS = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "llm-0.llm"}


@pytest.fixture
def repository(tmp_path: Path, llama_folder: Path) -> Path:
    """Of a Llama with 4 heads and 2 layers, for vLLM."""
    return make(tmp_path, llama_folder)


def make(folder: Path, tokenizer: Path, engine_type: str = "vllm", **settings: str) -> Path:
    checkpoint = folder / "llama"
    if not checkpoint.exists():
        write_checkpoint(checkpoint)
    target = folder / "repo"
    plan = Plan(read_engine(checkpoint, engine_type), "llama", tokenizer, settings=settings)
    assemble(plan, target)
    return target


def test_a_world_size_is_tensor_parallel_unless_something_else_is_said() -> None:
    assert Topology(4).sizes(None, None) == (4, 1)
    assert Topology(4).sizes(None, 2) == (2, 2)
    assert Topology(4).sizes(2, 2) == (2, 2)
    assert Topology().sizes(2, 3) == (2, 3)
    assert Topology().sizes(None, None) == (1, 1)
    with pytest.raises(ValueError, match=r"--world_size 4: .* 2 x .* 1 takes 2; .* --world_size 2"):
        Topology(4).sizes(2, None)
    with pytest.raises(ValueError, match="--world_size 3"):
        Topology(3).sizes(None, 2)


def test_what_the_launcher_says_arrives_at_the_engine(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = read_workers(repository, RankOptions(4), {})
    assert workers is not None
    for name, value in workers.environment().items():
        monkeypatch.setenv(name, value)
    assert Topology.read() == workers.topology
    settings = ModelSettings("tensorrt_llm", workers.folder, dict(workers.parameters), {}, 8)
    assert read_engine_settings(settings).tensor_parallel_size == 4
    broken = {**workers.parameters, "tensor_parallel_size": "3"}
    with pytest.raises(ConfigError, match="--world_size 4"):
        read_engine_settings(ModelSettings("tensorrt_llm", workers.folder, broken, {}, 8))


def test_tp_and_pp_of_make_repo_are_parameters_of_the_model(
    tmp_path: Path, llama_folder: Path
) -> None:
    write_checkpoint(tmp_path / "llama")
    options = ("--backend", "vllm", "--tokenizer", "llama", "--tokenizer_dir", str(llama_folder))
    arguments = ("--engine", str(tmp_path / "llama"), "--model_repo", str(tmp_path / "repo"))
    done = run("assemble", *arguments, *options, "--tp", "2", "--pp", "2")
    assert done.status == 0, done.output
    text = (tmp_path / "repo" / "tensorrt_llm" / "config.pbtxt").read_text()
    named = parameters(parse_config(text))
    assert (named["tensor_parallel_size"], named["pipeline_parallel_size"]) == ("2", "2")
    workers = read_workers(tmp_path / "repo", RankOptions(4), {})
    assert workers is not None
    with pytest.raises(RanksError, match=r"launch with --world_size 4"):
        read_workers(tmp_path / "repo", RankOptions(2), {})


def test_an_engine_that_make_repo_cannot_split_takes_no_sizes(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    arguments = ("--engine", str(demo_engine[0]), "--model_repo", str(tmp_path / "repo"))
    options = ("--tokenizer", "gpt2", "--tokenizer_dir", str(demo_engine[1]))
    done = run("assemble", *arguments, *options, "--tp", "2")
    assert done.status == 1
    assert "TP=2 PP=:" in done.output
    assert "engine openvino, which `make repo` cannot split" in done.output


@pytest.mark.parametrize(
    ("world_size", "settings", "message"),
    [
        (3, {}, r"--world_size 3: TP=3 PP=1: num_attention_heads 4 .* TP may be 1, 2 or 4"),
        (3, {"tensor_parallel_size": "1", "pipeline_parallel_size": "3"}, "PP may be 1 to 2"),
    ],
)
def test_sizes_that_do_not_fit_are_rejected_with_those_that_do(
    tmp_path: Path, llama_folder: Path, world_size: int, settings: dict[str, str], message: str
) -> None:
    repository = make(tmp_path, llama_folder, **settings)
    with pytest.raises(RanksError, match=message):
        read_workers(repository, RankOptions(world_size), {})


def test_other_engines_have_no_workers_of_their_own(demo_repo: Path, tmp_path: Path) -> None:
    assert read_workers(demo_repo, RankOptions(2), {}) is None
    assert read_workers(tmp_path, RankOptions(2), {}) is None


def test_each_host_s_launcher_finds_its_place(repository: Path) -> None:
    second = read_workers(repository, RankOptions(4), {**LWS, "MASTER_PORT": "1234"})
    assert second is not None
    assert second.topology == Topology(4, 2, 1, "llm-0.llm", 1234)
    assert second.follows
    named = RankOptions(4, nodes=f"{ELSEWHERE}:2,127.0.0.1:2")
    listed = read_workers(repository, named, {})
    assert listed is not None
    assert listed.topology == Topology(4, 2, 1, ELSEWHERE)
    with pytest.raises(RanksError, match=r"none of 192\.0\.2\.7 is this host; run the launcher on"):
        this_host(RankOptions(2, nodes=ELSEWHERE), {})
    with pytest.raises(RanksError, match="--world_size 3: LeaderWorkerSet has 2 hosts"):
        this_host(RankOptions(3), LWS)


def test_a_follower_runs_the_repository_s_own_code(repository: Path) -> None:
    workers = read_workers(repository, RankOptions(4), LWS)
    assert workers is not None
    *_, folder, about = worker_command(workers, "python3")
    assert folder == str(repository.resolve() / "tensorrt_llm" / "1")
    assert (Path(folder) / "trellis" / "engine_host" / "engines" / "worker_main.py").is_file()
    assert json.loads(about)["parameters"]["engine_type"] == "vllm"


def test_the_network_that_leads_to_the_first_host_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("no.such.host.invalid") == ""
    assert interface("127.0.0.1") == ""  # loopback leads nowhere
    monkeypatch.setattr(
        "psutil.net_if_addrs", lambda: {"eth7": [type("Address", (), {"address": "10.0.0.5"})]}
    )
    assert interface("10.0.0.5") == "eth7"
