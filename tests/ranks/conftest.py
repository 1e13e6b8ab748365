"""What the tests of ranks share: the engine's modules, and repositories to serve."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trellis.demo.engine import find_demo_model
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble


@pytest.fixture(scope="session")
def random_repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a small Llama with random weights: 4 attention and 2 key/value heads."""
    from ranks.checkpoints import random_llama

    return _repository(tmp_path_factory, demo_engine, lambda to: random_llama(to, 49152))


@pytest.fixture(scope="session")
def smollm2_repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of SmolLM2-135M as a checkpoint: 9 attention and 3 key/value heads."""
    from ranks.checkpoints import dequantise

    return _repository(tmp_path_factory, demo_engine, lambda to: dequantise(find_demo_model(), to))


def _repository(
    folders: pytest.TempPathFactory, demo: tuple[Path, Path], make: Callable[[Path], None]
) -> Path:
    folder = folders.mktemp("ranks")
    make(folder / "checkpoint")
    target = folder / "triton_model_repo"
    assemble(Plan(read_engine(folder / "checkpoint"), "gpt2", demo[1]), target)
    return target
