# SPDX-License-Identifier: Apache-2.0
"""Which rank this process is, of how many, and where rank 0 is.

Read from what `launch_triton_server.py` or `mpirun` sets: torch's own names first, then Open MPI's.
A lone process has neither and is rank 0 of 1.

    {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1"} -> Place(rank=1, world_size=2, ...)
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_PORT = 29500

# Field -> environment variables, the first that is set counts.
VARIABLES = {
    "rank": ("RANK", "OMPI_COMM_WORLD_RANK"),
    "world_size": ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"),
    "local_rank": ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "local_size": ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
}


@dataclass(frozen=True)
class Place:
    """A rank among its peers; `local_*` counts those of its own machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    leader: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Place":
        """From the environment. Raises ValueError for numbers that cannot be."""
        found = {
            field: int(environ[name])
            for field, names in VARIABLES.items()
            for name in reversed(names)
            if environ.get(name)
        }
        place = cls(
            **found,
            leader=environ.get("MASTER_ADDR") or "127.0.0.1",
            port=int(environ.get("MASTER_PORT") or DEFAULT_PORT),
        )
        if not 0 <= place.rank < place.world_size:
            raise ValueError(f"rank {place.rank} of {place.world_size}: check RANK and WORLD_SIZE")
        return place

    def export(self) -> None:
        """Set torch's names, which the libraries read for themselves."""
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK=str(self.local_rank),
            LOCAL_WORLD_SIZE=str(self.local_size),
            MASTER_ADDR=self.leader,
            MASTER_PORT=str(self.port),
        )


def sizes_that_divide(*heads: int) -> list[int]:
    """The world sizes that split every one of these numbers of heads: (9, 3) -> [1, 3]."""
    return [size for size in range(1, min(heads) + 1) if all(count % size == 0 for count in heads)]
