# SPDX-License-Identifier: Apache-2.0
"""An embedding engine becomes one Triton model, and `make check` knows it."""

import shutil
import sys
from pathlib import Path

import pytest

from support.embedding_ir import write_embedding_engine
from trellis.cli.serve_docker import _of_all
from trellis.docker.commands import DockerError
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.embedding import check_embedding
from trellis.repository.assemble import AssemblyError, Plan, assemble
from trellis.repository.manifest import embedding_names, made_models, model_names
from trellis.repository.template import TemplateError


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_engine(tmp_path_factory.mktemp("embedding") / "engine", "cls")


def plan(engine: Path, **settings: str) -> Plan:
    return Plan(read_engine(engine), "auto", engine, settings=settings, name="embed")


def test_one_model_holds_engine_tokenizer_and_code(engine: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assert assemble(plan(engine), repo)
    assert [path.name for path in repo.iterdir() if path.is_dir()] == ["embed"]
    version = repo / "embed" / "1"
    for name in ("openvino_model.xml", "model.py", "trellis", "tokenizer/tokenizer.json"):
        assert (version / name).exists(), name
    config = (repo / "embed" / "config.pbtxt").read_text()
    assert 'name: "embed"' in config
    assert 'key: "pooling" value: { string_value: "cls" }' in config
    assert 'key: "max_seq_len" value: { string_value: "24" }' in config
    assert not assemble(plan(engine), repo)
    assert assemble(plan(engine, pooling="mean"), repo)
    assert (embedding_names(repo), model_names(repo)) == (["embed"], [])
    assert made_models(repo)[0].embeds


def test_the_pooling_has_to_be_known(engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(engine, folder, ignore=shutil.ignore_patterns("1_Pooling"))
    with pytest.raises(TemplateError, match=r"^SET: pooling: .*SET=pooling:mean, cls or last"):
        assemble(plan(folder), tmp_path / "repo")
    with pytest.raises(TemplateError, match=r"pooling: 'max' .* mean, cls, last"):
        assemble(plan(folder, pooling="max"), tmp_path / "repo")
    assert assemble(plan(folder, pooling="last"), tmp_path / "repo")


def test_settings_of_engines_that_make_text_are_rejected(engine: Path, tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="max_beam_width means nothing to this engine"):
        assemble(plan(engine, max_beam_width="2"), tmp_path / "repo")


def test_hooks_are_rejected(engine: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def prompt(text):\n    return text\n")
    made = Plan(read_engine(engine), "auto", engine, hooks=hooks, name="embed")
    with pytest.raises(AssemblyError, match="an embedding model has none"):
        assemble(made, tmp_path / "repo")


def test_the_check_names_what_is_left_to_fill(engine: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assemble(plan(engine), repo)
    assert check_embedding(repo, "embed", sys.executable).ok
    assert not check_embedding(repo, "embed", "/no/such/python").ok
    file = repo / "embed" / "config.pbtxt"
    file.write_text(file.read_text().replace('"cls"', '"${pooling}"'))
    check = check_embedding(repo, "embed", sys.executable)
    assert not check.ok
    assert "${pooling}" in check.found


def test_it_needs_no_container(engine: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    assemble(plan(engine), repo)
    with pytest.raises(DockerError, match="embed makes embeddings, which needs no container"):
        _of_all(repo, 1, "")
