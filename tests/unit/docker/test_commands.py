"""make engine and make serve-docker: printed always, run where it can be or where it is asked for.

What they print is compared with golden/docker by test_goldens.py. Docker is a script here.
"""

import json
import os
import shlex
from pathlib import Path

import pytest
import typer

from support.cli import run
from support.fake_engines import write_checkpoint, write_engine
from support.paths import ROOT
from trellis.cli import launch
from trellis.contract.containers import VLLM_CONTAINERS, containers, containers_for
from trellis.contract.release import has_engines
from trellis.engine_files.engine_folder import read_engine
from trellis.preflight.library import LIBRARIES, check_library_release
from trellis.repository.assemble import Plan, assemble


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """An environment in which `docker` writes its arguments to a file and fails with 7."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/docker.log\nexit 7\n')
    (tools / "docker").chmod(0o755)
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tools / "nvidia-smi").chmod(0o755)
    return {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


def gpu(tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'A GPU, 81920, 0'\n")
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)


def build(tmp_path: Path, *more: str, env: dict[str, str]) -> tuple[int, str]:
    (tmp_path / "src").mkdir(exist_ok=True)
    given = {"checkpoint": tmp_path, "out": tmp_path / "out", "source": tmp_path / "src"}
    options = [f"--{name}={value}" for name, value in given.items()]
    done = run("build_engine", *options, "--trtllm=0.9.0", *more, env=env)
    return done.status, done.output


def test_without_a_gpu_it_is_only_printed(tmp_path: Path, docker: dict[str, str]) -> None:
    status, printed = build(tmp_path, env=docker)
    assert status == 0
    words = shlex.split(printed.replace("\\\n", ""))  # to paste as it stands
    assert words[:3] == ["docker", "run", "--rm"]
    assert "nvcr.io/nvidia/tritonserver:24.05-trtllm-python-py3" in words
    assert "trtllm-build" in words[-1]
    assert not (tmp_path / "docker.log").exists()


def test_with_docker_and_a_gpu_it_runs_and_its_status_is_passed_on(
    tmp_path: Path, docker: dict[str, str]
) -> None:
    gpu(tmp_path)
    assert build(tmp_path, "--run=0", env=docker)[0] == 0
    assert not (tmp_path / "docker.log").exists()
    assert build(tmp_path, env=docker)[0] == 7
    assert "convert_checkpoint.py" in (tmp_path / "docker.log").read_text()


def test_it_runs_where_it_is_asked_to(tmp_path: Path, docker: dict[str, str]) -> None:
    assert build(tmp_path, "--run=1", "--image=mine:1", env=docker)[0] == 7
    assert "mine:1 bash -c" in (tmp_path / "docker.log").read_text()


def test_the_repository_is_mounted_where_its_engine_is_looked_for(
    tmp_path: Path, llama_folder: Path
) -> None:
    engine = read_engine(write_engine(tmp_path / "llama-out", "0.9.0"))
    repository = tmp_path / "triton_model_repo"
    for mount, inside in ((Path("/srv/repo"), "/srv/repo"), (None, str(repository))):
        assemble(Plan(engine, "llama", llama_folder, mount=mount), repository)
        done = run("serve_docker", "--model_repo", repository, "--http_port=9000", "--run=0")
        assert f"-v {repository}:{inside}:ro" in done.output
        assert f"--model_repo={inside}" in done.output
        assert "-p 127.0.0.1:9000:8000" in done.output
        for part in ("--gpus all", "--shm-size=2g", "--ulimit memlock=-1"):
            assert part in done.output


def test_the_sizes_of_an_engine_can_be_given(tmp_path: Path, docker: dict[str, str]) -> None:
    sizes = ("--max_batch_size=16", "--max_input_len=4096", "--max_output_len=1024")
    status, output = build(tmp_path, *sizes, "--run=0", env=docker)
    assert status == 0
    assert all(size in output for size in sizes)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, docker: dict[str, str]) -> None:
    options = [f"--checkpoint={tmp_path / 'none'}", "--out=o", "--trtllm=0.9.0", "--run=0"]
    done = run("build_engine", *options, env=docker)
    assert done.status == 1
    assert f"CHECKPOINT={tmp_path / 'none'}: no such folder" in done.output


@pytest.mark.parametrize("release", ["1.3.0", "1.4.0rc1"])
def test_a_release_that_builds_no_engines_says_what_to_do(
    tmp_path: Path, docker: dict[str, str], release: str
) -> None:
    options = [f"--checkpoint={tmp_path}", "--out=o", f"--trtllm={release}", "--run=0"]
    done = run("build_engine", *options, env=docker)
    assert done.status == 1
    assert f"TRTLLM={release}: TensorRT-LLM builds no engines from 1.3.0rc21 on" in done.output
    assert f"make repo ENGINE={tmp_path} BACKEND=llmapi" in done.output


def made(folder: Path, tokenizer: Path, engine_type: str, **settings: str) -> Path:
    """A repository of a checkpoint."""
    engine = read_engine(write_checkpoint(folder / "checkpoint"), engine_type)
    assemble(Plan(engine, "llama", tokenizer, settings=settings), folder / "triton_model_repo")
    return folder / "triton_model_repo"


def printed(repository: Path, *options: str) -> list[list[str]]:
    """The commands, as a shell would read them."""
    done = run("serve_docker", "--model_repo", repository, "--run=0", *options)
    assert done.status == 0, done.output
    return [shlex.split(line) for line in done.output.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize(
    ("engine_type", "base"),
    [
        ("llmapi", "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"),
        ("vllm", "nvcr.io/nvidia/tritonserver:26.08-vllm-python-py3"),
    ],
)
def test_a_checkpoint_is_served_in_the_newest_container_that_has_its_library(
    tmp_path: Path, llama_folder: Path, engine_type: str, base: str
) -> None:
    repository = made(tmp_path, llama_folder, engine_type)
    build, serve = printed(repository)
    assert build[:2] == ["docker", "build"]
    assert f"--build-arg=BASE={base}" in build
    assert build[-1] == str(ROOT)
    image = f"trellis:{base.partition(':')[2]}"
    assert f"--tag={image}" in build
    launch = serve[serve.index(image) + 1 :]
    assert launch[:2] == ["--model_repo=/triton_model_repo", "--world_size=1"]
    assert f"{repository}:/triton_model_repo:ro" in serve
    assert f"--user={os.getuid()}:{os.getgid()}" in serve
    build, serve = printed(repository, "--image=registry.local/mine:1")
    assert "--build-arg=BASE=registry.local/mine:1" in build
    assert "trellis:1" in serve


def test_several_gpus_of_a_checkpoint_are_passed_on(tmp_path: Path, llama_folder: Path) -> None:
    _, serve = printed(made(tmp_path, llama_folder, "vllm"), "--world_size=2")
    assert "--world_size=2" in serve
    assert "--shm-size=3g" in serve


def test_what_runs_in_the_container_is_the_launcher_with_options_that_it_has(
    tmp_path: Path, llama_folder: Path
) -> None:
    repository = made(tmp_path, llama_folder, "vllm")
    _, serve = printed(repository)
    entry = next(
        line
        for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
        if line.startswith("ENTRYPOINT")
    )
    command = json.loads(entry.removeprefix("ENTRYPOINT "))
    assert command[:2] == ["trellis", "launch"]
    given = command[2:] + serve[serve.index("trellis:26.08-vllm-python-py3") + 1 :]
    launcher = typer.Typer()
    launcher.command()(launch.main)
    here = [word.replace("/triton_model_repo", str(repository)) for word in given]
    parsed = typer.main.get_command(launcher).make_context("launch", here)
    assert parsed.params["model_repo"] == repository
    assert parsed.params["address"] == parsed.params["grpc_address"] == "0.0.0.0"
    assert parsed.params["http_gateway"] is True


def test_an_engine_on_this_machines_cpu_needs_no_container(
    tmp_path: Path, llama_folder: Path
) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "openvino_model.xml").write_text("<net/>")
    assemble(Plan(read_engine(folder), "llama", llama_folder), tmp_path / "repo")
    done = run("serve_docker", "--model_repo", tmp_path / "repo", "--run=0")
    assert done.status == 1
    assert "its engine needs no container; `make launch` it" in done.output


def test_the_vllm_of_every_container_is_a_release_that_the_engine_takes() -> None:
    vllm = LIBRARIES["vllm"]
    for version in VLLM_CONTAINERS.values():
        assert check_library_release("vllm", version, "python3", tried=False).remedy == ""
    assert vllm.known == "vLLM 0.24 to 0.32"


@pytest.mark.parametrize(
    ("release", "container"), [("0.8.0", "24.03"), ("0.5.0", "23.10"), ("1.2.1", "26.07")]
)
def test_a_release_leads_to_its_containers_the_best_first(release: str, container: str) -> None:
    assert containers_for(release)[0] == container


def test_no_container_is_known_that_has_no_tensorrt_llm() -> None:
    known = containers()
    assert "26.08" not in known
    assert all(has_engines(release) for release in known.values())
