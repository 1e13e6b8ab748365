"""Stands for triton_python_backend_utils, which exists only inside Triton's own stub process.

It keeps what was sent, so that tests can look at it; the real module is what the integration
tests run on.
"""

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np


@dataclass
class Tensor:
    name: str
    array: np.ndarray


class TritonError:
    INVALID_ARG, INTERNAL, CANCELLED = "INVALID_ARG", "INTERNAL", "CANCELLED"
    UNAVAILABLE = "UNAVAILABLE"

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        self.message, self.code = message, code


@dataclass
class InferenceResponse:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None

    def array(self, name: str) -> np.ndarray:
        return next(tensor.array for tensor in self.output_tensors if tensor.name == name)


class Outlet:
    """Takes answers that the test flushes itself."""

    def schedule(self, answer: Any) -> None:
        pass

    def step_ended(self) -> None:
        pass


class Sender:
    """A response sender: what was sent, and whether the final flag came, exactly once."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.sent: list[InferenceResponse] = []
        self.finals = 0
        self.calls = 0
        self.fail_at = fail_at
        self.gone = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("no room in shared memory")
        assert self.finals == 0, "sent after the final flag"
        if response is not None:
            self.sent.append(response)
        self.finals += flags

    def is_cancelled(self) -> bool:
        assert self.finals == 0, "asked after the final flag"
        return self.gone


def install() -> None:
    """Have `import triton_python_backend_utils` give this."""
    module: Any = ModuleType("triton_python_backend_utils")
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    module.Tensor, module.TritonError = Tensor, TritonError
    module.InferenceResponse = InferenceResponse
    sys.modules.setdefault("triton_python_backend_utils", module)
