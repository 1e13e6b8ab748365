"""`--allocator`: another malloc under the server, or a line that says what to install."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.paths import ROOT
from trellis.server import allocator
from trellis.server.allocator import ALLOCATORS, AllocatorNotFound, preloaded
from trellis.server.ports import free_ports
from trellis.server.process import Server, ServerSettings


def test_glibc_leaves_the_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    assert preloaded("glibc") == {}


def test_what_is_preloaded_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "find_library", lambda name: f"lib{name}.so.2")
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    assert preloaded("jemalloc")["LD_PRELOAD"] == "libjemalloc.so.2 other.so"


@pytest.mark.parametrize("name", ALLOCATORS)
def test_one_that_is_not_there_is_named_with_its_package(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator, "find_library", lambda _: None)
    with pytest.raises(
        AllocatorNotFound, match=f"{name}: .* apt-get install {ALLOCATORS[name][1]}"
    ):
        preloaded(name)


def test_the_server_and_its_models_have_the_allocator(demo_repo: Path, tmp_path: Path) -> None:
    name = next((name for name in ALLOCATORS if allocator.available(name)), None)
    if name is None:
        pytest.skip("neither jemalloc nor tcmalloc is installed")
    settings = ServerSettings(demo_repo, *free_ports(3), allocator=name)
    with (tmp_path / "log").open("wb") as log, Server(settings, log) as server:
        server.wait_ready()
        for pid in (server.process.pid, *server.stubs()):
            assert f"lib{name}" in Path(f"/proc/{pid}/maps").read_text()
        body = {"text_input": "The capital of France is", "max_tokens": 4}
        answer = httpx.post(f"{settings.url}/v2/models/ensemble/generate", json=body, timeout=60)
        assert answer.json()["text_output"]


def test_an_unknown_allocator_is_refused_with_those_there_are() -> None:
    command = [sys.executable, "tools/launch_triton_server.py", "--allocator", "mimalloc"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "jemalloc" in done.stderr
