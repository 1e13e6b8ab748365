# SPDX-License-Identifier: Apache-2.0
"""What a server is started with, and where tritonserver listens behind a gateway."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trellis.errors import TrellisError
from trellis.server.access_settings import NO_ACCESS_SETTINGS, AccessSettings
from trellis.server.gateway_settings import missing_package
from trellis.server.loading import LOAD_TIMEOUT
from trellis.server.ports import free_ports

HANG_TIMEOUT = 30.0
DRAIN_TIMEOUT = 15.0  # with what follows less than the 30 s that Kubernetes gives
MODEL_CONTROL = "model-control-mode"  # Triton's option by which models come and go


class ServerFailed(TrellisError, RuntimeError):
    """The server did not start, or ended by itself; the message says why."""


class LoadGivenUp(ServerFailed):
    """Triton gave up on a model that was still loading: a new start may go well."""


@dataclass(frozen=True)
class ServerSettings:
    """What a server is started with. Addresses are loopback unless asked otherwise."""

    model_repo: Path
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    address: str = "127.0.0.1"  # of HTTP
    grpc_address: str = "127.0.0.1"
    metrics_address: str = "127.0.0.1"
    tritonserver: str = ""
    log_verbose: int = 0
    log_file: Path | None = None
    extra: tuple[str, ...] = ()
    serves: bool = True  # whether it listens to clients; ranks above 0 do not
    models: tuple[str, ...] = ()  # load these alone; (): all of the repository
    drain_timeout: float = DRAIN_TIMEOUT  # seconds that requests in flight have to end in
    exit_timeout: int = 5  # seconds that models have to end in, after those
    name: str = ""  # goes into the names of its temporary files
    allow_admin_endpoints: bool = False  # shared memory, model control, log settings, traces
    http_gateway: bool = True  # whether HTTP clients come through trellis.gateway
    allocator: str = "glibc"  # or jemalloc, tcmalloc: see trellis.server.allocator
    gateway_decoding: bool = True  # whether the gateway makes text of ids, or `postprocessing`
    short_way: bool = True  # whether the gateway asks Python engines past Triton
    page: bool = True  # whether the gateway has a page at /
    hang_timeout: float = HANG_TIMEOUT  # seconds without progress after which it ends; 0: never
    log_format: str = "none"  # of the gateway: text, json, or no line for a request
    otlp_endpoint: str = ""  # where the gateway sends spans; "": there are none
    log_prompts: bool = False  # whether those lines have prompts
    metrics_names: tuple[str, ...] = ()  # of others, see trellis.contract.metrics
    load_timeout: float = LOAD_TIMEOUT  # seconds that loading may take; 0: no limit
    expose_inner_models: bool = False  # whether HTTP clients may ask models that are no ensembles
    gateway_limits: Mapping[str, float] = field(default_factory=dict)  # changed ones, by name
    gateway_workers: int = 1  # processes of the gateway
    access: AccessSettings = NO_ACCESS_SETTINGS  # who may ask the gateway

    @property
    def url(self) -> str:
        """Where HTTP clients on this machine reach the server."""
        host = "127.0.0.1" if self.address == "0.0.0.0" else self.address
        scheme = "https" if self.access.tls_cert else "http"
        return f"{scheme}://{host}:{self.http_port}"

    @property
    def stop_seconds(self) -> float:
        """That an orderly stop may take, but for the moments of the launcher itself."""
        return self.drain_timeout + self.exit_timeout

    @property
    def loads_at_run_time(self) -> bool:
        """Whether models come and go, by Triton's own option."""
        return any(MODEL_CONTROL in option for option in self.extra)

    def arguments(
        self, prefix: str, behind: "Behind | None" = None, models: Path | None = None
    ) -> list[str]:
        """The command line of tritonserver, but for the backends.

        `behind`: its ports if it is behind a gateway, which listens on `http_port`,
        `metrics_port` and, with API keys, `grpc_port`.
        `models`: a link to the repository, where Triton cannot take its own path.
        """
        arguments = [f"--model-repository={models or self.model_repo.resolve()}"]
        for name in ("http", "grpc", "metrics"):
            if not self.serves:
                arguments.append(f"--allow-{name}=false")
                continue
            address, port = self.place(name)
            if hidden := getattr(behind, name, 0):
                address, port = "127.0.0.1", hidden
            arguments += [f"--{name}-address={address}", f"--{name}-port={port}"]
        if self.models:
            arguments.append("--model-control-mode=explicit")
            arguments += [f"--load-model={model}" for model in self.models]
        arguments += [
            f"--exit-timeout-secs={self.exit_timeout}",
            "--disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            f"--log-verbose={self.log_verbose}",
        ]
        if self.log_file is not None:
            arguments.append(f"--log-file={self.log_file.resolve()}")
        if self.loads_at_run_time and not any("strict-readiness" in one for one in self.extra):
            arguments.append("--strict-readiness=false")  # an unloaded model is no fault
        return [*arguments, *self.extra]

    def place(self, name: str) -> tuple[str, int]:
        """Where `http`, `grpc` or `metrics` listens."""
        address = self.address if name == "http" else getattr(self, f"{name}_address")
        return address, getattr(self, f"{name}_port")


class Behind(NamedTuple):
    """The ports of loopback where tritonserver listens behind a gateway."""

    http: int
    metrics: int
    grpc: int  # 0: it listens for gRPC itself, as it does without API keys

    @classmethod
    def of(cls, settings: ServerSettings) -> "Behind":
        """Free ones."""
        http, metrics, grpc = free_ports(3)
        return cls(http, metrics, grpc if settings.access.api_keys else 0)


def has_gateway(settings: ServerSettings) -> bool:
    """Whether HTTP clients come through a gateway; says so where it is wanted and cannot be."""
    missing = missing_package()
    if settings.serves and settings.access != NO_ACCESS_SETTINGS:
        _check_has_gateway(settings, missing)
    if not (settings.serves and settings.http_gateway):
        return False
    if missing:
        print(
            f"no gateway: the package {missing} is not installed (pip install {missing} uvloop);"
            " HTTP goes straight to Triton, so that the requests of clients that hang up run to"
            " their end, and JSON of the wrong type is refused without the field's name",
            file=sys.stderr,
        )
    return not missing


def _check_has_gateway(settings: ServerSettings, missing: str) -> None:
    why = "" if settings.http_gateway else "--no-http_gateway: leave it out"
    if missing:
        why = f"the package {missing} is not installed: pip install {missing} uvloop"
    if why:
        raise ServerFailed(f"{why}; only the gateway asks for API keys, TLS, hosts and origins")
