# SPDX-License-Identifier: Apache-2.0
"""Launching more than one rank: with mpirun, or as this host's share of them without."""

import dataclasses
import os
from collections.abc import Callable, Mapping

from trellis.engine_host.engines.ranks import DEFAULT_PORT
from trellis.ranks.group import RankGroup
from trellis.ranks.options import (
    Host,
    RankOptions,
    find_host,
    mpirun_command,
    rank_command,
    rank_environment,
    share,
)
from trellis.server.ports import free_ports
from trellis.server.process import ServerFailed, ServerSettings

Command = tuple[list[str], Mapping[str, str]]


def run_ranks(
    settings: ServerSettings, options: RankOptions, no_mpi: bool, stopping: Callable[[], bool]
) -> None:
    """Start the ranks and stay with them until asked to stop or rank 0 left.

    Raises RanksError for what cannot be started, ServerFailed once all are stopped because one
    died.
    """
    settings = dataclasses.replace(settings, name=f"g{os.getpid()}-")
    commands = _commands(settings, options, no_mpi)
    with RankGroup(commands, settings.name, grace=settings.exit_timeout + 5.0) as group:
        status = group.wait(stopping)
    if status:
        raise ServerFailed(
            "a rank died (its last lines are above); stopped all of them, so that none waits for it"
        )


def _commands(settings: ServerSettings, options: RankOptions, no_mpi: bool) -> list[Command]:
    host = find_host()
    if not no_mpi and not host.by:
        environment = {
            "MASTER_ADDR": options.first_host,
            "MASTER_PORT": str(_meeting_port(Host(leader=options.first_host))),
            **options.environment(),
        }
        return [(mpirun_command(settings, options, {**os.environ, **environment}), environment)]
    local = share(host, options.world_size)
    port = _meeting_port(host)
    return [
        (
            rank_command(settings, rank, options),
            rank_environment(rank, local, options.world_size, host.leader, port)
            | options.environment(),
        )
        for rank in local
    ]


def _meeting_port(host: Host) -> int:
    """Where the ranks meet: MASTER_PORT if set; else one free here, or one that all hosts know."""
    given = os.environ.get("MASTER_PORT")
    if given:
        return int(given)
    return free_ports(1)[0] if host.leader in ("127.0.0.1", "localhost") else DEFAULT_PORT
