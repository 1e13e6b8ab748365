"""What all tests share: the demo engine, a repository made from it, a real server on it."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.serving import assemble_demo, serve
from trellis.demo.engine import find_demo_model, lay_out
from trellis.server.process import Server

pytest_plugins = [
    "support.allowed_skips",  # --strict-skips
    "support.hypothesis_profiles",  # --hypothesis-profile=full
    "support.standin_fixtures",
    "support.tokenizer_fixtures",
]


@pytest.fixture(scope="session")
def demo_engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the demo engine and of its tokenizer.

    With TEST_ENGINE=vllm the same weights as a checkpoint, which the engine `vllm` serves.
    """
    folder = tmp_path_factory.mktemp("demo")
    engine, tokenizer = folder / "smollm2-out", folder / "smollm2-tokenizer"
    lay_out(find_demo_model(), engine, tokenizer)
    if os.environ.get("TEST_ENGINE") == "vllm":
        from ranks.checkpoints import dequantise

        engine = folder / "smollm2-checkpoint"
        dequantise(find_demo_model(), engine)
        (engine / "engine.yaml").write_text("enforce_eager: true\n")  # compiling takes minutes
    return engine, tokenizer


@pytest.fixture(scope="session")
def demo_repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of the demo engine."""
    return assemble_demo(demo_engine, tmp_path_factory.mktemp("repo"))


@pytest.fixture(scope="session")
def server(demo_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the demo engine for all tests that leave it as it was."""
    with serve(demo_repo, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of that server."""
    with httpx.Client(base_url=server.settings.url, timeout=300) as client:
        yield client
