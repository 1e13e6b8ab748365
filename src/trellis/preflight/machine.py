# SPDX-License-Identifier: Apache-2.0
"""This machine: a server that runs here, an engine's packages, /dev/shm, and free ports.

Through /dev/shm Triton talks to its Python models, and ranks talk to each other.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from trellis.preflight.check import Check
from trellis.preflight.repository import Repository
from trellis.server.file_limit import FEW, reachable_limit
from trellis.server.ports import PortTaken, check_ports
from trellis.server.settings import ServerSettings
from trellis.server.shared_memory import FOLDER as SHARED_MEMORY
from trellis.server.triton import TritonNotFound, find_triton

# Engine -> module -> package, as pip names it. Libraries of checkpoints: library.py.
PACKAGES = {
    "openvino": {
        "numpy": "numpy",
        "openvino": "openvino",
        "openvino_genai": "openvino-genai",
    },
}
SECONDS = 60
FIND = """
import importlib.util, json, sys
names = json.loads(sys.argv[1])
print(json.dumps([name for name in names if importlib.util.find_spec(name) is None]))
"""

MIB = 2**20
# Triton gives each Python model 1 MiB to begin with, and more as requests need it.
PYTHON_MODELS_MIB = 32
# What one rank of several needs for NCCL's buffers, as NVIDIA's own --shm-size examples allow.
RANK_MIB = 1024


def check_server(given: str = "") -> Check:
    """A tritonserver is found, with what it needs to run."""
    needed = "a tritonserver that runs here"
    try:
        return Check("server", str(find_triton(given).binary), needed, True)
    except TritonNotFound as error:
        cause, _, remedy = str(error).partition("; ")
        return Check("server", cause, needed, False, remedy or "`make setup`")


def check_packages(repository: Repository) -> Check:
    """What the engine imports is installed for the interpreter that will serve it."""
    engine = repository.parameter("tensorrt_llm", "engine_type")
    known = PACKAGES.get(engine, {})
    needed = f"{', '.join(known.values())}, which the engine {engine} imports"
    try:
        packages = missing_packages(repository.python, engine)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        remedy = "repair that Python: `make clean-venv setup`"
        return Check("packages", f"{repository.python}: {error}", needed, False, remedy)
    if not packages:
        return Check("packages", f"all, for {repository.python}", needed, True)
    remedy = f"{repository.python} -m pip install {' '.join(packages)}"
    found = f"no {', '.join(packages)} for {repository.python}"
    return Check("packages", found, needed, False, remedy)


def missing_packages(python: str, engine: str) -> list[str]:
    """What an engine imports and an interpreter does not have. Raises OSError and its like."""
    known = PACKAGES.get(engine, {})
    return [known[module] for module in _missing(python, list(known))]


def _missing(python: str, modules: list[str]) -> list[str]:
    done = subprocess.run(
        [python, "-c", FIND, json.dumps(modules)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    missing: list[str] = json.loads(done.stdout)
    return missing


def free_bytes() -> int:
    """Room in /dev/shm."""
    stat = os.statvfs(SHARED_MEMORY)
    return stat.f_bavail * stat.f_frsize


def needed_mib(world_size: int) -> int:
    """What serving on that many ranks takes, in MiB."""
    return PYTHON_MODELS_MIB + (RANK_MIB * world_size if world_size > 1 else 0)


def container_gib(world_size: int) -> int:
    """A container's --shm-size in GiB, with room to spare."""
    return max(needed_mib(world_size) // 1024 + 1, 2)


def check_shared_memory(ranks: int, free: int | None = None) -> Check:
    """Room for the Python models, and for every rank of this host where there are several."""
    needed = needed_mib(ranks)
    found = (free_bytes() if free is None else free) // MIB
    ok = found >= needed
    remedy = "" if ok else f"start the container with --shm-size={container_gib(ranks)}g"
    return Check("shared memory", f"{found} MiB free", f"{needed} MiB", ok, remedy)


@dataclass(frozen=True)
class Listening:
    """Where the server is to listen: an address and a port each."""

    http: tuple[str, int]
    grpc: tuple[str, int]
    metrics: tuple[str, int]

    @classmethod
    def of(cls, settings: ServerSettings) -> "Listening":
        """Of a server that is to be launched."""
        return cls(
            (settings.address, settings.http_port),
            (settings.grpc_address, settings.grpc_port),
            (settings.metrics_address, settings.metrics_port),
        )

    @property
    def places(self) -> dict[str, tuple[str, int]]:
        """Each by the name of the option that sets its port."""
        return {"http_port": self.http, "grpc_port": self.grpc, "metrics_port": self.metrics}


def check_listening(listening: Listening) -> Iterator[Check]:
    """Each port can be bound."""
    places = listening.places.values()
    needed = f"free on {', '.join(dict.fromkeys(address for address, _ in places))}"
    try:
        check_ports(listening.places)
        yield Check("ports", ", ".join(str(port) for _, port in places), needed, True)
    except PortTaken as error:
        cause, _, remedy = str(error).partition("; ")
        yield Check("ports", cause, needed, False, remedy)


def check_open_files(limit: int | None = None) -> Check:
    """More files may be open than a thousand clients need; the launcher raises the soft limit."""
    found = reachable_limit() if limit is None else limit
    remedy = f"`ulimit -n 65536` as root, or LimitNOFILE= of a service: {FEW} serve 448 clients"
    return Check("open files", str(found), f"more than {FEW}", True, remedy if found <= FEW else "")
