"""`make serve`: checks first, then a ready server and a curl that fits the model."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from support.paths import ROOT
from trellis.server.ports import free_ports

DEMO = ROOT / "tools" / "demo.py"


def command(repo: Path, ports: Sequence[int]) -> list[str]:
    names = ("http", "grpc", "metrics")
    options = [f"--{name}_port={port}" for name, port in zip(names, ports, strict=True)]
    return [sys.executable, str(DEMO), "--serve", "--model_repo", str(repo), *options]


def test_the_curl_that_is_shown_asks_in_the_models_own_chat_form(
    demo_repo: Path, tmp_path: Path
) -> None:
    ports = free_ports(3)
    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(command(demo_repo, ports), stdout=output, cwd=tmp_path) as serving,
    ):
        try:
            curl = shown(serving, tmp_path / "output")
            answer = httpx.post(curl[3], content=curl[5], timeout=60)
        finally:
            serving.send_signal(signal.SIGTERM)
    assert serving.returncode == 0
    assert json.loads(curl[5])["text_input"].endswith("<|im_start|>assistant\n")
    assert "Paris" in answer.json()["text_output"]


def shown(serving: subprocess.Popen[bytes], output: Path) -> list[str]:
    """The words of the curl, once it is shown."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert serving.poll() is None, output.read_text()
        for line in output.read_text().splitlines():
            if line.startswith("curl "):
                return shlex.split(line)
        time.sleep(0.1)
    raise AssertionError("no curl was shown")


def test_what_would_fail_is_said_before_anything_starts(demo_repo: Path, tmp_path: Path) -> None:
    ports = free_ports(3)
    done = subprocess.run(
        command(tmp_path / "nowhere", ports), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "preprocessing/config.pbtxt is missing" in done.stderr
    assert "make it with `make repo`" in done.stderr
    assert list(tmp_path.iterdir()) == []
