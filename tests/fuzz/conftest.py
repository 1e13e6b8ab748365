"""The server that all of these tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.batches import SEED
from fuzz.fuzzed_server import FuzzedServer
from support.engines import read_demo_engine
from support.probes import add_probes
from trellis.repository.assemble import Plan, assemble


@pytest.fixture(scope="session")
def fuzzed(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FuzzedServer]:
    """The demo engine's server, with windows into its models."""
    engine, tokenizer = demo_engine
    folder = tmp_path_factory.mktemp("fuzz")
    assemble(Plan(read_demo_engine(engine), "gpt2", tokenizer), folder / "repo")
    add_probes(folder / "repo")
    server = FuzzedServer(folder / "repo", folder)
    try:
        yield server
    finally:
        server.stop()
        print(f"\nfuzz: seed {SEED}, {server.starts - 1} restarts")
