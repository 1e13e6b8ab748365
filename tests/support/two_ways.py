"""One server behind two gateways: one asks by the step socket, one by Triton's HTTP port."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from support.gateway_process import gateway


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


def joined(text: str) -> dict[str, Any]:
    """An answer's JSON, or that of all events of a stream: how chunks fall is up to the moment.

    Log probabilities as 32-bit floats: Triton's last digits are others.
    """
    found: dict[str, Any] = {}
    for line in filter(None, text.splitlines()):
        for name, value in json.loads(line.removeprefix("data: ")).items():
            if name == "output_log_probs":
                found[name] = found.get(name, []) + [
                    float(each) for each in np.ravel(floats(value))
                ]
            elif name == "cum_log_probs":
                found[name] = floats(value).tolist()
            elif name in ("text_output", "num_output_tokens") and name in found:
                found[name] += value
            else:
                found[name] = value
    return found


def floats(value: Any) -> np.ndarray:
    """Numbers of JSON, [n] or none, as 32-bit floats."""
    return np.array(value, np.float32)
