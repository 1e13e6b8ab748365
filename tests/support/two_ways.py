"""One server behind two gateways: one asks by the step socket, one by Triton's HTTP port."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from support.gateway_process import gateway

FLOATS = ("cum_log_probs", "output_log_probs")


@contextmanager
def two_ways(
    command: Sequence[str], pid: int, repo: str
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the step socket's gateway and of the other's.

    Args:
        command: tritonserver's, which names its HTTP port.
        pid: of that process.
        repo: its model repository.
    """
    (port,) = (int(word.partition("=")[2]) for word in command if word.startswith("--http-port="))
    with (
        gateway(port, pid, model_repo=repo) as short,
        gateway(port, pid, model_repo=repo, short_way=False) as triton,
        httpx.Client(base_url=f"http://127.0.0.1:{short.port}", timeout=120) as one,
        httpx.Client(base_url=f"http://127.0.0.1:{triton.port}", timeout=120) as other,
    ):
        yield one, other


def same(value: Any) -> Any:
    """JSON with its log probabilities as 32-bit floats: Triton's last digits are others."""
    if not isinstance(value, dict):
        return value
    return {
        name: np.array(part, np.float32).tolist() if name in FLOATS else part
        for name, part in value.items()
    }
