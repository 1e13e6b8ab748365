# SPDX-License-Identifier: Apache-2.0
"""Print, and run where it can, the container commands that serve a repository."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trellis.cli.options import (
    GrpcAddress,
    GrpcPort,
    HttpPort,
    MetricsAddress,
    MetricsPort,
    ModelRepo,
)
from trellis.contract.containers import vllm_image
from trellis.contract.model_names import ENSEMBLE, served_as
from trellis.data_folders import data_folder
from trellis.docker.commands import (
    DockerError,
    Serving,
    find_image,
    newest_release,
    run_or_print,
    serve_commands,
)
from trellis.engine_files.engine_folder import CHECKPOINT_ENGINES
from trellis.errors import TrellisError
from trellis.preflight.repository import Repository, read_repository
from trellis.preflight.served_checkpoint import engine_values
from trellis.repository.manifest import embedding_names, model_names

ANYWHERE = Path("/triton_model_repo")  # a Python engine finds its files wherever they are


def main(
    model_repo: ModelRepo = Path("triton_model_repo"),
    world_size: Annotated[
        int, typer.Option("--world_size", "--world-size", min=1, help="GPUs of a checkpoint")
    ] = 1,
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    address: Annotated[
        str, typer.Option(help="of this machine, to listen on for HTTP")
    ] = "127.0.0.1",
    grpc_address: GrpcAddress = "127.0.0.1",
    metrics_address: MetricsAddress = "127.0.0.1",
    image: Annotated[str, typer.Option(help="container, if it should be another")] = "",
    run: Annotated[str, typer.Option(help="1 runs it, 0 does not")] = "",
) -> None:
    """The launcher in the container of the engine's release, of the LLM API or of vLLM."""
    try:
        base, mount, ranks = _of_all(model_repo, world_size, image)
        serving = Serving(
            model_repo,
            mount,
            base,
            ranks,
            address,
            (http_port, grpc_port, metrics_port),
            grpc_address,
            metrics_address,
            f"{os.getuid()}:{os.getgid()}",
        )
        commands = serve_commands(serving, data_folder("requirements").parent)
    except TrellisError as error:
        print(f"serve_docker: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    raise typer.Exit(run_or_print(commands, run))


def _of_all(model_repo: Path, asked: int, given: str) -> tuple[str, Path, int]:
    """What serves every model of a repository. Raises DockerError if no container can."""
    if embedding := embedding_names(model_repo):
        raise DockerError(
            f"{model_repo}: {', '.join(embedding)} makes embeddings, which needs no container;"
            " `make launch` it, in a repository of its own if others need one"
        )
    found = {
        name: _what(read_repository(model_repo, name=name), asked, given)
        for name in model_names(model_repo)
    }
    base, mount, _ = next(iter(found.values()))
    mounts = {each[1] for each in found.values()} - {ANYWHERE}
    if any(each[0] != base for each in found.values()) or len(mounts) > 1:
        needs = "; ".join(f"{name}: {each[0]} at {each[1]}" for name, each in found.items())
        raise DockerError(
            f"{model_repo}: its models do not fit into one container ({needs}); give IMAGE= if one"
            " has all, or make repositories of their own"
        )
    return base, next(iter(mounts), mount), max(each[2] for each in found.values())


def _what(repository: Repository, asked: int, given: str) -> tuple[str, Path, int]:
    """Container, mount and ranks. Raises DockerError for a repository that needs no container."""
    engine = repository.engine
    engine_type = repository.parameter("tensorrt_llm", "engine_type")
    if engine is None and engine_type not in CHECKPOINT_ENGINES:
        raise DockerError(f"{repository.path}: its engine needs no container; `make launch` it")
    if any(file.is_symlink() for file in repository.engine_folder.iterdir()):
        raise DockerError(
            f"{repository.path}: its engine is a symbolic link, which leads nowhere in a"
            " container; `make repo ENGINE_COPY=link`"
        )
    if engine is not None:
        mount = mount_of(repository.parameter("tensorrt_llm", "gpt_model_path"), repository.name)
        return find_image(engine.version, given), mount, engine.world_size
    values = engine_values(repository)
    tensor = values.get("tensor_parallel_size") or 1
    ranks = max(asked, tensor * (values.get("pipeline_parallel_size") or 1))
    if engine_type == "vllm":
        return given or vllm_image(), ANYWHERE, ranks
    return find_image(newest_release(), given), ANYWHERE, ranks


def mount_of(engine_dir: str, name: str = ENSEMBLE) -> Path:
    """Where the repository has to be mounted for the engine to be found there."""
    path = Path(engine_dir)
    if path.parts[-2:] != (served_as("tensorrt_llm", name), "1"):
        raise DockerError(
            f"engine_dir is {engine_dir}, which is not in the repository; `make repo` without"
            " SET=engine_dir"
        )
    return path.parents[1]
