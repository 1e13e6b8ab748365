# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ModelRepo = Annotated[Path, typer.Option("--model_repo", "--model-repo")]
HttpPort = Annotated[int, typer.Option("--http_port", "--http-port")]
GrpcPort = Annotated[int, typer.Option("--grpc_port", "--grpc-port")]
MetricsPort = Annotated[int, typer.Option("--metrics_port", "--metrics-port")]
GrpcAddress = Annotated[str, typer.Option("--grpc_address", "--grpc-address", help="for gRPC")]
MetricsAddress = Annotated[
    str, typer.Option("--metrics_address", "--metrics-address", help="for the metrics page")
]
