"""What the front is started with, and its limits."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024  # of /generate alone, whose JSON is read whole
MAX_AHEAD_BYTES = 256 * 1024  # of requests that a client sends before it has its answer
MAX_DRAINS = 1024  # answers that are read to their ends though their clients are gone
DRAIN_SECONDS = 30.0  # for each of them; what was stopped ends in far less
STALL_SECONDS = 60.0  # a request that began and does not go on for so long is given up
LONG_BODY = 1024  # bytes of a request: beyond, another thread reads and encodes it
MAX_ENGINE_BODY = 16_384  # beyond, the ensemble: JSON of its ids would cost more than it saves
# Input of a Python engine: its chunks go to `postprocessing`, where streams nobody reads are found.
STEP_MARK = "ensemble_step"
IDS_SUFFIX = "_ids"  # of the ensemble beside one, whose answers are token ids
IMPORTED_FROM = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class FrontSettings:
    """Where the front listens, and the server behind it."""

    address: str
    port: int
    triton_port: int  # on loopback
    triton_pid: int  # its process, which the engine host's socket is named after
    exit_timeout: float  # seconds that answers in flight have to end in once it is asked to stop
    model_repo: str = ""  # whose ids it makes text of; "": `postprocessing` does
    expose_inner_models: bool = False  # whether clients may ask models that are no ensembles

    def command(self) -> list[str]:
        """The command of a front, to be run in IMPORTED_FROM."""
        return [sys.executable, "-m", "trellis.gateway", json.dumps(dataclasses.asdict(self))]


def missing_package() -> str:
    """The package that the front needs and that is not installed; '' if it can run."""
    return "" if importlib.util.find_spec("httptools") else "httptools"
