"""What `pip install` brings: the wheel has all that a checkout has, and serves with it."""

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.paths import ROOT
from trellis.server.ports import free_ports

BINARIES = [f"requirements/{name}-binaries.txt" for name in ("serve", "demo")]
EMPTY = """
import trellis
from trellis.contract.placeholder import known_placeholders
from trellis.contract.release import releases
from trellis.tokenizers import known_types
print(trellis.__file__)
print(len(releases()), len(known_placeholders()), *known_types())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as the wheel has it; the packages it needs are this venv's."""
    folder = tmp_path_factory.mktemp("wheel")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def run(installed: Path, *command: str | Path, cwd: Path) -> str:
    """A command of this Python that finds the installed package before the checkout."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_git_holds(installed: Path) -> None:
    (wheel,) = installed.parent.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "src/trellis", "model_repo_src", "tokenizers", "parsers", *BINARIES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 200
    for name in listed:
        in_wheel = name[4:] if name.startswith("src/") else f"trellis/data/{name}"
        assert in_wheel in packed, name


def test_all_releases_placeholders_and_types_are_there_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    file, counts = run(installed, "-c", EMPTY, cwd=tmp_path).splitlines()
    assert file == str(installed / "trellis" / "__init__.py")
    contracts = list((ROOT / "src" / "trellis" / "contract" / "releases").glob("*.json"))
    releases, placeholders, *types = counts.split()
    assert int(releases) == len(contracts) > 10
    assert int(placeholders) > 20
    assert types == ["auto", "gpt2", "llama", "llama3", "llama4", "mistral", "qwen", "t5"]


def test_trellis_says_its_version_and_its_commands(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "trellis"
    assert run(installed, command, "--version", cwd=tmp_path) == "trellis 0.2.0\n"
    said = run(installed, command, "--help", cwd=tmp_path)
    for name in (
        "repo",
        "check",
        "launch",
        "ask",
        "demo",
        "fill",
        "engine",
        "serve-docker",
        "soak",
    ):
        assert f"\n  {name} " in said
        assert "--help" in run(installed, command, name, "--help", cwd=tmp_path)


def test_the_demo_answers_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    ports = zip(
        ("--http_port", "--grpc_port", "--metrics_port"), map(str, free_ports(3)), strict=True
    )
    command = installed / "bin" / "trellis"
    said = run(installed, command, "demo", *(word for pair in ports for word in pair), cwd=tmp_path)
    assert "Paris" in said
    assert "안녕하세요" in said
    assert said.rstrip().endswith("stopped")
    made = {path.name for path in tmp_path.iterdir()}
    assert {"smollm2-out", "smollm2-repo", "smollm2-tokenizer"} <= made


@pytest.fixture
def served(
    installed: Path, demo_engine: tuple[Path, Path], tmp_path: Path
) -> Iterator[tuple[str, Path]]:
    """The address of the demo engine, assembled and launched by the wheel, and the launch's log."""
    engine, tokenizer = demo_engine
    trellis = installed / "bin" / "trellis"
    repo, log = tmp_path / "repo", tmp_path / "launch.log"
    made: list[str | Path] = [
        "--engine",
        engine,
        "--tokenizer",
        "gpt2",
        "--tokenizer_dir",
        tokenizer,
    ]
    run(installed, trellis, "repo", *made, "--model_repo", repo, cwd=tmp_path)
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        copy = repo / model / "1" / "trellis" / "__init__.py"
        text = copy.read_text()
        copy.unlink()
        copy.write_text(text + "\nprint('package of the model:', __file__, flush=True)\n")
    http, grpc, metrics = map(str, free_ports(3))
    ports = ["--http_port", http, "--grpc_port", grpc, "--metrics_port", metrics]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, trellis, "launch", "--model_repo", repo, "--no-check", *ports],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            stdout=output,
            stderr=output,
        )
    url = f"http://localhost:{http}"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url, log
    finally:
        process.terminate()
        process.wait(60)


def test_what_the_wheel_assembled_it_serves_with_the_models_own_copies(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    url, log = served
    body = {"text_input": "The capital of France is", "max_tokens": 5, "temperature": 0}
    answer = httpx.post(f"{url}/v2/models/ensemble/generate", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["text_output"]
    named = [
        line.split("package of the model: ")[1].strip()
        for line in log.read_text().splitlines()
        if "package of the model: " in line
    ]
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        assert str(tmp_path / "repo" / model / "1" / "trellis" / "__init__.py") in named
    assert {Path(name).parents[3] for name in named} == {tmp_path / "repo"}
