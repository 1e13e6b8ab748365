"""What the tests of engines in processes of their own share: asking one, and a host to kill."""

import subprocess
import sys
from typing import NamedTuple

import numpy as np

from trellis.engine_host.engines.engine import Engine, EngineSettings, Failure, Sampling

HOST = """
import sys, time
from pathlib import Path
import numpy as np
from trellis.engine_host.engines.engine import EngineSettings, Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
settings = EngineSettings(Path(sys.argv[2]), 8, max_tokens_in_paged_kv_cache=512)
engine = EngineProcess(sys.argv[1], settings)
print(engine._process.pid, flush=True)
try:
    while True:
        if not engine.busy and sys.argv[3] == "busy":
            engine.add(1, np.arange(7, 15), Sampling(max_tokens=400))
        list(engine.step())
except Exception as error:
    print(error, flush=True)
    time.sleep(60)
"""


class Made(NamedTuple):
    """What an engine made for one sequence of a request."""

    ids: list[int]
    finish: str | None
    log_probs: list[float]
    cum_log_prob: float


def run(engine: Engine, prompt: np.ndarray, *samplings: Sampling) -> list[list[Made]]:
    """The sequences of each sampling's request, all sent at once."""
    made = [[Made([], None, [], 0.0)] * sampling.sequences for sampling in samplings]
    for key, sampling in enumerate(samplings, start=1):
        engine.add(key, prompt, sampling)
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure), event
            sequences = made[event.key - 1]
            before = sequences[event.sequence]
            sequences[event.sequence] = Made(
                before.ids + event.ids,
                event.finish,
                before.log_probs + event.log_probs,
                event.cum_log_prob,
            )
    return made


def ids(engine: Engine, prompt: np.ndarray, *samplings: Sampling) -> list[list[int]]:
    """The ids of each sampling's one sequence."""
    return [sequences[0].ids for sequences in run(engine, prompt, *samplings)]


def start_host(
    engine_type: str, settings: EngineSettings, doing: str
) -> "tuple[subprocess.Popen[str], int]":
    """A process with a hosted engine, `busy` or `idle`, and the engine's process."""
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, engine_type, str(settings.path), doing],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    return host, int(host.stdout.readline())
