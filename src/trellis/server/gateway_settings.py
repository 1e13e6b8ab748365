# SPDX-License-Identifier: Apache-2.0
"""What the gateway's process is started with."""

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trellis.server.access_settings import NO_ACCESS_SETTINGS, AccessSettings

PACKAGES = ("httptools", "uvicorn", "starlette", "prometheus_client")
MAX_WORKERS = 32
IMPORTED_FROM = Path(__file__).resolve().parents[2]  # where the package itself is found


@dataclasses.dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, and the server behind it."""

    address: str
    port: int
    triton_port: int  # on loopback
    triton_pid: int  # its process, which the engine host's socket is named after
    drain_timeout: float  # seconds that answers in flight have to end in once it is asked to stop
    model_repo: str = ""  # whose ids it makes text of; "": `postprocessing` does
    expose_inner_models: bool = False  # whether clients may ask models that are no ensembles
    allow_admin_endpoints: bool = False  # shared memory, model control, log settings, traces
    admin_key: str = ""  # opens what Triton shuts to clients, see admin_endpoints.py; "": nothing
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)  # changed ones, by name
    short_way: bool = True  # whether Python engines are asked by their step sockets
    page: bool = True  # whether / is a page to try the server
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 0  # where the metrics page is served; 0: nowhere
    triton_metrics_port: int = 0  # on loopback, where Triton serves its own
    log_format: str = "none"  # or text, json: see trellis.gateway.logs
    otlp_endpoint: str = ""  # where spans are sent; "": there are none
    log_prompts: bool = False  # whether the line of a request has its prompt
    # Of others, see trellis.contract.metrics.
    metrics_names: list[str] = dataclasses.field(default_factory=list)
    access: AccessSettings = NO_ACCESS_SETTINGS  # who may ask
    grpc_address: str = "127.0.0.1"
    grpc_port: int = 0  # where gRPC is answered, too; 0: by Triton itself
    triton_grpc_port: int = 0  # on loopback
    workers: int = 1  # processes that share these ports

    @classmethod
    def of(cls, data: str) -> "GatewaySettings":
        """What `command` wrote."""
        found: dict[str, Any] = json.loads(data)
        return cls(**{**found, "access": AccessSettings.of(found["access"])})

    def command(self) -> list[str]:
        """The command of a gateway, to be run in IMPORTED_FROM."""
        return [sys.executable, "-m", "trellis.gateway", json.dumps(dataclasses.asdict(self))]


def missing_package() -> str:
    """The package that the gateway needs and that is not installed; '' if it can run."""
    return next((name for name in PACKAGES if not importlib.util.find_spec(name)), "")
