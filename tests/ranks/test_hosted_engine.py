"""The `transformers` engine in its own process: the same tokens, and nothing of it stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)

from checkpoints import random_llama  # noqa: E402
from engines.engine import Engine, EngineSettings, Failure, Refused, Sampling  # noqa: E402
from engines.hosted import HostedEngine  # noqa: E402
from engines.transformers import TransformersEngine  # noqa: E402
from launched import wait_for  # noqa: E402

PROMPT = np.arange(7, 15)
GREEDY = Sampling(max_tokens=16)
RANDOM = Sampling(max_tokens=16, sample=True, temperature=1.5, seed=3)
SAMPLINGS = (GREEDY, RANDOM, replace(GREEDY, max_tokens=3), replace(RANDOM, repetition_penalty=1.4))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EngineSettings:
    folder = tmp_path_factory.mktemp("random")
    random_llama(folder, vocab_size=256)
    return EngineSettings(folder, max_batch_size=8, max_tokens_in_paged_kv_cache=512)


@pytest.fixture(scope="module")
def hosted(settings: EngineSettings) -> Iterator[HostedEngine]:
    engine = HostedEngine("transformers", settings)
    child = psutil.Process(engine._process.pid)
    yield engine
    engine.close()
    assert not child.is_running()
    assert engine._process.returncode == 0


def run(engine: Engine, *samplings: Sampling) -> list[list[int]]:
    """The ids of each, sent at once."""
    made: dict[int, list[int]] = {}
    for key, sampling in enumerate(samplings, start=1):
        engine.add(key, PROMPT, sampling)
        made[key] = []
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure), event
            made[event.key] += event.ids
    return list(made.values())


def test_it_makes_the_tokens_that_it_makes_in_one_process(
    hosted: HostedEngine, settings: EngineSettings
) -> None:
    assert run(hosted, *SAMPLINGS) == run(TransformersEngine(settings), *SAMPLINGS)


def test_every_sequence_of_a_request_comes(hosted: HostedEngine) -> None:
    hosted.add(1, PROMPT, replace(RANDOM, num_return_sequences=3))
    made: dict[int, list[int]] = {0: [], 1: [], 2: []}
    while hosted.busy:
        for event in hosted.step():
            assert not isinstance(event, Failure)
            made[event.sequence] += event.ids
    assert [len(ids) for ids in made.values()] == [16, 16, 16]


def test_a_cancelled_request_yields_nothing_more_and_frees_its_cache(hosted: HostedEngine) -> None:
    for key in range(101, 106):
        hosted.add(key, PROMPT, replace(GREEDY, max_tokens=400))
        while not list(hosted.step()):
            pass
        hosted.cancel(key)
        assert not hosted.busy
        assert list(hosted.step()) == []
    assert len(run(hosted, replace(GREEDY, max_tokens=400))[0]) == 400


def test_what_never_fits_into_the_cache_fails_by_itself(hosted: HostedEngine) -> None:
    hosted.add(1, PROMPT, replace(GREEDY, max_tokens=5000))
    failures: list[object] = []
    while hosted.busy:
        failures += hosted.step()
    assert [type(failure) for failure in failures] == [Failure]
    assert len(run(hosted, GREEDY)[0]) == 16


def test_it_refuses_what_the_engine_would(hosted: HostedEngine) -> None:
    with pytest.raises(Refused, match=r"^beam_width: "):
        hosted.refuse(Sampling(beam_width=2))
    with pytest.raises(Refused, match=r"^end_id: 256 is not in the vocabulary of 256"):
        hosted.refuse(Sampling(end_id=256))


def test_what_keeps_it_from_loading_is_said(settings: EngineSettings) -> None:
    with pytest.raises(RuntimeError, match="max_attention_window_size is 16, but"):
        HostedEngine("transformers", replace(settings, max_attention_window_size=16))


HOST = """
import sys, time
from pathlib import Path
import numpy as np
from engines.engine import EngineSettings, Sampling
from engines.hosted import HostedEngine
settings = EngineSettings(Path(sys.argv[1]), 8, max_tokens_in_paged_kv_cache=512)
engine = HostedEngine("transformers", settings)
print(engine._process.pid, flush=True)
try:
    while True:
        if not engine.busy and sys.argv[2] == "busy":
            engine.add(1, np.arange(7, 15), Sampling(max_tokens=400))
        list(engine.step())
except Exception as error:
    print(error, flush=True)
    time.sleep(60)
"""


def start_host(settings: EngineSettings, doing: str) -> "tuple[subprocess.Popen[str], int]":
    """A process with a hosted engine, and the engine's process."""
    modules = Path(sys.modules["engines.hosted"].__file__ or "").parents[1]
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(settings.path), doing],
        env={**os.environ, "PYTHONPATH": str(modules)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    return host, int(host.stdout.readline())


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_it_dies_with_its_host(settings: EngineSettings, doing: str) -> None:
    host, engine = start_host(settings, doing)
    host.kill()
    host.wait()
    wait_for(lambda: not psutil.pid_exists(engine), 10)


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_its_host_says_that_it_died_and_ends(settings: EngineSettings, doing: str) -> None:
    host, engine = start_host(settings, doing)
    os.kill(engine, signal.SIGKILL)
    output, _ = host.communicate(timeout=20)
    assert "the engine's process is gone" in output
    assert host.returncode == 1
