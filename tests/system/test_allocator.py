"""`--allocator`: the server and its models' processes have it."""

from pathlib import Path

import httpx
import pytest

from support.serving import serve
from trellis.server import allocator
from trellis.server.allocator import ALLOCATORS


def test_the_server_and_its_models_have_the_allocator(demo_repo: Path, tmp_path: Path) -> None:
    name = next((name for name in ALLOCATORS if allocator.available(name)), None)
    if name is None:
        pytest.skip("neither jemalloc nor tcmalloc is installed")
    with serve(demo_repo, tmp_path, allocator=name) as server:
        for pid in (server.process.pid, *server.stubs()):
            assert f"lib{name}" in Path(f"/proc/{pid}/maps").read_text()
        body = {"text_input": "The capital of France is", "max_tokens": 4}
        url = f"{server.settings.url}/v2/models/ensemble/generate"
        assert httpx.post(url, json=body, timeout=60).json()["text_output"]
