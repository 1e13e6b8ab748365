"""What all tests share: the demo engine, a repository made from it, a real server on it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from trellis.demo.engine import find_demo_model, lay_out
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports
from trellis.server.process import Server, ServerSettings

pytest_plugins = [
    "support.allowed_skips",  # --strict-skips
    "support.standin_fixtures",
    "support.tokenizer_fixtures",
]


@pytest.fixture(scope="session")
def demo_engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the demo engine and of its tokenizer."""
    folder = tmp_path_factory.mktemp("demo")
    engine, tokenizer = folder / "smollm2-out", folder / "smollm2-tokenizer"
    lay_out(find_demo_model(), engine, tokenizer)
    return engine, tokenizer


@pytest.fixture(scope="session")
def demo_repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository of the demo engine."""
    engine, tokenizer = demo_engine
    target = tmp_path_factory.mktemp("repo") / "triton_model_repo"
    assemble(Plan(read_engine(engine), "gpt2", tokenizer), target)
    return target


def start(repo: Path, log: Path) -> Server:
    """A ready server on free ports, its output in a file."""
    http, grpc, metrics = free_ports(3)
    with log.open("wb") as output:
        server = Server(ServerSettings(repo, http, grpc, metrics), output)
    try:
        server.wait_ready()
    except BaseException:
        server.stop()
        print(log.read_text(errors="replace")[-5000:])
        raise
    return server


@pytest.fixture(scope="session")
def server(demo_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with the demo engine for all tests that leave it as it was."""
    with start(demo_repo, tmp_path_factory.mktemp("log") / "triton.log") as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of that server."""
    with httpx.Client(base_url=server.settings.url, timeout=300) as client:
        yield client
