# SPDX-License-Identifier: Apache-2.0
"""What the gateway's process is started with."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

IMPORTED_FROM = Path(__file__).resolve().parents[2]  # where the package itself is found


@dataclasses.dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, and the server behind it."""

    address: str
    port: int
    triton_port: int  # on loopback
    triton_pid: int  # its process, which the engine host's socket is named after
    exit_timeout: float  # seconds that answers in flight have to end in once it is asked to stop
    model_repo: str = ""  # whose ids it makes text of; "": `postprocessing` does
    expose_inner_models: bool = False  # whether clients may ask models that are no ensembles

    def command(self) -> list[str]:
        """The command of a gateway, to be run in IMPORTED_FROM."""
        return [sys.executable, "-m", "trellis.gateway", json.dumps(dataclasses.asdict(self))]


def missing_package() -> str:
    """The package that the gateway needs and that is not installed; '' if it can run."""
    return "" if importlib.util.find_spec("httptools") else "httptools"
