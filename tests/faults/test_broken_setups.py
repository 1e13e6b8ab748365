"""What is wrong before the first request: the launch ends with status 1 and a reason to read."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.launched import LAUNCHER
from support.load import ENSEMBLE
from support.serving import serve
from support.small_disks import around, needed
from trellis.server import folder as server_folder
from trellis.server.settings import ServerFailed

SHM = Path("/dev/shm")


def reason(log: str) -> str:
    """The launcher's own last word."""
    assert "Traceback" not in log, log
    return "\n".join(line for line in log.splitlines() if line.startswith("launch_triton_server: "))


@needed
@pytest.mark.parametrize("inodes", [2, 6])
def test_a_full_disk_at_launch(demo_repo: Path, tmp_path: Path, inodes: int) -> None:
    full = around(tmp_path / "tmp", f"size=64k,nr_inodes={inodes}")
    with serve(demo_repo, tmp_path, around=full, launcher=True, ready=False) as launched:
        status, log = launched.ended()
    assert status == 1
    assert "No space left on device" in reason(log)
    assert "TMPDIR" in reason(log)
    launched.assert_nothing_left()


@needed
def test_a_full_disk_at_make_repo(demo_engine: tuple[Path, Path], tmp_path: Path) -> None:
    engine, tokenizer = demo_engine
    place = tmp_path / "small"
    place.mkdir()
    command = [
        sys.executable, str(LAUNCHER.with_name("assemble.py")), "--engine", str(engine),
        "--tokenizer", "gpt2", "--tokenizer_dir", str(tokenizer),
        "--model_repo", str(place / "repo"),
    ]  # fmt: skip
    line = around(place, "size=600k").format(shlex.quote(shlex.join(command) + "; ls -A small"))
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""  # no half of a repository


@needed
def test_shm_too_small_is_seen_before_anything_starts(demo_repo: Path, tmp_path: Path) -> None:
    with serve(
        demo_repo, tmp_path, around=around(SHM, "size=4m"), launcher=True, ready=False
    ) as launched:
        status, log = launched.ended()
    assert status == 1
    assert "shared memory: 4 MiB free; needed: 32 MiB" in reason(log)
    assert "--shm-size" in reason(log)
    launched.assert_nothing_left()


@needed
def test_shm_too_small_to_start_in(demo_repo: Path, tmp_path: Path) -> None:
    small = around(SHM, "size=1m")
    with serve(
        demo_repo, tmp_path, "--no-check", around=small, launcher=True, ready=False
    ) as launched:
        status, log = launched.ended()
    assert status == 1
    assert "before it was ready" in reason(log)
    assert "use '--shm-size' flag" in log
    launched.assert_nothing_left()


@needed
def test_shm_that_a_request_fills_is_an_error_for_that_request(
    demo_repo: Path, tmp_path: Path
) -> None:
    small = around(SHM, "size=8m")
    known = {"text_input": "The capital of France is", "max_tokens": 8}
    large = ("--gateway_limit", "body_bytes=16000000")  # else no body would fill it
    with serve(
        demo_repo, tmp_path, "--no-check", *large, around=small, launcher=True, ready=False
    ) as launched:
        launched.wait_ready()
        with httpx.Client(base_url=launched.url, timeout=60) as client:
            before = client.post(f"{ENSEMBLE}/generate", json=known)
            huge = known | {"text_input": "x" * 15_000_000}
            refused = client.post(f"{ENSEMBLE}/generate", json=huge)
            after = client.post(f"{ENSEMBLE}/generate", json=known)
    assert before.status_code == 200
    assert refused.status_code >= 400
    assert refused.json()["error"]
    assert "shared memory" in refused.json()["error"] or "text_input" in refused.json()["error"]
    assert after.json()["text_output"] == before.json()["text_output"]


def test_an_engine_file_that_was_cut_short(demo_repo: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    (model,) = (repo / "tensorrt_llm" / "1").glob("*.gguf")
    os.truncate(model, 10**6)
    with serve(repo, tmp_path, launcher=True, ready=False) as launched:
        status, log = launched.ended()
    assert status == 1
    assert f"tensorrt_llm/1/{model.name}: 1000000 bytes; needed:" in reason(log)
    launched.assert_nothing_left()


def test_an_engine_file_of_something_else(demo_repo: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    (model,) = (repo / "tensorrt_llm" / "1").glob("*.gguf")
    size = model.stat().st_size
    model.write_bytes(os.urandom(2**20))
    os.truncate(model, size)
    with serve(repo, tmp_path, launcher=True, ready=False) as launched:
        status, log = launched.ended()
    assert status == 1
    assert "failed to load 'tensorrt_llm'" in log
    assert f"gpt_model_path: OpenVINO cannot load {model}" in log.replace("\\n", "\n")
    assert "before it was ready" in reason(log)
    launched.assert_nothing_left()


def with_first_line(repo: Path, model: str, line: str) -> None:
    """Put a line of Python before a model's code."""
    file = repo / model / "1" / "model.py"
    file.write_text(f"{line}\n{file.read_text()}")


def test_a_models_process_that_dies_while_it_loads_ends_the_launch(
    demo_repo: Path, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    with_first_line(repo, "postprocessing", "import os, time; time.sleep(2); os._exit(3)")
    with serve(repo, tmp_path, launcher=True, ready=False) as launched:
        status, log = launched.ended(60)
    assert status == 1
    assert "before it was ready" in reason(log)
    assert "failed to load 'postprocessing'" in log
    launched.assert_nothing_left()


def test_a_models_process_that_dies_in_its_first_moment_ends_the_launch(
    demo_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton alone waits for it for ever; a space in its path is one cause."""
    repo = tmp_path / "a repo"
    shutil.copytree(demo_repo, repo)
    monkeypatch.setattr(server_folder, "plain_path", lambda folder, model_repo: model_repo)
    with (
        serve(repo, tmp_path, ready=False) as running,
        pytest.raises(ServerFailed) as failed,
    ):
        running.wait_ready()
    assert "the process of a Python model, in its first moment, died" in str(failed.value)


def test_loading_has_a_limit(demo_repo: Path, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    shutil.copytree(demo_repo, repo)
    with_first_line(repo, "preprocessing", "import time; time.sleep(600)")
    with serve(
        repo, tmp_path, "--no-check", "--load_timeout", "6", launcher=True, ready=False
    ) as launched:
        status, log = launched.ended(60)
    assert status == 1
    assert "6 s (--load_timeout) passed before the server was ready" in reason(log)
    launched.assert_nothing_left()


@pytest.mark.parametrize("name", ["my models", "모델", "it's $HOME & (more)"])
def test_a_repository_may_lie_in_a_folder_of_any_name(
    demo_repo: Path, tmp_path: Path, name: str
) -> None:
    """Triton's Python stubs take neither a space nor a letter that is not ASCII."""
    repo = tmp_path / name / "repo"
    shutil.copytree(demo_repo, repo)
    with serve(
        repo, tmp_path / name, launcher=True, ready=False
    ) as launched:  # its temporary folder is there too
        launched.wait_ready()
        with httpx.Client(base_url=launched.url, timeout=60) as client:
            body = {"text_input": "The capital of France is", "max_tokens": 4}
            answer = client.post(f"{ENSEMBLE}/generate", json=body)
    assert "Paris" in answer.json()["text_output"]
    launched.assert_nothing_left()
