# SPDX-License-Identifier: Apache-2.0
"""What vLLM is told of its workers: how many, on which hosts, on which cores of a CPU."""

import os
from pathlib import Path
from typing import Any

from vllm.platforms import current_platform

from trellis.engine_host.engines.engine import EngineSettings
from trellis.engine_host.engines.topology import Topology

BIND = "VLLM_CPU_OMP_THREADS_BIND"
# What the repository and the launcher decide.
OURS = {
    "tensor_parallel_size": "TP= and --world_size N",
    "pipeline_parallel_size": "PP= and --world_size N",
    **dict.fromkeys(("nnodes", "node_rank", "master_addr"), "the launcher, which knows the hosts"),
    "master_port": "MASTER_PORT=, for the launcher",
}


def parallel_arguments(settings: EngineSettings, topology: Topology) -> dict[str, Any]:
    """The library's arguments; none for one worker."""
    workers = settings.tensor_parallel_size * settings.pipeline_parallel_size
    if workers == 1:
        return {}
    arguments: dict[str, Any] = {
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "distributed_executor_backend": "mp",  # processes, which a keeper can end
    }
    if topology.hosts > 1:
        arguments |= {
            "nnodes": topology.hosts,
            "node_rank": topology.host,
            "master_addr": topology.leader,
            "master_port": topology.port,
        }
    return arguments


def share_cores(settings: EngineSettings, topology: Topology) -> None:
    """Give each worker of this host cores of its own, where vLLM wants a NUMA node for each.

    Must be called before the library starts them. `VLLM_CPU_OMP_THREADS_BIND` overrides it.
    """
    workers = settings.tensor_parallel_size * settings.pipeline_parallel_size // topology.hosts
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    if os.environ.get(BIND) or workers <= max(nodes, 1) or not current_platform.is_cpu():
        return
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // workers
    parts = [cores[worker * each : (worker + 1) * each] for worker in range(workers)]
    os.environ[BIND] = "|".join(",".join(map(str, part)) for part in parts) if each else "nobind"
