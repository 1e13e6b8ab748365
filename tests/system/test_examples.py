"""The files of examples/, run as they are written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.asking import ask
from support.paths import ROOT
from trellis.server.process import Server
from trellis.tokenizers import load

EXAMPLES = ROOT / "examples"
FRANCE = "The capital of France is"


def run(*command: str | Path, status: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([*command], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done


def address(server: Server, example: str) -> str:
    settings = server.settings
    return f"localhost:{settings.grpc_port}" if "grpc" in example else settings.url


@pytest.mark.parametrize("example", ["ask_http.py", "ask_grpc.py"])
def test_a_client_prints_the_streamed_answer(
    server: Server, http: httpx.Client, example: str
) -> None:
    done = run(sys.executable, EXAMPLES / example, address(server, example), FRANCE)
    assert done.stdout == ask(http, FRANCE, max_tokens=32, temperature=0)["text_output"] + "\n"


@pytest.mark.parametrize("example", ["ask_http.py", "ask_grpc.py"])
def test_a_client_prints_an_error_in_one_line(server: Server, example: str) -> None:
    done = run(sys.executable, EXAMPLES / example, address(server, example), "", status=1)
    assert re.search(r"text_input", done.stderr)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_shows_the_answer_and_the_stream(server: Server, http: httpx.Client) -> None:
    whole, *events = run(EXAMPLES / "ask.sh", server.settings.url).stdout.splitlines()
    text = ask(http, FRANCE, max_tokens=16, temperature=0)["text_output"]
    assert json.loads(whole)["text_output"] == text
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event]
    assert "".join(chunk["text_output"] for chunk in chunks) == text


def test_the_tokenizer_type_is_the_one_of_the_docs() -> None:
    page = (ROOT / "docs" / "tokenizers.md").read_text()
    assert f"```python\n{(EXAMPLES / 'mine.py').read_text()}```" in page


def test_the_tokenizer_type_gives_back_the_text(tmp_path: Path) -> None:
    mine = load("mine", tmp_path, types_folder=EXAMPLES)
    text = "naïve 안녕 😀"
    assert mine.decode(mine.encode(text)) == text


def test_the_tokenizer_type_comes_into_a_repository(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    engine, tokenizer = demo_engine
    repository = tmp_path / "repo"
    tool = ROOT / "tools" / "assemble.py"
    options: list[str | Path] = ["--tokenizer", EXAMPLES / "mine.py", "--tokenizer_dir", tokenizer]
    run(sys.executable, tool, "--engine", engine, *options, "--model_repo", repository)
    for model in ("preprocessing", "tensorrt_llm", "postprocessing"):
        copy = repository / model / "1" / "trellis" / "data" / "tokenizers" / "mine.py"
        assert copy.read_bytes() == (EXAMPLES / "mine.py").read_bytes()
