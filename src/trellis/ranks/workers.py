# SPDX-License-Identifier: Apache-2.0
"""Engines whose library has workers of its own: one tritonserver, `--world_size` workers.

On several hosts the launcher runs once on each. The first host's serves; the others start the
library's own worker command, for as many of the workers each. Which host this is, Slurm or a
LeaderWorkerSet say in the environment, or --nodes and --hostfile do. No ssh, no mpirun: that is
vLLM's way; for TensorRT-LLM's see `llm_api.py`.
"""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trellis.contract.model_names import served_as
from trellis.engine_files.parallel import check_parallel
from trellis.engine_host.engines.engine_arguments import given_arguments
from trellis.engine_host.engines.kinds import WITH_WORKERS
from trellis.engine_host.engines.topology import DEFAULT_PORT, Topology
from trellis.files import read_json
from trellis.ranks.llm_api import check_hosts, needs_mpi
from trellis.ranks.options import Host, RankOptions, RanksError, find_host, share
from trellis.ranks.placement import host_slots, is_here
from trellis.repository.manifest import model_names
from trellis.repository.model_config import parameters, parse_config

CPP_BACKEND = "tensorrtllm"
ENGINE = "tensorrt_llm"  # the part of a model that its engine runs in


@dataclass(frozen=True)
class Workers:
    """What the workers of a repository's engine are started from, and where."""

    engine_type: str
    topology: Topology
    folder: Path  # of the model's version, absolute
    parameters: Mapping[str, str]
    max_batch_size: int

    @property
    def follows(self) -> bool:
        """Whether this host has workers alone."""
        return self.topology.host > 0

    def environment(self) -> dict[str, str]:
        """What the processes of this host are told; what the user set stays.

        Where hosts have several networks, the libraries take the one that leads to the first host.
        """
        variables = self.topology.environment()
        if self.topology.hosts == 1:
            return variables
        address = own_address(self.topology.leader)
        chosen = {"VLLM_HOST_IP": address, "GLOO_SOCKET_IFNAME": interface(address)}
        kept = {name: value for name, value in chosen.items() if value and name not in os.environ}
        return variables | kept


def read_workers(
    model_repo: Path, options: RankOptions, environ: Mapping[str, str] = os.environ
) -> Workers | None:
    """The workers of a repository; None if its engines have none, or the repository is broken.

    Of several models on one host, which share its GPUs, those of the first. Raises RanksError for
    a world size or hosts that cannot be.
    """
    names = model_names(model_repo)
    found = {name: _read_workers(model_repo, name, options, environ) for name in names}
    having = {name: workers for name, workers in found.items() if workers is not None}
    if not having:
        return None
    first = next(iter(having.values()))
    if len(having) > 1 and (first.topology.hosts > 1 or needs_mpi(options, environ)):
        raise RanksError(
            f"{', '.join(having)}: on several hosts one model has workers, which meet at one port;"
            " serve each from a repository of its own"
        )
    ranked = cpp_engines(model_repo) if options.world_size > 1 else ()
    if ranked:
        raise RanksError(
            f"--world_size {options.world_size}: {', '.join(ranked)} would have ranks under mpirun,"
            f" {', '.join(having)} workers of its library; serve them from two repositories"
        )
    return first


def cpp_engines(model_repo: Path) -> tuple[str, ...]:
    """The Triton models of a repository that the C++ backend runs: what each rank loads."""
    engines = (served_as(ENGINE, name) for name in model_names(model_repo))
    configs = {engine: _config(model_repo, engine) for engine in engines}
    return tuple(
        engine
        for engine, config in configs.items()
        if config is not None and config.backend == CPP_BACKEND
    )


def _config(model_repo: Path, model: str) -> ModelConfig | None:
    try:
        return parse_config((model_repo / model / "config.pbtxt").read_text())
    except (OSError, ValueError):
        return None  # preflight says what is wrong with it, else Triton


def _read_workers(
    model_repo: Path, name: str, options: RankOptions, environ: Mapping[str, str]
) -> Workers | None:
    """The workers of one model; see `read_workers`."""
    engine = served_as(ENGINE, name)
    config = _config(model_repo, engine)
    if config is None:
        return None
    named = parameters(config)
    engine_type = named.get("engine_type", "")
    if engine_type not in WITH_WORKERS:
        return None
    host = check_hosts(options, environ) if engine_type == "llmapi" else this_host(options, environ)
    workers = Workers(
        engine_type,
        Topology(
            options.world_size,
            host.count,
            host.index,
            host.leader,
            int(environ.get("MASTER_PORT") or DEFAULT_PORT),
        ),
        (model_repo / engine / "1").resolve(),
        named,
        max(config.max_batch_size, 1),
    )
    _check_sizes(workers)
    return workers


def this_host(options: RankOptions, environ: Mapping[str, str] = os.environ) -> Host:
    """This host among those that run a launcher each. Raises RanksError if it is none of them."""
    host = find_host(environ)
    if not host.by and (options.nodes or options.hostfile is not None):
        host = _listed_host(list(host_slots(options)), "--nodes" if options.nodes else "--hostfile")
    share(host, options.world_size)
    return host


def _listed_host(names: list[str], option: str) -> Host:
    here = [index for index, name in enumerate(names) if is_here(name)]
    if not here:
        raise RanksError(
            f"{option}: none of {', '.join(names)} is this host; run the launcher on each of them"
        )
    return Host(here[0], len(names), names[0], option)


def _check_sizes(workers: Workers) -> None:
    """Raise RanksError for a world size that the model cannot be split into, with those it can."""
    folder = workers.folder

    def size(name: str) -> int | None:
        text = workers.parameters.get(name, "")
        return int(text) if text.isdigit() else None

    asked = workers.topology.world_size
    try:
        tensor, pipeline = workers.topology.sizes(
            size("tensor_parallel_size"), size("pipeline_parallel_size")
        )
    except ValueError as error:
        raise RanksError(str(error)) from None
    try:
        config = read_json(folder / "config.json")
        whole = bool(given_arguments(folder).get("enable_expert_parallel"))
        check_parallel(config, tensor, pipeline, expert_parallel=whole)
    except OSError:
        return  # preflight names the file
    except ValueError as error:
        raise RanksError(f"--world_size {asked}: {error}") from None


def worker_command(workers: Workers, python: str) -> list[str]:
    """What runs this host's workers, with the repository's own code, as the server does."""
    boot = (
        "import sys; sys.path[0] = sys.argv[1];"
        " from trellis.engine_host.engines.worker_main import main; main(*sys.argv[1:])"
    )
    about = json.dumps(
        {
            "engine_type": workers.engine_type,
            "parameters": dict(workers.parameters),
            "max_batch_size": workers.max_batch_size,
        }
    )
    return [python, "-c", boot, str(workers.folder), about]


def own_address(leader: str) -> str:
    """This host's address on the network that leads to the first host; '' if none does."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            leader, DEFAULT_PORT, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def interface(address: str) -> str:
    """The name of the interface that has an address; '' if none does, or only loopback does."""
    for name, addresses in psutil.net_if_addrs().items():
        if name != "lo" and any(each.address == address for each in addresses):
            return name
    return ""
