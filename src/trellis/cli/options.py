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
ApiKeys = Annotated[
    Path | None,
    typer.Option(
        "--api_keys",
        "--api-keys",
        envvar="TRELLIS_API_KEYS",
        exists=True,
        dir_okay=False,
        help="file of API keys, which trellis keys makes; read again on SIGHUP",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls_cert",
        "--tls-cert",
        exists=True,
        dir_okay=False,
        help="certificate and its chain for HTTPS, PEM; read again on SIGHUP",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        "--tls_key", "--tls-key", exists=True, dir_okay=False, help="its private key, PEM"
    ),
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        "--tls_client_ca",
        "--tls-client-ca",
        exists=True,
        dir_okay=False,
        help="whose certificates clients need, PEM; health is answered without one",
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--cors_origin",
        "--cors-origin",
        metavar="ORIGIN",
        help="whose pages may ask, as https://app.example; * for all; may be repeated",
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed_host",
        "--allowed-host",
        metavar="NAME",
        help="a name that HTTP clients may ask by, beside those of loopback; *.example.com and *"
        " are possible; may be repeated",
    ),
]
