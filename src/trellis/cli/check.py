# SPDX-License-Identifier: Apache-2.0
"""Know before launch that a repository will run: check.py --model_repo triton_model_repo."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trellis.cli.options import (
    GrpcAddress,
    GrpcPort,
    HttpPort,
    MetricsAddress,
    MetricsPort,
    ModelRepo,
)
from trellis.preflight import Listening, run_checks
from trellis.preflight.check import show
from trellis.ranks.options import RankOptions, RanksError, check_options


def main(
    model_repo: ModelRepo = Path("triton_model_repo"),
    world_size: Annotated[int, typer.Option("--world_size", "--world-size", min=1)] = 1,
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    address: Annotated[
        str, typer.Option(help="where the server is to listen for HTTP")
    ] = "127.0.0.1",
    grpc_address: GrpcAddress = "127.0.0.1",
    metrics_address: MetricsAddress = "127.0.0.1",
    tritonserver: Annotated[str, typer.Option(help="path of the server binary")] = "",
    hostfile: Annotated[Path | None, typer.Option(help="the hosts, in mpirun's form")] = None,
    nodes: Annotated[str, typer.Option(help="the hosts: a,b or a:4,b:4")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Check a repository against this machine. Exit status 1 if anything would fail."""
    listening = Listening(
        (address, http_port), (grpc_address, grpc_port), (metrics_address, metrics_port)
    )
    ranks = RankOptions(world_size, hostfile=hostfile, nodes=nodes)
    try:
        check_options(ranks)
    except RanksError as error:
        print(f"check: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    with Console(stderr=True).status("checking; an engine's library may take minutes to import"):
        checks = run_checks(model_repo, ranks, listening, tritonserver, thorough=True)
    ok = all(check.ok for check in checks)
    if as_json:
        print(json.dumps({"ok": ok, "checks": [check.as_json() for check in checks]}, indent=1))
    else:
        show(checks, Console())
    raise typer.Exit(0 if ok else 1)
