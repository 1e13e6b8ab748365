"""The Makefile: what `make serve` serves, what `make clean` leaves, and what git leaves out."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile, and with what stands for a venv that is there."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    demo = tmp_path / "smollm2-tokenizer"
    demo.mkdir()
    (tmp_path / "src" / "trellis" / "demo").mkdir(parents=True)
    (tmp_path / "src" / "trellis" / "demo" / "engine.py").touch()
    for name in (".venv/bin/python", ".venv/.serve", ".venv/.dev"):
        (tmp_path / name).touch()
    (demo / "tokenizer_config.json").touch()
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make` there, with no variable of this test's own make."""
    command = ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True)


def served(checkout: Path, *arguments: str) -> tuple[list[str], str]:
    """The repositories that `make serve` would make, and the one that it would serve."""
    lines = make(checkout, "-n", "serve", *arguments).stdout.replace("\\\n", " ").splitlines()
    made = [line.split("--model_repo ")[1].split()[0] for line in lines if "assemble.py" in line]
    (one,) = (line.split("--model_repo ")[1].split()[0] for line in lines if "demo.py" in line)
    return [name.strip('"') for name in made], one.strip('"')


def test_make_serve_serves_what_is_there_as_it_is(checkout: Path) -> None:
    (checkout / "triton_model_repo").mkdir()
    assert served(checkout) == ([], "triton_model_repo")
    assert served(checkout, "REPO=other-repo") == ([], "other-repo")


def test_make_serve_makes_the_demo_s_own_repository_where_there_is_none(checkout: Path) -> None:
    assert served(checkout) == (["smollm2-repo"], "smollm2-repo")


def test_make_serve_makes_a_repository_for_an_engine_that_was_given(checkout: Path) -> None:
    made = served(checkout, "ENGINE=llama-out", "TOKENIZER=llama")
    assert made == (["triton_model_repo"], "triton_model_repo")
    (checkout / "triton_model_repo").mkdir()
    assert served(checkout, "SET=max_words:8") == made


def test_the_default_tokenizer_is_what_the_files_ask_for(checkout: Path) -> None:
    lines = make(checkout, "-n", "repo", "ENGINE=llama-out").stdout
    assert '--tokenizer "auto"' in lines


def test_hooks_go_to_make_repo_and_make_a_repository_before_it_is_served(checkout: Path) -> None:
    assert '--hooks "my.py"' in make(checkout, "-n", "repo", "HOOKS=my.py").stdout
    (checkout / "triton_model_repo").mkdir()
    made = (["triton_model_repo"], "triton_model_repo")
    assert served(checkout, "HOOKS=my.py") == made


def test_options_that_a_target_would_leave_out_are_an_error(checkout: Path) -> None:
    for target in ("serve", "check", "repo", "serve-docker", "demo"):
        said = make(checkout, "-n", target, "ARGS=--api-keys keys.yaml")
        assert said.returncode == 2
        assert f"ARGS=: make {target} takes none" in said.stderr
    assert "--api-keys" in make(checkout, "-n", "launch", "ARGS=--api-keys keys.yaml").stdout
    assert "ci/test -x" in make(checkout, "-n", "test", "ARGS=-x").stdout


def test_make_clean_leaves_the_folders_of_the_user(checkout: Path) -> None:
    kept = ["triton_model_repo", "llama-out", "llama-tokenizer"]
    for name in (*kept, "smollm2-out", "smollm2-repo", "smollm2-tokenizer"):
        (checkout / name).mkdir(exist_ok=True)
    assert make(checkout, "clean").returncode == 0
    left = sorted(path.name for path in checkout.iterdir() if not path.name.startswith("."))
    assert left == ["Makefile", *sorted([*kept, "pyproject.toml", "src"])]


@pytest.mark.parametrize(
    "name",
    [
        "llama-out/rank0.engine", "llama-tokenizer/tokenizer.json", "triton_model_repo/x",
        "smollm2-repo/x", "my-checkpoint/model.safetensors", "model.gguf",
    ],
)  # fmt: skip
def test_git_leaves_out_engines_tokenizers_and_checkpoints(name: str) -> None:
    command = ["git", "check-ignore", "--no-index", "-q", name]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_git_leaves_out_no_source() -> None:
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    hidden = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert hidden == ""
