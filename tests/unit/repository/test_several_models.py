"""Several models in one repository: each is made, made again and replaced without the others."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from support.cli import run
from support.fake_engines import write_checkpoint, write_engine
from trellis.engine_files.engine_folder import read_engine
from trellis.pipeline.hooks import FILE
from trellis.repository.assemble import AssemblyError, Plan, assemble
from trellis.repository.folder_swap import OWN, recover
from trellis.repository.manifest import foreign_code, made_models, read_manifest
from trellis.repository.model_config import parameters, parse_config

QWEN = ("qwen", "qwen_ids", "qwen_postprocessing", "qwen_preprocessing", "qwen_tensorrt_llm")
GONE = 2**22 + 1  # no process has this number


@pytest.fixture
def plan(tmp_path: Path, llama_folder: Path) -> Plan:
    """Of a C++ engine."""
    return Plan(read_engine(write_engine(tmp_path / "llama-out", "1.x")), "llama", llama_folder)


@pytest.fixture
def named(tmp_path: Path, llama_folder: Path) -> Plan:
    """Of a checkpoint, with a name."""
    engine = read_engine(write_checkpoint(tmp_path / "qwen-out"), "vllm")
    return Plan(engine, "llama", llama_folder, name="qwen")


@pytest.fixture
def repo(tmp_path: Path, plan: Plan, named: Plan) -> Path:
    """With both."""
    assemble(plan, tmp_path / "repo")
    assemble(named, tmp_path / "repo")
    return tmp_path / "repo"


def contents(repo: Path, prefix: str = "") -> dict[str, tuple[int, bytes]]:
    """Files whose model's name begins so: inode and content."""
    return {
        str(file.relative_to(repo)): (file.stat().st_ino, file.read_bytes())
        for file in sorted(repo.rglob("*"))
        if file.is_file() and str(file.relative_to(repo)).lstrip(".").startswith(prefix)
    }


def test_a_named_model_lies_beside_the_one_without_a_name(
    plan: Plan, named: Plan, tmp_path: Path
) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    assemble(plan, alone)
    assert assemble(plan, both).changed
    assert assemble(named, both).changed
    assert {folder.name for folder in both.iterdir()} > {*QWEN, "ensemble", "tensorrt_llm"}
    theirs = {f"{name}/config.pbtxt" for name in QWEN} | {".trellis.qwen.json"}
    assert theirs <= contents(both).keys()
    same = {name: text for name, (_, text) in contents(alone).items() if "json" not in name}
    paths = {"tensorrt_llm/config.pbtxt"}  # the C++ engine's is absolute
    kept = {name: contents(both)[name][1] for name in same}
    assert {name for name in same if same[name] != kept[name]} == paths
    assert [model.name for model in made_models(both)] == ["ensemble", "qwen"]
    assert all(name.startswith(("qwen", ".trellis_engine")) for name in read_manifest(both, "qwen"))


def test_the_steps_of_a_named_ensemble_are_its_own(repo: Path) -> None:
    for name in ("qwen", "qwen_ids"):
        config = parse_config((repo / name / "config.pbtxt").read_text())
        assert config.name == name
        steps = [step.model_name for step in config.ensemble_scheduling.step]
        assert (
            steps
            == ["qwen_preprocessing", "qwen_tensorrt_llm", "qwen_postprocessing"][: len(steps)]
        )
    for step in QWEN[2:]:
        assert foreign_code(repo / step / "1") == [] or step == "qwen_tensorrt_llm"
        assert f"triton_models.{step[5:]} import" in (repo / step / "1" / "model.py").read_text()
    assert (repo / "qwen_tensorrt_llm" / "1" / "model.safetensors").is_file()


def test_a_named_cpp_engine_is_told_where_it_lies(plan: Plan, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assemble(replace(plan, name="qwen", mount=Path("/models")), repo)
    config = parse_config((repo / "qwen_tensorrt_llm" / "config.pbtxt").read_text())
    assert parameters(config)["gpt_model_path"] == "/models/qwen_tensorrt_llm/1"
    assert (repo / "qwen_tensorrt_llm" / "1" / "rank0.engine").is_file()
    assert not (repo / "qwen_tensorrt_llm" / "1" / "model.py").exists()
    assert assemble(plan, repo).changed  # the one without a name, after it
    assert not assemble(replace(plan, name="qwen", mount=Path("/models")), repo).changed


def test_making_one_again_leaves_the_other_as_it_is(
    plan: Plan, named: Plan, repo: Path, tmp_path: Path
) -> None:
    before = contents(repo)
    assert not assemble(plan, repo).changed
    assert not assemble(named, repo).changed
    assert contents(repo) == before
    assert assemble(replace(named, settings={"max_queue_size": "3"}), repo).changed
    changed = {name for name, found in contents(repo).items() if found[1] != before[name][1]}
    assert changed == {".trellis.qwen.json", "qwen_tensorrt_llm/config.pbtxt"}
    others = {name: found for name, found in before.items() if "qwen" not in name}
    assert others == {name: contents(repo)[name] for name in others}  # not even another inode
    assert sorted(path.name for path in tmp_path.glob(".repo.*")) == []


def test_another_engine_replaces_its_own_model_alone(
    plan: Plan, named: Plan, repo: Path, tmp_path: Path
) -> None:
    other = read_engine(write_engine(tmp_path / "other-out", "0.9.0"))
    with pytest.raises(AssemblyError, match=r"qwen was made for another engine.*another NAME="):
        assemble(replace(named, engine=other), repo)
    assemble(replace(named, engine=other, replace=True), repo)
    assert (repo / "qwen_tensorrt_llm" / "1" / "rank0.engine").is_file()
    assert not (repo / "qwen_tensorrt_llm" / "1" / "model.py").exists()
    assert not assemble(plan, repo).changed


def test_hooks_are_those_of_one_model(named: Plan, repo: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "mine.py"
    hooks.write_text("def prompt(text):\n    return text\n")
    assemble(replace(named, hooks=hooks), repo)
    assert {file.relative_to(repo).parts[0] for file in repo.rglob(str(FILE))} == set(QWEN[2:])


@pytest.mark.parametrize("name", ["Qwen", "stats", "my_tensorrt_llm", "a/b"])
def test_a_name_that_cannot_be_is_refused(plan: Plan, tmp_path: Path, name: str) -> None:
    with pytest.raises(AssemblyError, match=f"NAME={name}: "):
        assemble(replace(plan, name=name), tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_a_folder_of_somebody_elses_is_not_made_a_model(named: Plan, repo: Path) -> None:
    (repo / "mine_preprocessing" / "1").mkdir(parents=True)
    (repo / "mine_preprocessing" / "config.pbtxt").write_text('name: "mine_preprocessing"')
    with pytest.raises(AssemblyError, match=r"NAME=mine: .*folder mine_preprocessing.*move"):
        assemble(replace(named, name="mine"), repo)
    assert not (repo / "mine").exists()


def test_a_folder_that_trellis_did_not_make_takes_no_named_model(
    named: Plan, tmp_path: Path
) -> None:
    (tmp_path / "repo" / "my_model").mkdir(parents=True)
    with pytest.raises(AssemblyError, match="was not made by `make repo`"):
        assemble(named, tmp_path / "repo")


def test_what_a_killed_run_had_not_carried_over_is_not_lost(repo: Path) -> None:
    before = contents(repo)
    old = repo.with_name(f".repo.old.{GONE}")  # as it is between the two moves
    os.rename(repo, old)
    own = [name for name in before if "qwen" in name]
    (old / OWN).write_text(json.dumps(own))
    repo.mkdir()
    for name in own:
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_bytes(before[name][1])
    (repo / "ensemble").mkdir()  # one that it had begun to carry
    recover(repo)
    assert {name: text for name, (_, text) in contents(repo).items()} == {
        name: text for name, (_, text) in before.items()
    }
    assert not old.exists()


def test_the_command_takes_a_name(named: Plan, tmp_path: Path) -> None:
    repo, engine = tmp_path / "repo", str(named.engine.path)
    asked = ["--engine", engine, "--backend", "vllm", "--tokenizer", "llama"]
    asked += ["--tokenizer_dir", str(named.tokenizer_dir), "--model_repo", str(repo)]
    done = run("assemble", *asked, "--name", "qwen")
    assert "repo: qwen ready" in done.output
    assert (repo / "qwen" / "config.pbtxt").is_file()
    refused = run("assemble", *asked, "--name", "Qwen")
    assert refused.status == 1
    assert "NAME=Qwen: use a-z" in refused.output
