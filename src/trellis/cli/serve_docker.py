# SPDX-License-Identifier: Apache-2.0
"""Print, and run where it can, the container command that serves a repository."""

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
from trellis.docker.commands import (
    DockerError,
    Serving,
    newest_release,
    run_or_print,
    serve_command,
)
from trellis.errors import TrellisError
from trellis.preflight.repository import Repository, read_repository

LLM_API = "llmapi"
ANYWHERE = Path("/triton_model_repo")  # a Python engine finds its files wherever they are


def main(
    model_repo: ModelRepo = Path("triton_model_repo"),
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
    """The command for the release of the engine in the repository, or for the LLM API."""
    try:
        release, mount, world_size = _what(read_repository(model_repo))
        ports = (http_port, grpc_port, metrics_port)
        serving = Serving(
            model_repo,
            mount,
            release,
            world_size,
            address,
            ports,
            grpc_address,
            metrics_address,
        )
        command = serve_command(serving, image)
    except TrellisError as error:
        print(f"serve_docker: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    raise typer.Exit(run_or_print([command], run))


def _what(repository: Repository) -> tuple[str, Path, int]:
    """Release, mount and ranks. Raises DockerError for a repository that needs no container."""
    engine = repository.engine
    if engine is None and repository.parameter("tensorrt_llm", "engine_type") != LLM_API:
        raise DockerError(f"{repository.path}: its engine needs no container; `make launch` it")
    if any(file.is_symlink() for file in repository.engine_folder.iterdir()):
        raise DockerError(
            f"{repository.path}: its engine is a symbolic link, which leads nowhere in a"
            " container; `make repo ENGINE_COPY=link`"
        )
    if engine is None:  # a checkpoint, which any release with the LLM API serves
        return newest_release(), ANYWHERE, 1
    mount = mount_of(repository.parameter("tensorrt_llm", "gpt_model_path"))
    return engine.version, mount, engine.world_size


def mount_of(engine_dir: str) -> Path:
    """Where the repository has to be mounted for the engine to be found there."""
    path = Path(engine_dir)
    if path.parts[-2:] != ("tensorrt_llm", "1"):
        raise DockerError(
            f"engine_dir is {engine_dir}, which is not in the repository; `make repo` without"
            " SET=engine_dir"
        )
    return path.parents[1]
