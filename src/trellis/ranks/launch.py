# SPDX-License-Identifier: Apache-2.0
"""Launching the ranks of the C++ backend, which meet over MPI: mpirun starts them."""

import dataclasses
import os
from collections.abc import Callable

from trellis.ranks.group import RankGroup
from trellis.ranks.options import RankOptions, RanksError, find_host, mpirun_command
from trellis.server.settings import ServerFailed, ServerSettings


def run_ranks(
    settings: ServerSettings, options: RankOptions, no_mpi: bool, stopping: Callable[[], bool]
) -> None:
    """Start the ranks and stay with them until asked to stop or rank 0 left.

    Raises RanksError for what cannot be started, ServerFailed once all are stopped because one
    died.
    """
    _check_mpi(options, no_mpi)
    settings = dataclasses.replace(settings, name=f"g{os.getpid()}-")
    environment = options.environment()
    command = mpirun_command(settings, options, {**os.environ, **environment})
    grace = settings.stop_seconds + 5.0
    with RankGroup([(command, environment)], settings.name, grace) as group:
        status = group.wait(stopping)
    if status:
        raise ServerFailed(
            "a rank died (its last lines are above); stopped all of them, so that none waits for it"
        )


def _check_mpi(options: RankOptions, no_mpi: bool) -> None:
    """Raise RanksError where nothing would start the ranks in one MPI world."""
    if no_mpi:
        raise RanksError(
            f"--no-mpi: the {options.world_size} ranks of this engine meet over MPI; leave it out"
        )
    host = find_host()
    if host.count > 1:
        raise RanksError(
            f"--world_size {options.world_size}: {host.by} runs {host.count} launchers, but the"
            " ranks of this engine meet over MPI; run the launcher once, which starts them with"
            " mpirun: with --nodes or --hostfile, or in a Slurm allocation without srun"
        )
