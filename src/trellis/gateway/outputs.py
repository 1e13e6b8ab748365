# SPDX-License-Identifier: Apache-2.0
"""The outputs of a model, and the shapes of their values where JSON has none."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trellis.gateway.refusals import Refusal

TEXT = "text_output"


@dataclass(frozen=True)
class Output:
    """An output of an ensemble: its type, and the dims of one row (-1: any)."""

    name: str
    kind: str  # STRING, INT32, FP32, ...
    dims: tuple[int, ...]
    batched: bool

    @property
    def datatype(self) -> str:
        """The type as the protocol names it."""
        return "BYTES" if self.kind == "STRING" else self.kind

    def shape(self, count: int, rows: int, sequences: int) -> list[int]:
        """The shape of so many values, as the models give it over gRPC.

        Texts have one dimension, whatever the batch. Of two free dims the first is the sequences
        of a prompt. Raises Refusal where JSON does not tell.
        """
        if self.name == TEXT:
            return [count]
        width = math.prod(dim for dim in self.dims if dim > 0)
        free = self.dims.count(-1)
        rows = rows if self.batched and free else count // width if self.batched else 1
        sizes = [sequences] * (free - 1)
        sizes.append(count // max(1, rows * width * math.prod(sizes)))
        left = iter(sizes if free else ())
        shape = [next(left) if dim < 0 else dim for dim in self.dims]
        made = [rows, *shape] if self.batched else shape
        if free > 2 or math.prod(made) != count:
            raise Refusal(400, f"{self.name}: not possible by /infer over HTTP; ask by gRPC")
        return made


def read_outputs(config: Mapping[str, Any]) -> dict[str, Output]:
    """The outputs of a model by its configuration, as Triton gives it in JSON."""
    batched = int(config.get("max_batch_size", 0)) > 0
    return {
        tensor["name"]: Output(
            tensor["name"],
            tensor["data_type"].removeprefix("TYPE_"),
            tuple(int(dim) for dim in tensor["dims"]),
            batched,
        )
        for tensor in config.get("output", [])
    }
