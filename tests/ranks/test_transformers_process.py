"""The `transformers` engine in its own process: the same tokens, and nothing of it stays."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch", reason="needs torch: `make setup-torch`", exc_type=ImportError)

from ranks.checkpoints import random_llama  # noqa: E402
from support.engine_processes import ids, run, start_host  # noqa: E402
from support.waiting import wait_for  # noqa: E402
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling  # noqa: E402
from trellis.engine_host.engines.engine_process import EngineProcess  # noqa: E402
from trellis.engine_host.engines.transformers import TransformersEngine  # noqa: E402
from trellis.errors import RequestError  # noqa: E402

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
def hosted(settings: EngineSettings) -> Iterator[EngineProcess]:
    engine = EngineProcess("transformers", settings)
    child = psutil.Process(engine._process.pid)
    yield engine
    engine.close()
    assert not child.is_running()
    assert engine._process.returncode == 0


def test_it_makes_the_tokens_that_it_makes_in_one_process(
    hosted: EngineProcess, settings: EngineSettings
) -> None:
    assert ids(hosted, PROMPT, *SAMPLINGS) == ids(TransformersEngine(settings), PROMPT, *SAMPLINGS)


def test_every_sequence_of_a_request_comes(hosted: EngineProcess) -> None:
    (sequences,) = run(hosted, PROMPT, replace(RANDOM, num_return_sequences=3))
    assert [len(each.ids) for each in sequences] == [16, 16, 16]


def test_a_cancelled_request_yields_nothing_more_and_frees_its_cache(hosted: EngineProcess) -> None:
    for key in range(101, 106):
        hosted.add(key, PROMPT, replace(GREEDY, max_tokens=400))
        while not list(hosted.step()):
            pass
        hosted.cancel(key)
        assert not hosted.busy
        assert list(hosted.step()) == []
    assert len(ids(hosted, PROMPT, replace(GREEDY, max_tokens=400))[0]) == 400


def test_what_never_fits_into_the_cache_fails_by_itself(hosted: EngineProcess) -> None:
    hosted.add(1, PROMPT, replace(GREEDY, max_tokens=5000))
    failures: list[object] = []
    while hosted.busy:
        failures += hosted.step()
    assert [type(failure) for failure in failures] == [Failure]
    assert len(ids(hosted, PROMPT, GREEDY)[0]) == 16


def test_it_refuses_what_the_engine_would(hosted: EngineProcess) -> None:
    with pytest.raises(RequestError, match=r"^beam_width: "):
        hosted.refuse(Sampling(beam_width=2))
    with pytest.raises(RequestError, match=r"^end_id: 256 is not in the vocabulary; use 0 to 255"):
        hosted.refuse(Sampling(end_id=256))


def test_what_keeps_it_from_loading_is_said(settings: EngineSettings) -> None:
    with pytest.raises(RuntimeError, match="max_attention_window_size is 16, but"):
        EngineProcess("transformers", replace(settings, max_attention_window_size=16))


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_it_dies_with_its_host(settings: EngineSettings, doing: str) -> None:
    host, engine = start_host("transformers", settings, doing)
    host.kill()
    host.wait()
    wait_for(lambda: not psutil.pid_exists(engine), 10)


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_its_host_says_that_it_died_and_ends(settings: EngineSettings, doing: str) -> None:
    host, engine = start_host("transformers", settings, doing)
    os.kill(engine, signal.SIGKILL)
    output, _ = host.communicate(timeout=20)
    assert "the engine's process is gone" in output
    assert host.returncode == 1
