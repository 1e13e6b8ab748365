# SPDX-License-Identifier: Apache-2.0
"""Links in a tokenizer's folder: what leaves the model's folder does not come into a repository."""

import os
import shutil
from pathlib import Path

import pytest

from support.fake_engines import write_engine
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import AssemblyError, Plan, assemble


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("{}")
    return path


def plan(tmp_path: Path, tokenizer: Path) -> Plan:
    return Plan(read_engine(write_engine(tmp_path / "llama-out", "0.9.0")), "llama", tokenizer)


def copied(folder: Path, tmp_path: Path, name: str = "tokenizer") -> Path:
    return Path(shutil.copytree(folder, tmp_path / name))


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*")}


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "name", ["notes.txt", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
)
def test_a_link_out_of_the_folder_is_named_and_nothing_is_made(
    tmp_path: Path, llama_folder: Path, secret: Path, name: str, relative: bool
) -> None:
    folder = copied(llama_folder, tmp_path)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret" if relative else secret)
    with pytest.raises(AssemblyError, match=rf"{name}: a symbolic link that leaves its folder"):
        assemble(plan(tmp_path, folder), tmp_path / "repo")
    assert not (tmp_path / "repo").exists()
    assert secret.stat().st_nlink == 1


def test_a_link_by_a_folder_is_one_too(tmp_path: Path, llama_folder: Path, secret: Path) -> None:
    folder, elsewhere = copied(llama_folder, tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.jinja").write_text("x")
    (folder / "additional_chat_templates").symlink_to(elsewhere)
    with pytest.raises(AssemblyError, match=r"x\.jinja: a symbolic link that leaves its folder"):
        assemble(plan(tmp_path, folder), tmp_path / "repo")


def test_the_ends_beside_an_engine_are_no_exception(
    tmp_path: Path, llama_folder: Path, secret: Path
) -> None:
    made = plan(tmp_path, llama_folder)
    (tmp_path / "llama-out" / "generation_config.json").symlink_to(secret)
    with pytest.raises(AssemblyError, match=r"generation_config\.json: a symbolic link"):
        assemble(made, tmp_path / "repo")


def test_a_link_inside_the_folder_is_followed(tmp_path: Path, llama_folder: Path) -> None:
    folder = copied(llama_folder, tmp_path)
    (folder / "more").mkdir()
    (folder / "more" / "real.json").write_text("{}")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "special_tokens_map.json").symlink_to("more/real.json")
    assert assemble(plan(tmp_path, folder), tmp_path / "repo").changed
    files = tmp_path / "repo" / "preprocessing" / "1" / "tokenizer"
    assert (files / "special_tokens_map.json").read_text() == "{}"


def cache(tmp_path: Path, folder: Path) -> Path:
    """A model in Hugging Face's cache: files in blobs/, links to them in snapshots/REVISION/."""
    model = tmp_path / "hub" / "models--me--llama"
    snapshot, blobs = model / "snapshots" / "abc", model / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        if file.is_file():
            shutil.copy(file, blobs / str(number))
            (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


@pytest.mark.parametrize("by_link", [False, True])
def test_hugging_faces_cache_works(tmp_path: Path, llama_folder: Path, by_link: bool) -> None:
    snapshot = cache(tmp_path, llama_folder)
    if by_link:
        (tmp_path / "mine").symlink_to(snapshot)
    made = plan(tmp_path, tmp_path / "mine" if by_link else snapshot)
    assert assemble(made, tmp_path / "repo").changed
    files = tmp_path / "repo" / "preprocessing" / "1" / "tokenizer"
    names = {path.name for path in llama_folder.iterdir() if path.is_file()}
    assert names <= {path.name for path in files.iterdir()}
    assert not any(path.is_symlink() for path in files.iterdir())


def test_another_models_blobs_are_not_this_ones(
    tmp_path: Path, llama_folder: Path, secret: Path
) -> None:
    snapshot = cache(tmp_path, llama_folder)
    other = tmp_path / "hub" / "models--me--other" / "blobs"
    other.mkdir(parents=True)
    os.link(secret, other / "1")
    (snapshot / "notes.txt").symlink_to(other / "1")
    with pytest.raises(AssemblyError, match=r"notes\.txt: a symbolic link"):
        assemble(plan(tmp_path, snapshot), tmp_path / "repo")
    if (tmp_path / "repo").exists():
        assert secret.stat().st_ino not in inodes(tmp_path / "repo")
