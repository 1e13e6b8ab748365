# SPDX-License-Identifier: Apache-2.0
"""Preflight: whether a repository will run here, found out before anything is launched.

A module for each thing that is looked at: `repository`, `engine`, `gpus` (`memory` estimates what
they will hold) and `machine`; for a checkpoint `library`, and `checkpoint_gpus` (`vllm_memory`);
`shared_gpus` for models of one repository. Each has functions that give one or more `Check`s;
`run_checks` asks them all.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from trellis.preflight.check import Check
from trellis.preflight.checkpoint_gpus import check_checkpoint_memory, check_split
from trellis.preflight.embedding import check_embedding
from trellis.preflight.engine import (
    check_heads,
    check_inflight,
    check_ranks,
    check_release,
    check_vocabulary,
    check_world_size,
)
from trellis.preflight.gpus import check_gpus
from trellis.preflight.hooks import check_hooks, check_parser
from trellis.preflight.library import LIBRARIES, check_library, find_library
from trellis.preflight.machine import (
    Listening,
    check_listening,
    check_open_files,
    check_packages,
    check_server,
    check_shared_memory,
)
from trellis.preflight.repository import (
    Repository,
    RepositoryError,
    check_configuration,
    check_engine_path,
    check_large_files,
    read_repository,
)
from trellis.preflight.shared_gpus import check_together
from trellis.ranks.options import RankOptions
from trellis.ranks.placement import ranks_here
from trellis.repository.manifest import embedding_names, model_names
from trellis.server.triton import serving_python

__all__ = ["Check", "Listening", "run_checks"]

Here = Callable[[int], int]  # how many of so many ranks run on this host


def run_checks(
    model_repo: Path,
    ranks: RankOptions,
    listening: Listening | None,
    tritonserver: str = "",
    no_mpi: bool = False,
    thorough: bool = False,
) -> list[Check]:
    """Every check that applies to what the repository holds.

    `listening` None leaves the ports out; `thorough` has an engine's library imported, which takes
    up to minutes.
    """

    def here(world_size: int) -> int:
        return ranks_here(ranks, world_size, no_mpi)

    return list(_checks(model_repo, ranks.world_size, here, listening, tritonserver, thorough))


def _checks(
    model_repo: Path,
    world_size: int,
    here: Here,
    listening: Listening | None,
    tritonserver: str,
    thorough: bool,
) -> Iterator[Check]:
    names, embedding = model_names(model_repo), embedding_names(model_repo)
    several = len(names) + len(embedding) > 1
    for name in embedding:
        check = check_embedding(model_repo, name, serving_python(tritonserver))
        yield check.of(name) if several else check
    for name in names:
        checks = _model(model_repo, name, world_size, here, tritonserver, thorough)
        yield from (check.of(name) if several else check for check in checks)
    if len(names) > 1:
        python = serving_python(tritonserver)
        yield from check_together(model_repo, names, python, world_size, here)
    yield check_shared_memory(here(world_size))
    yield check_open_files()
    if listening is not None:
        yield from check_listening(listening)


def _model(
    model_repo: Path, name: str, world_size: int, here: Here, tritonserver: str, thorough: bool
) -> Iterator[Check]:
    """What is looked at for one model of a repository."""
    try:
        repository = read_repository(model_repo, serving_python(tritonserver), name)
    except RepositoryError as error:
        yield Check("repository", str(error), "a repository of `make repo`", False, error.remedy)
        return
    configuration = check_configuration(repository)
    yield configuration
    if not configuration.ok:
        return  # the others would read numbers where there are none
    yield check_ranks(repository)
    yield from check_large_files(repository)
    yield from check_vocabulary(repository)
    yield from check_hooks(repository)
    yield from check_parser(repository)
    if repository.engine is not None:
        yield from _trtllm(repository, world_size, here)
    else:
        yield check_server(tritonserver)
        yield from _python_engine(repository, world_size, here, thorough)


def _trtllm(repository: Repository, world_size: int, here: Here) -> Iterator[Check]:
    """What only TensorRT-LLM's own engines need."""
    engine = repository.engine
    assert engine is not None
    yield check_world_size(engine.tensor_parallel, engine.pipeline_parallel, world_size)
    yield check_heads(engine)
    yield check_inflight(repository, engine)
    yield check_engine_path(repository)
    yield check_release(engine)
    yield from check_gpus(repository, engine, here(engine.world_size))


def _python_engine(
    repository: Repository, world_size: int, here: Here, thorough: bool
) -> Iterator[Check]:
    """What the engine imports, and how it is split."""
    engine_type = repository.parameter("tensorrt_llm", "engine_type")
    if engine_type not in LIBRARIES:
        yield check_packages(repository)
        yield check_world_size(1, 1, world_size)
        return
    installed = find_library(repository.python, engine_type)
    yield from check_library(repository, engine_type, installed, thorough)
    split = check_split(repository, world_size)
    yield split
    if split.ok:
        yield from check_checkpoint_memory(
            repository, engine_type, world_size, here(world_size), installed
        )
