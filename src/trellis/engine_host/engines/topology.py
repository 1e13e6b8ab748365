# SPDX-License-Identifier: Apache-2.0
"""How many workers an engine's library has, and on which hosts: what the launcher tells it.

    {"TRELLIS_TOPOLOGY": '{"world_size": 4}'} -> Topology(world_size=4)

A tritonserver that no launcher started is told nothing: then the model's parameters decide.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "TRELLIS_TOPOLOGY"
DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Topology:
    """Workers, as many on each host; host 0 has the server."""

    world_size: int = 0  # of all hosts; 0: as many as the parameters say
    hosts: int = 1
    host: int = 0
    leader: str = "127.0.0.1"  # host 0, as every host reaches it
    port: int = DEFAULT_PORT  # where the workers of several hosts meet

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Topology":
        """What the launcher said, the default if nothing."""
        return cls(**json.loads(environ.get(VARIABLE) or "{}"))

    def environment(self) -> dict[str, str]:
        """What says it to the processes below."""
        return {VARIABLE: json.dumps(dataclasses.asdict(self))}

    def sizes(self, tensor: int | None, pipeline: int | None) -> tuple[int, int]:
        """Tensor and pipeline parallel sizes, of those that the model's parameters name.

        Raises ValueError if the workers are not as many as these take.
        """
        pipeline = pipeline or 1
        world_size = self.world_size or (tensor or 1) * pipeline
        tensor = tensor or max(world_size // pipeline, 1)
        if tensor * pipeline != world_size:
            needed = tensor * pipeline
            raise ValueError(
                f"--world_size {world_size}: tensor_parallel_size {tensor} x pipeline_parallel_size"
                f" {pipeline} takes {needed}; launch with --world_size {needed}, or make the"
                " repository with other TP= and PP="
            )
        return tensor, pipeline
