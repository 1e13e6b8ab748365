"""Which models `make repo` made of a repository, as their manifests say it."""

import json
import os
import time
from pathlib import Path

import pytest

from support.fake_engines import write_engine
from trellis.contract.model_names import check_name, served_as, step_of
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.repository.manifest import (
    MANIFEST,
    MadeModel,
    made_models,
    manifest_name,
    wired_as_made,
    write_manifest,
)

LATER = 1_700_000_000


def note(repository: Path, name: str, *adapters: str) -> None:
    """A model of which only the manifest and the ensemble's folder are there."""
    (repository / name).mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(f'name: "{name}"')
    write_manifest(repository, {}, {name: {"steps": [name]}}, name, adapters)


def test_an_assembled_model_is_listed_with_the_time_of_its_making(
    tmp_path: Path, llama_folder: Path
) -> None:
    begin = int(time.time())
    engine = read_engine(write_engine(tmp_path / "llama-out", "0.9.0"))
    assemble(Plan(engine, "llama", llama_folder), tmp_path / "repo")
    (model,) = made_models(tmp_path / "repo")
    assert model.name == "ensemble"
    assert begin <= model.made_at <= time.time()
    assert model.lora_adapters == ()


def test_each_model_has_its_own_adapters(tmp_path: Path) -> None:
    note(tmp_path, "qwen", "polite", "terse")
    note(tmp_path, "ensemble")
    note(tmp_path, "alpha-2")
    models = made_models(tmp_path)
    assert [model.name for model in models] == ["ensemble", "alpha-2", "qwen"]
    assert [model.lora_adapters for model in models] == [(), (), ("polite", "terse")]


def test_a_manifest_of_an_older_release_was_made_when_it_was_written(tmp_path: Path) -> None:
    note(tmp_path, "ensemble")
    (tmp_path / MANIFEST).write_text(json.dumps({"ensemble/config.pbtxt": "digest"}))
    os.utime(tmp_path / MANIFEST, (LATER, LATER))
    assert made_models(tmp_path) == [MadeModel("ensemble", LATER)]


@pytest.mark.parametrize("text", ["", "[]", '{"made_at": {"a": 1}}', '{"lora_adapters": 1}'])
def test_a_manifest_that_cannot_be_read_lists_nothing(tmp_path: Path, text: str) -> None:
    note(tmp_path, "ensemble")
    note(tmp_path, "qwen")
    (tmp_path / MANIFEST).write_text(text)
    assert [model.name for model in made_models(tmp_path)] == ["qwen"]


def test_a_model_whose_folder_is_gone_is_not_listed(tmp_path: Path) -> None:
    note(tmp_path, "qwen")
    (tmp_path / "qwen" / "config.pbtxt").unlink()
    assert made_models(tmp_path) == []
    assert made_models(tmp_path / "nowhere") == []


def test_a_wiring_is_looked_for_in_every_manifest(tmp_path: Path) -> None:
    note(tmp_path, "ensemble")
    note(tmp_path, "qwen")
    assert not wired_as_made(tmp_path, {"name": "qwen"})  # known, and another
    (tmp_path / MANIFEST).write_text("no JSON")
    config = {"name": "qwen", "max_batch_size": 1}
    wirings = {"qwen": {"max_batch_size": 1, "input": [], "output": [], "steps": []}}
    write_manifest(tmp_path, {}, wirings, "qwen")
    assert wired_as_made(tmp_path, config)
    assert not wired_as_made(tmp_path, {**config, "name": "other"})


@pytest.mark.parametrize("name", ["qwen", "qwen2_5-7b", "0", "a" * 40])
def test_names_of_models(name: str) -> None:
    check_name(name)
    assert step_of(served_as("tensorrt_llm", name)) == "tensorrt_llm"
    assert manifest_name(name) == f".trellis.{name}.json"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "use a-z"),
        ("Qwen", "use a-z"),
        ("qwen.2", "use a-z"),
        ("../up", "use a-z"),
        ("_a", "use a-z"),
        ("qwén", "use a-z"),
        ("a\n", "use a-z"),
        ("a" * 41, "use a-z"),
        ("stats", "/v2/models/stats"),
        ("tensorrt_llm", "called tensorrt_llm"),
        ("qwen_preprocessing", "called preprocessing"),
        ("tensorrt_llm_bls", "called tensorrt_llm_bls"),
        ("qwen_ids", "called ids"),
    ],
)
def test_what_is_no_name_says_why(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_name(name)
