"""What all tests share: the demo engine, a repository made from it, a real server on it."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

# Tests ask over gRPC in the process that starts servers. gRPC's handlers of fork() poll what is
# closed before exec(), and one in ten of those that are started while others are asked aborts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from support.ending import wait_for_ends
from support.engines import lay_out_engine
from support.serving import assemble_demo, serve
from trellis.server.process import Server

pytest_plugins = [
    "support.allowed_skips",  # --strict-skips
    "support.hypothesis_profiles",  # --hypothesis-profile=full
    "support.standin_fixtures",
    "support.tokenizer_fixtures",
]


@pytest.fixture(scope="session")
def demo_engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the demo engine, as TEST_ENGINE has it, and of its tokenizer."""
    return lay_out_engine(tmp_path_factory.mktemp("demo"))


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


def pytest_sessionfinish() -> None:
    """Servers end beside the tests, and the last ones after them."""
    wait_for_ends()
