# SPDX-License-Identifier: Apache-2.0
"""Launch tritonserver on a model repository, and stay with it: everything started is stopped."""

import importlib.util
import os
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from trellis.cli.options import (
    AllowedHost,
    ApiKeys,
    CorsOrigin,
    GrpcPort,
    HttpPort,
    MetricsPort,
    TlsCert,
    TlsClientCa,
    TlsKey,
)
from trellis.contract.metrics import NAMES
from trellis.errors import TrellisError
from trellis.gateway.access.check import check_access
from trellis.preflight import Listening, run_checks
from trellis.ranks.follow import follow
from trellis.ranks.launch import run_ranks
from trellis.ranks.llm_api import needs_mpi, run_by_mpi
from trellis.ranks.options import RankOptions, check_options
from trellis.ranks.peers import Peers
from trellis.ranks.workers import Workers, cpp_engines, read_workers
from trellis.repository.manifest import embedding_names, model_names
from trellis.server.access_settings import AccessSettings
from trellis.server.allocator import Allocator
from trellis.server.gateway_settings import MAX_WORKERS
from trellis.server.loading import LOAD_TIMEOUT
from trellis.server.ports import check_ports
from trellis.server.process import Server
from trellis.server.restarts import LOADS, keep_serving
from trellis.server.settings import DRAIN_TIMEOUT, HANG_TIMEOUT, ServerFailed, ServerSettings
from trellis.server.shown_log import ShownLog
from trellis.server.signals import reload_signals, stop_signals
from trellis.server.triton_options import check_extra


class LogFormat(str, Enum):
    """How the gateway writes its log; `none`: without a line for each request."""

    text = "text"
    json = "json"
    none = "none"


def main(
    world_size: Annotated[int, typer.Option("--world_size", "--world-size", min=1)] = 1,
    model_repo: Annotated[
        Path, typer.Option("--model_repo", "--model-repo", exists=True, file_okay=False)
    ] = Path("triton_model_repo"),
    tritonserver: Annotated[str, typer.Option(help="path of the server binary")] = "",
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    address: Annotated[
        str, typer.Option(help="where to listen for HTTP; 0.0.0.0 for every interface")
    ] = "127.0.0.1",
    grpc_address: Annotated[
        str,
        typer.Option(
            "--grpc_address",
            "--grpc-address",
            help="where to listen for gRPC, whose clients must be trusted",
        ),
    ] = "127.0.0.1",
    metrics_address: Annotated[
        str,
        typer.Option(
            "--metrics_address", "--metrics-address", help="where the metrics page is served"
        ),
    ] = "127.0.0.1",
    log: Annotated[bool, typer.Option("--log", help="verbose server log into --log-file")] = False,
    log_file: Annotated[Path, typer.Option("--log-file", "--log_file")] = Path("triton_log.txt"),
    force: Annotated[
        bool, typer.Option("--force", help="launch without looking whether the ports are free")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="whether to check first that it will run")
    ] = True,
    no_mpi: Annotated[
        bool, typer.Option("--no-mpi", "--no_mpi", help="only with one rank, which needs no mpirun")
    ] = False,
    oversubscribe: Annotated[
        bool, typer.Option("--oversubscribe", help="allow mpirun more ranks than cores")
    ] = False,
    hostfile: Annotated[Path | None, typer.Option(help="the hosts, in mpirun's form")] = None,
    nodes: Annotated[str, typer.Option(help="the hosts: a,b or a:4,b:4")] = "",
    models: Annotated[
        str,
        typer.Option(
            "--tensorrt_llm_model_name",
            "--tensorrt-llm-model-name",
            help="what ranks above 0 load; several with commas; default: each C++ engine",
        ),
    ] = "",
    multi_model: Annotated[
        bool, typer.Option("--multi-model", help="several TensorRT-LLM models in one server")
    ] = False,
    disable_spawn_processes: Annotated[
        bool,
        typer.Option("--disable-spawn-processes", help="with --multi-model: workers on the ranks"),
    ] = False,
    http_gateway: Annotated[
        bool,
        typer.Option(
            "--http_gateway/--no-http_gateway",
            "--http-gateway/--no-http-gateway",
            help="whether HTTP clients come through a gateway that checks JSON and notices those"
            " that hang up",
        ),
    ] = True,
    gateway_decoding: Annotated[
        bool,
        typer.Option(
            "--gateway_decoding/--no-gateway_decoding",
            "--gateway-decoding/--no-gateway-decoding",
            help="whether the gateway does what the plugins do, at a third of the CPU a chunk",
        ),
    ] = True,
    short_way: Annotated[
        bool,
        typer.Option(
            "--short_way/--no-short_way",
            "--short-way/--no-short-way",
            help="whether the gateway asks a Python engine by its own socket, past Triton, at a"
            " fraction of the CPU a chunk",
        ),
    ] = True,
    page: Annotated[
        bool,
        typer.Option("--page/--no-page", help="whether / and /status are pages for a browser"),
    ] = True,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            "--log-format", "--log_format", help="of the gateway's lines, one for each request"
        ),
    ] = LogFormat.text,
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts", "--log_prompts", help="have the line of a request its prompt"
        ),
    ] = False,
    otlp_endpoint: Annotated[
        str,
        typer.Option(
            "--otlp-endpoint",
            "--otlp_endpoint",
            help="where OpenTelemetry's spans are sent over OTLP: http://host:4318",
        ),
    ] = "",
    metrics_names: Annotated[
        str,
        typer.Option(
            "--metrics_names",
            "--metrics-names",
            help="whose names the metrics page has, too: vllm, nvidia, otel, several with commas",
        ),
    ] = "",
    allocator: Annotated[
        Allocator, typer.Option(help="malloc of the server's processes, if it is installed")
    ] = Allocator.glibc,
    allow_admin_endpoints: Annotated[
        bool,
        typer.Option(
            "--allow_admin_endpoints",
            "--allow-admin-endpoints",
            help="let clients use shared memory, model control, log settings and traces",
        ),
    ] = False,
    expose_inner_models: Annotated[
        bool,
        typer.Option(
            "--expose_inner_models",
            "--expose-inner-models",
            help="let HTTP clients ask models that are no ensembles, such as preprocessing",
        ),
    ] = False,
    gateway_limit: Annotated[
        list[str] | None,
        typer.Option(
            "--gateway_limit",
            "--gateway-limit",
            metavar="NAME=VALUE",
            help="another limit of the gateway, as docs/gateway.md names it; may be repeated",
        ),
    ] = None,
    gateway_workers: Annotated[
        int,
        typer.Option(
            "--gateway_workers",
            "--gateway-workers",
            min=1,
            max=MAX_WORKERS,
            help="processes of the gateway, where one is not enough for a machine's streams",
        ),
    ] = 1,
    drain_timeout: Annotated[
        float,
        typer.Option(
            "--drain_timeout",
            "--drain-timeout",
            min=0,
            help="seconds that running requests have to end in once asked to stop; new ones get"
            " 503",
        ),
    ] = DRAIN_TIMEOUT,
    api_keys: ApiKeys = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_client_ca: TlsClientCa = None,
    cors_origin: CorsOrigin = None,
    allowed_host: AllowedHost = None,
    exit_timeout: Annotated[
        int,
        typer.Option(
            "--exit_timeout",
            "--exit-timeout",
            min=0,
            help="seconds that the models have to end in, after --drain_timeout",
        ),
    ] = 5,
    hang_timeout: Annotated[
        float,
        typer.Option(
            "--hang_timeout",
            "--hang-timeout",
            min=0,
            help="seconds without progress of a process of the server after which all is ended"
            " with an error; 0 for never",
        ),
    ] = HANG_TIMEOUT,
    restart: Annotated[
        int,
        typer.Option(
            min=0,
            help="how often a server that died or hung is started anew behind its gateway, which"
            " says 503 meanwhile; 0: the launcher ends with status 1",
        ),
    ] = 0,
    load_timeout: Annotated[
        float,
        typer.Option(
            "--load_timeout",
            "--load-timeout",
            min=0,
            help="seconds that the models may take to load; 0 for no limit",
        ),
    ] = LOAD_TIMEOUT,
    triton_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTIONS]", help="options of tritonserver itself, after --: --log-info=0"
        ),
    ] = None,
) -> None:
    """Launch tritonserver, report when every model is ready, stop it with Ctrl-C or SIGTERM.

    A second of these ends at once what still runs.

    Exit status: 0 if it was asked to stop, 1 if the server or a model's process died or hung.
    """
    limits = _limits(gateway_limit or [])
    options = RankOptions(
        world_size=world_size,
        models=_loaded_by_ranks(models, model_repo),
        oversubscribe=oversubscribe,
        hostfile=hostfile,
        nodes=nodes,
        multi_model=multi_model,
        spawn_processes=not disable_spawn_processes,
    )
    settings = ServerSettings(
        model_repo=model_repo,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        address=address,
        grpc_address=grpc_address,
        metrics_address=metrics_address,
        tritonserver=tritonserver,
        log_verbose=3 if log else 0,
        log_file=log_file if log else None,
        gateway_workers=gateway_workers,
        drain_timeout=drain_timeout,
        exit_timeout=exit_timeout,
        hang_timeout=hang_timeout,
        load_timeout=load_timeout,
        extra=tuple(triton_options or ()),
        http_gateway=http_gateway,
        gateway_decoding=gateway_decoding,
        short_way=short_way,
        page=page,
        log_format=log_format.value,
        log_prompts=log_prompts,
        otlp_endpoint=_otlp_endpoint(otlp_endpoint),
        metrics_names=_metrics_names(metrics_names),
        allocator=allocator.value,
        allow_admin_endpoints=allow_admin_endpoints,
        expose_inner_models=expose_inner_models,
        gateway_limits=limits,
        access=AccessSettings(
            api_keys=str(api_keys or ""),
            tls_cert=str(tls_cert or ""),
            tls_key=str(tls_key or ""),
            tls_client_ca=str(tls_client_ca or ""),
            cors_origins=tuple(cors_origin or ()),
            allowed_hosts=tuple(allowed_host or ()),
        ),
    )
    try:
        check_access(settings.access)
        check_options(options)
        check_extra(settings.extra)
        workers = read_workers(model_repo, options)
        if restart:
            _check_restart(workers, options)
        follows = workers is not None and workers.follows
        listening = None if force or follows else Listening.of(settings)
        if check:
            preflight(settings, options, no_mpi, listening)
        elif listening is not None:
            check_ports(listening.places)
        if workers is not None:
            run_workers(settings, workers, options, restart)
        elif world_size > 1:
            with stop_signals() as stopped:
                run_ranks(settings, options, no_mpi, lambda: bool(stopped))
        else:
            os.environ.update(options.environment())
            run(settings, restarts=restart)
    except TrellisError as error:
        _fail(str(error))
    except OSError as error:  # the disk is full, say
        _fail(
            f"the server could not be started: {error}; its temporary files are in"
            f" {tempfile.gettempdir()}, TMPDIR chooses another place"
        )


def preflight(
    settings: ServerSettings, ranks: RankOptions, no_mpi: bool, listening: Listening | None
) -> None:
    """Say all that would fail, and stop there."""
    checks = run_checks(settings.model_repo, ranks, listening, settings.tritonserver, no_mpi)
    failing = [check for check in checks if not check.ok]
    for warned in (check for check in checks if check.warns):
        print(f"launch_triton_server: warning: {warned}", file=sys.stderr)
    for failed in failing:
        print(f"launch_triton_server: {failed}", file=sys.stderr)
    if failing:
        _fail(f"{len(failing)} of {len(checks)} checks failed; --no-check launches all the same")


def run_workers(
    settings: ServerSettings, workers: Workers, options: RankOptions, restarts: int
) -> None:
    """Serve, or on a host above the first follow, with the library's own workers."""
    os.environ.update(workers.environment())
    if workers.engine_type == "llmapi" and needs_mpi(options):
        with stop_signals() as stopped:
            again = [sys.executable, *sys.argv]
            run_by_mpi(options, again, settings.stop_seconds + 5.0, lambda: bool(stopped))
    elif workers.follows:
        with stop_signals() as stopped:
            print(follow(settings, workers, lambda: bool(stopped)), file=sys.stderr)
    elif workers.topology.hosts > 1:
        with Peers(workers.topology) as peers:
            run(settings, peers)
    else:
        run(settings, restarts=restarts)


def _check_restart(workers: Workers | None, options: RankOptions) -> None:
    """Fail where more than one tritonserver, or more than one host, would have to start anew."""
    ranks = workers is None and options.world_size > 1
    if ranks or (workers and (workers.topology.hosts > 1 or needs_mpi(options))):
        _fail("--restart: for one tritonserver on one host; here a supervisor has to restart all")


def run(settings: ServerSettings, peers: Peers | None = None, restarts: int = 0) -> None:
    """Start, wait for readiness, watch until asked to stop.

    Raises ServerFailed if it dies more often than `restarts` says.
    """
    console = Console(stderr=True)
    with (
        stop_signals() as stopped,
        reload_signals(settings.access.reloads) as reloads,
        ShownLog() as log,
        Server(settings, log.output) as server,
    ):

        def stopping() -> bool:
            if reloads:
                reloads.clear()
                server.reload()
            return bool(stopped) or bool(peers and peers.why)

        def ready(seconds: float) -> None:
            names = model_names(settings.model_repo) + embedding_names(settings.model_repo)
            urls = (f"{settings.url}/v2/models/{name}" for name in names)
            console.print(f"[green]ready[/] after {seconds:.1f} s: {' '.join(urls)}")
            if settings.page and server.gateway is not None:
                console.print(f"a page to try it: {settings.url}/")
                console.print(f"a page to watch it: {settings.url}/status")

        log.url = settings.url if server.gateway is not None else ""
        died = keep_serving(server, restarts, stopping, ready, loads=1 if peers else LOADS)
        if peers and peers.why and not peers.orderly:
            died = died or peers.why
        if died:
            server.stop(grace=0)
            raise ServerFailed(
                f"{died}; stopped the server, so that no client waits for an answer that"
                " cannot come"
            )
        server.drain(lambda: len(stopped) > 1)


def _loaded_by_ranks(given: str, model_repo: Path) -> tuple[str, ...]:
    """What ranks above 0 load: as given, or every engine of the C++ backend."""
    named = tuple(name.strip() for name in given.split(",") if name.strip())
    return named or cpp_engines(model_repo) or ("tensorrt_llm",)


def _limits(changed: list[str]) -> dict[str, float]:
    """Limits of the gateway by name, of NAME=VALUE. It knows which names there are."""
    limits: dict[str, float] = {}
    for one in changed:
        name, _, value = one.partition("=")
        try:
            number = float(value)
        except ValueError:
            _fail(f"--gateway_limit {one[:64]}: not NAME=VALUE with a number; see docs/gateway.md")
        limits[name.strip()] = int(number) if number.is_integer() else number
    return limits


def _metrics_names(given: str) -> tuple[str, ...]:
    """Whose names of metrics are wanted beside our own."""
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if name not in NAMES:
            _fail(f"--metrics_names {name[:64]}: not known; there are {', '.join(NAMES)}")
    return names


def _otlp_endpoint(given: str) -> str:
    """Where spans are sent, if that can be."""
    if given and not given.startswith(("http://", "https://")):
        _fail(f"--otlp-endpoint {given[:64]}: not a URL; send it as http://host:4318")
    if given and importlib.util.find_spec("opentelemetry") is None:
        _fail(
            f"--otlp-endpoint: OpenTelemetry is not installed: {sys.executable} -m pip install"
            " opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )
    return given


def _fail(message: str) -> NoReturn:
    print(f"launch_triton_server: {message}", file=sys.stderr)
    raise typer.Exit(1)
