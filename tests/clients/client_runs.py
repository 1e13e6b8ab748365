"""What every client's test needs: its venv and files, and ways to run it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from trellis.server.settings import ServerSettings

CLIENTS = ROOT / ".clients"
PROGRAMS = Path(__file__).with_name("programs")
PROMPT = "The capital of France is"
TOKENS = 16
SECONDS = 120  # that a client may take


def venv(name: str) -> str:
    """The Python of a client's venv; the test is not run where it could not be installed."""
    _needs(CLIENTS / f"{name}.missing")
    return str(CLIENTS / name / "bin" / "python")


def sources(name: str) -> Path:
    """The folder of a repository's files; the test is not run where they could not be had."""
    _needs(CLIENTS / "sources" / f"{name}.missing")
    return CLIENTS / "sources" / name


def _needs(missing: Path) -> None:
    if missing.is_file():
        pytest.skip(missing.read_text().strip())


def run(
    command: Sequence[str], more: Mapping[str, str] | None = None, seconds: float = SECONDS
) -> str:
    """What a client printed; fails the test where it ends with another status than 0."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    environment |= more or {}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=seconds, cwd=CLIENTS
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def node_modules() -> Path:
    """Where npm's packages are; the test is not run where they could not be installed."""
    _needs(CLIENTS / "node.missing")
    return CLIENTS / "node" / "node_modules"


def ask(
    python: str,
    program: str,
    *arguments: str,
    more: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """The JSON that one of `programs/` prints last."""
    printed = run([python, str(PROGRAMS / program), *arguments], more, seconds)
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer


def curl(settings: ServerSettings, text: str, **parameters: Any) -> str:
    """The text that curl gets of /generate, greedy."""
    body = {"text_input": text, "parameters": {"temperature": 0, **parameters}}
    url = f"{settings.url}/v2/models/ensemble/generate"
    printed = run(["curl", "-sS", "--fail", "-X", "POST", url, "-d", json.dumps(body)])
    answer: str = json.loads(printed)["text_output"]
    return answer


def curl_openai(settings: ServerSettings, path: str, **body: Any) -> dict[str, Any]:
    """The answer that curl gets of a path of OpenAI's API, greedy."""
    data = json.dumps({"model": "ensemble", "temperature": 0, **body})
    printed = run(["curl", "-sS", "--fail", "-X", "POST", f"{settings.url}{path}", "-d", data])
    answer: dict[str, Any] = json.loads(printed)
    return answer


def grpc_url(settings: ServerSettings) -> str:
    """Where gRPC clients reach the server."""
    return f"127.0.0.1:{settings.grpc_port}"
