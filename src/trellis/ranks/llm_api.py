# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's LLM API on several hosts: its workers meet over MPI.

The package has a command for that, which runs once a GPU: on the first it runs the command that it
is given, with a server of its own for the library; on the others it runs a worker.

    mpirun -n 16 --host a:8,b:8 trtllm-llmapi-launch python launch_triton_server.py --world_size 16

`--nodes` and `--hostfile` have the launcher start just that; srun can do so as well. Inside of it
the launcher is the only one, whatever number of hosts there is.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from trellis.ranks.group import RankGroup
from trellis.ranks.options import (
    EXPORTED,
    Host,
    RankOptions,
    RanksError,
    find_host,
    mpirun_start,
)
from trellis.server.settings import ServerFailed

COMMAND = "trtllm-llmapi-launch"
INSIDE, SIZE = "TLLM_SPAWN_PROXY_PROCESS", "tllm_mpi_size"  # what it sets


def is_inside(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the library's own command runs this launcher."""
    return environ.get(INSIDE) == "1"


def check_hosts(options: RankOptions, environ: Mapping[str, str] = os.environ) -> Host:
    """The only host that has a launcher. Raises RanksError where the workers would not meet."""
    size = options.world_size
    if is_inside(environ) and environ.get(SIZE, str(size)) != str(size):
        raise RanksError(
            f"--world_size {size}: {COMMAND} runs {environ[SIZE]} tasks; start as many"
        )
    host = find_host(environ)
    if not is_inside(environ) and host.count > 1:
        raise RanksError(
            f"--world_size {size}: {host.by} runs {host.count} launchers, but TensorRT-LLM's"
            f" workers meet over MPI; run a task a GPU: srun --mpi=pmix --ntasks={size} {COMMAND}"
            " python tools/launch_triton_server.py ..., or the launcher once, with --nodes"
        )
    return Host()


def needs_mpi(options: RankOptions, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the workers are on hosts that this launcher has to reach."""
    return bool(options.nodes or options.hostfile) and not is_inside(environ)


def mpi_command(
    options: RankOptions, launcher: Sequence[str], environ: Mapping[str, str] = os.environ
) -> list[str]:
    """mpirun with the library's command, which runs this launcher again on the first host.

    Raises RanksError for a word with a space, which the library's command takes for two.
    """
    for word in launcher:
        if len(word.split()) != 1:
            raise RanksError(
                f"{word!r}: {COMMAND} takes no argument with a space, and no empty one"
            )
    exported = [part for name in EXPORTED if name in environ for part in ("-x", name)]
    start = [*mpirun_start(options), "-n", str(options.world_size), *exported]
    return [*start, COMMAND, *launcher]


def run_by_mpi(
    options: RankOptions, launcher: Sequence[str], grace: float, stopping: Callable[[], bool]
) -> None:
    """Start it and stay with it. Raises ServerFailed if it ends in any other way than asked."""
    command = mpi_command(options, launcher)
    name = f"g{os.getpid()}-"
    with RankGroup([(command, {})], name, grace, asked=launcher[1]) as group:
        status = group.wait(stopping)
    if status is not None:
        raise ServerFailed(f"{COMMAND} ended with status {status} (its last lines are above)")
