"""Memory of `postprocessing`, behind an engine that never says that a stream ended."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton

from support.standin import Script
from support.standin_server import Served, serve
from trellis.grpc_client import generate, texts
from trellis.tokenizers import load

TEXT = "안녕하세요 세계 😀 naïve"
KEPT = 200
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, standin_library: Path, llama_folder: Path
) -> Iterator[Served]:
    """Every prompt is answered with TEXT; KEPT streams are remembered."""
    llama = load("llama", llama_folder)
    scripts = [
        Script(prompt=llama.encode_fragment(" fail"), answer=[1526, 1526], failure="broken"),
        Script(answer=llama.encode(TEXT)[1:]),
    ]
    folder = tmp_path_factory.mktemp("memory")
    settings = {"max_streams": str(KEPT)}
    with serve("1.x", folder, standin_library, llama_folder, scripts, settings) as running:
        yield running


def stream(client: triton.InferenceServerClient, name: str, prompt: str = "Tell me") -> str:
    values = {"max_tokens": 100, "stream": True}
    return "".join(texts(generate(client, [prompt.encode()], values, name, timeout=60)))


def abandon(client: triton.InferenceServerClient, name: str) -> None:
    """A stream that its engine breaks off: its state stays behind."""
    with pytest.raises(triton.InferenceServerException, match="broken"):
        stream(client, name, "Please fail")


def test_memory_does_not_grow_with_streams_abandoned_ended_or_of_one_id(served: Served) -> None:
    (pid,) = (pid for pid, model in served.server.stubs().items() if model == "postprocessing")
    process = psutil.Process(pid)
    for number in range(2 * KEPT):
        assert stream(served.client, f"warm-{number}") == TEXT
        abandon(served.client, f"fails-{number}")
    before = process.memory_info().rss
    for number in range(1500):
        assert stream(served.client, f"id-{number}") == TEXT
        assert stream(served.client, "the same") == TEXT
        if number % 3 == 0:
            abandon(served.client, f"fails-again-{number}")
    assert process.memory_info().rss - before < 4 * MEBIBYTE
