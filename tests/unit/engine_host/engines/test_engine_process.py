"""The OpenVINO engine in its own process: what it makes in one process, and nothing of it stays."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from support.engine_processes import ids, run, start_host
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.engine_process import WAIT_MILLISECONDS, EngineProcess
from trellis.engine_host.engines.openvino import KV_CACHE_FULL, OpenVinoEngine
from trellis.engine_host.engines.openvino_words import MAX_LISTS
from trellis.errors import RequestError
from trellis.tokenizers import load

GREEDY = Sampling(max_tokens=16, end_id=2)
RANDOM = replace(GREEDY, sample=True, temperature=1.5, seed=3)
BEAMS = replace(GREEDY, beam_width=3, length_penalty=0.5)
SAMPLINGS = {  # one at a time: what a step makes depends on which requests are in it
    "greedy": GREEDY,
    "sampled": RANDOM,
    "sampled_otherwise": replace(RANDOM, seed=4, top_k=20, repetition_penalty=1.4),
    "sequences": replace(RANDOM, num_return_sequences=3),
    "log_probs": replace(GREEDY, log_probs=True),
    "sampled_log_probs": replace(RANDOM, log_probs=True),
    "bad_words": replace(GREEDY, bad_words=("Paris", "isa", "sal", "é")),
    "beams": BEAMS,
    "beams_log_probs": replace(BEAMS, log_probs=True),
}


@pytest.fixture(scope="module")
def engine_settings(demo_engine: tuple[Path, Path]) -> EngineSettings:
    return EngineSettings(demo_engine[0], max_batch_size=8, max_tokens_in_paged_kv_cache=512)


@pytest.fixture(scope="module")
def prompt(demo_engine: tuple[Path, Path]) -> np.ndarray:
    return np.array(load("gpt2", demo_engine[1]).encode("The capital of France is"))


@pytest.fixture(scope="module")
def hosted(engine_settings: EngineSettings) -> Iterator[EngineProcess]:
    engine = EngineProcess("openvino", engine_settings)
    child = psutil.Process(engine._process.pid)
    yield engine
    engine.close()
    assert not child.is_running()
    assert engine._process.returncode == 0


@pytest.fixture(scope="module")
def here(engine_settings: EngineSettings) -> Iterator[OpenVinoEngine]:
    engine = OpenVinoEngine(engine_settings)
    yield engine
    engine.close()


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=list(SAMPLINGS))
def test_it_makes_what_it_makes_in_one_process(
    hosted: EngineProcess, here: OpenVinoEngine, prompt: np.ndarray, sampling: Sampling
) -> None:
    (sequences,) = run(hosted, prompt, sampling)
    assert [sequences] == run(here, prompt, sampling)
    assert len(sequences) == sampling.sequences
    for each in sequences:
        assert each.ids
        assert each.finish in ("stop", "length")
        assert len(each.log_probs) == len(each.ids)


def test_requests_that_run_together_end_each_in_its_time(
    hosted: EngineProcess, prompt: np.ndarray
) -> None:
    lengths = (16, 3, 40, 1, 25)
    asked = [replace(GREEDY, max_tokens=length, end_id=-1) for length in lengths]
    made = [sequences[0] for sequences in run(hosted, prompt, *asked)]
    assert [(len(each.ids), each.finish) for each in made] == [(n, "length") for n in lengths]


def test_a_cancelled_request_yields_nothing_more_and_frees_its_cache(
    hosted: EngineProcess, prompt: np.ndarray
) -> None:
    long = replace(GREEDY, max_tokens=400, end_id=-1)
    for key in range(101, 106):
        hosted.add(key, prompt, long)
        while not list(hosted.step()):
            pass
        hosted.cancel(key)
        assert not hosted.busy
        assert list(hosted.step()) == []
    assert [len(made) for made in ids(hosted, prompt, long)] == [400]


def test_what_never_fits_into_the_cache_fails_by_itself(
    hosted: EngineProcess, prompt: np.ndarray
) -> None:
    hosted.add(1, np.full(1000, 504), GREEDY)
    failures: list[object] = []
    while hosted.busy:
        failures += hosted.step()
    assert failures == [Failure(1, KV_CACHE_FULL)]
    assert len(ids(hosted, prompt, GREEDY)[0]) > 0


@pytest.mark.parametrize(
    ("sampling", "name"),
    [
        (Sampling(presence_penalty=3), "presence_penalty"),
        (Sampling(beam_width=17), "beam_width"),
        (Sampling(beam_width=2, bad_words=("x",)), "beam_width"),
        (Sampling(bad_words=("a\0",)), "bad_words"),
        (Sampling(num_return_sequences=2, bad_words=("x",)), "num_return_sequences"),
    ],
)
def test_it_refuses_by_name_what_the_engine_would(
    hosted: EngineProcess, here: OpenVinoEngine, sampling: Sampling, name: str
) -> None:
    with pytest.raises(RequestError, match=f"^{name}: ") as refused:
        hosted.refuse(sampling)
    with pytest.raises(RequestError) as by_the_engine:
        here.refuse(sampling)
    assert str(refused.value) == str(by_the_engine.value)


def test_the_host_knows_how_many_lists_of_words_the_engine_keeps(
    hosted: EngineProcess, prompt: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(GREEDY, bad_words=("known",))
    ids(hosted, prompt, known)
    monkeypatch.setattr("trellis.engine_host.engines.openvino_words.MAX_LISTS", 1)
    assert MAX_LISTS > 1
    hosted.refuse(known)
    with pytest.raises(
        RequestError, match=r"^bad_words: this engine \(openvino\) keeps every list"
    ):
        hosted.refuse(replace(GREEDY, bad_words=("new",)))


def test_what_keeps_it_from_loading_is_said(
    engine_settings: EngineSettings, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(RuntimeError, match=r"^gpt_model_path: OpenVINO cannot load .*broken.gguf"):
        EngineProcess("openvino", replace(engine_settings, path=tmp_path))


def test_a_step_that_waits_returns_when_it_is_woken(hosted: EngineProcess) -> None:
    waited = []
    for wake_first in (True, False):
        timer = threading.Timer(0.02, hosted.wake)
        if wake_first:
            hosted.wake()
        else:
            timer.start()
        begin = time.monotonic()
        assert list(hosted.step()) == []
        waited.append(time.monotonic() - begin)
    assert max(waited) < WAIT_MILLISECONDS / 1000
    begin = time.monotonic()
    assert list(hosted.step()) == []
    assert time.monotonic() - begin >= WAIT_MILLISECONDS / 1000 - 0.01  # no wake is left


def test_more_wakes_than_anyone_hears_do_no_harm(hosted: EngineProcess, prompt: np.ndarray) -> None:
    for _ in range(100_000):
        hosted.wake()
    assert len(ids(hosted, prompt, GREEDY)[0]) > 0


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_it_dies_with_its_host(engine_settings: EngineSettings, doing: str) -> None:
    host, engine = start_host("openvino", engine_settings, doing)
    host.kill()
    host.wait()
    end = time.monotonic() + 10
    while psutil.pid_exists(engine):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_its_host_says_that_it_died_and_ends(engine_settings: EngineSettings, doing: str) -> None:
    host, engine = start_host("openvino", engine_settings, doing)
    os.kill(engine, signal.SIGKILL)
    output, _ = host.communicate(timeout=20)
    assert "the engine's process is gone" in output
    assert host.returncode == 1
