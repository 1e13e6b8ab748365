"""A repository of several models: each is checked, and what cannot be served together is named."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.cli import failing, run
from support.embedding_ir import write_embedding_engine
from support.fake_engines import write_checkpoint, write_engine
from trellis.cli.demo import questions
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.repository import QUESTION
from trellis.ranks.options import RankOptions, RanksError
from trellis.ranks.workers import cpp_engines, read_workers
from trellis.repository.assemble import Plan, assemble
from trellis.repository.manifest import model_names


@pytest.fixture
def cpp(tmp_path: Path, llama_folder: Path) -> Plan:
    engine = write_engine(tmp_path / "llama-out", "1.x")
    return Plan(read_engine(engine), "llama", llama_folder)


@pytest.fixture
def checkpoint(tmp_path: Path, llama_folder: Path) -> Plan:
    engine = read_engine(write_checkpoint(tmp_path / "qwen-out"), "vllm")
    return Plan(engine, "llama", llama_folder, name="qwen")


def made(folder: Path, *plans: Plan) -> Path:
    for plan in plans:
        assemble(plan, folder / "repo")
    return folder / "repo"


def test_a_check_says_which_model_it_is_about(tmp_path: Path, cpp: Plan) -> None:
    repo = made(tmp_path, cpp, replace(cpp, name="qwen"))
    (repo / "qwen_tensorrt_llm" / "1" / "rank0.engine").unlink()
    wrong = {check["what"] for check in failing(repo, env={})}
    assert "qwen: engine files" in wrong
    assert "ensemble: engine files" not in wrong
    assert "ports" not in wrong
    (repo / "qwen_postprocessing" / "config.pbtxt").unlink()
    found = {check["what"]: check["found"] for check in failing(repo, env={})}
    assert "qwen_postprocessing/config.pbtxt is missing" in found["qwen: repository"]


def test_a_repository_of_named_models_alone_is_whole(tmp_path: Path, cpp: Plan) -> None:
    repo = made(tmp_path, replace(cpp, name="qwen"))
    assert model_names(repo) == ["qwen"]
    wrong = {check["what"] for check in failing(repo, env={})}
    assert "repository" not in wrong  # and no word of which: there is one


def test_make_serve_shows_how_to_ask_each_model_of_a_repository(tmp_path: Path, cpp: Plan) -> None:
    repo = made(tmp_path, replace(cpp, name="qwen"))
    engine = write_embedding_engine(tmp_path / "vectors")
    assemble(Plan(read_engine(engine), "auto", engine, name="embed"), repo)
    ask, embed = questions(repo, sys.executable)
    chat = f"<s> [INST] {QUESTION} [/INST]"  # by the vocabulary's own template
    assert ask == (
        "/v2/models/qwen/generate",
        {"text_input": chat, "parameters": {"max_tokens": 64}},
    )
    assert embed == ("/v1/embeddings", {"model": "embed", "input": QUESTION})


def test_ranks_load_every_cpp_engine(tmp_path: Path, cpp: Plan, checkpoint: Plan) -> None:
    repo = made(tmp_path, cpp, replace(cpp, name="beta"), checkpoint)
    assert cpp_engines(repo) == ("tensorrt_llm", "beta_tensorrt_llm")


def test_workers_and_ranks_are_not_served_together(
    tmp_path: Path, cpp: Plan, checkpoint: Plan
) -> None:
    repo = made(tmp_path, cpp, checkpoint)
    assert read_workers(repo, RankOptions(1), {}) is not None
    with pytest.raises(RanksError, match=r"--world_size 2: tensorrt_llm .* mpirun, qwen workers"):
        read_workers(repo, RankOptions(2), {})


def test_several_models_with_workers_have_one_host(tmp_path: Path, checkpoint: Plan) -> None:
    repo = made(tmp_path, checkpoint, replace(checkpoint, name="beta"))
    workers = read_workers(repo, RankOptions(2), {})
    assert workers is not None
    assert workers.folder.parent.name == "beta_tensorrt_llm"
    hosts = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0", "LWS_LEADER_ADDRESS": "a"}
    with pytest.raises(RanksError, match="beta, qwen: on several hosts"):
        read_workers(repo, RankOptions(2), hosts)


def test_a_container_serves_models_that_it_fits(
    tmp_path: Path, cpp: Plan, checkpoint: Plan
) -> None:
    repo = made(tmp_path, cpp, replace(cpp, name="beta"))
    done = run("serve_docker", "--model_repo", repo, "--run=0")
    assert done.status == 0
    assert f"{repo}:{repo}:ro" in done.output
    assemble(checkpoint, repo)
    refused = run("serve_docker", "--model_repo", repo, "--run=0")
    assert refused.status == 1
    assert "do not fit into one container" in refused.output
    assert "qwen: " in refused.output
