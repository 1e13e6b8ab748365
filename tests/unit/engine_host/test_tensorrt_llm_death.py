# SPDX-License-Identifier: Apache-2.0
"""The end of TensorRT-LLM's LLM API, by itself, of a worker, or by silence: seen, and in time."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.fake_library import VERSIONS, Load, Loaded
from trellis.engine_host.engines.async_engine import LOOK_SECONDS
from trellis.engine_host.engines.tensorrt_llm_workers import (
    Worker,
    dead_worker,
    dies_within,
    find_workers,
)

ALL = pytest.mark.parametrize("version", VERSIONS)
SOON = LOOK_SECONDS + 3


def wait_for_death(loaded: Loaded, seconds: float = SOON) -> str:
    """Why the library died; fails if it does not."""
    end = time.monotonic() + seconds
    while not loaded.deaths:
        assert time.monotonic() < end, "nothing was noticed"
        time.sleep(0.02)
    return loaded.deaths[0]


@ALL
def test_a_killed_worker_is_noticed_while_requests_wait(llm_api: Load, version: str) -> None:
    loaded = llm_api(version, step_seconds=0.05)
    loaded.add([5, 6], max_tokens=500, end_id=-1)
    (worker,) = loaded.workers()
    worker.send_signal(signal.SIGKILL)
    # Seen here, or told by the library, which may end its requests, and itself, before.
    assert "is gone" in wait_for_death(loaded)


def test_a_worker_that_is_seen_to_end_a_moment_later_is_named() -> None:
    process = subprocess.Popen(["sleep", "0.3"])
    began = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    worker = Worker(process.pid, began)
    assert dead_worker([worker]) is None
    assert dies_within(10, [worker]) == worker
    process.wait()
    assert dies_within(0.0, [worker]) == worker
    assert dies_within(0.05, []) is None


@ALL
def test_a_killed_worker_is_noticed_while_nothing_runs(llm_api: Load, version: str) -> None:
    loaded = llm_api(version)
    (worker,) = loaded.workers()
    worker.send_signal(signal.SIGKILL)
    assert f"worker is gone (process {worker.pid})" in wait_for_death(loaded)


def test_any_worker_of_several_counts(llm_api: Load) -> None:
    loaded = llm_api("1.2.1", {"tensor_parallel_size": 2})
    assert len(loaded.workers()) == 2
    loaded.workers()[1].send_signal(signal.SIGKILL)
    assert "worker is gone" in wait_for_death(loaded)


@ALL
def test_a_fatal_error_of_one_request_ends_all(llm_api: Load, version: str) -> None:
    script = {"after": 7, "ids": [50] * 9, "at": 2, "event": "fatal"}
    loaded = llm_api(version, scripts=[script], step_seconds=0.02)
    loaded.add([5, 6], max_tokens=500, end_id=-1)
    loaded.add([7])
    assert "scripted error of the executor" in wait_for_death(loaded)


def test_after_the_end_a_new_request_is_told_so(llm_api: Load) -> None:
    script = {"after": 7, "event": "fatal"}
    loaded = llm_api("1.2.1", scripts=[script])
    loaded.add([7])
    wait_for_death(loaded)
    loaded.deaths.clear()
    loaded.add([5, 6])
    assert wait_for_death(loaded).startswith("TensorRT-LLM shut itself down")


def test_a_late_release_is_asked_for_its_health(llm_api: Load) -> None:
    loaded = llm_api("1.4.0rc1")
    assert loaded.library.why_dead() == ""
    loaded.library._workers.clear()
    loaded.library._llm._executor._errors.put(RuntimeError("gone"))
    assert "not healthy" in loaded.library.why_dead()


def test_a_step_that_never_returns_is_noticed(
    llm_api: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = {"after": 7, "ids": [50] * 9, "at": 2, "event": "hang"}
    loaded = llm_api("1.2.1", scripts=[script])
    monkeypatch.setattr(loaded.adapter, "SILENCE_SECONDS", 0.5)
    loaded.add([7])
    assert "made no token in" in wait_for_death(loaded)


def test_silence_while_nothing_runs_is_no_death(
    llm_api: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = llm_api("1.2.1")
    monkeypatch.setattr(loaded.adapter, "SILENCE_SECONDS", 0.0)
    assert loaded.library.why_dead() == ""


def test_a_shutdown_that_never_returns_holds_nobody_up(llm_api: Load) -> None:
    loaded = llm_api("1.2.1", shutdown_blocks=True)
    began = time.monotonic()
    loaded.close()
    assert time.monotonic() - began < 8


@pytest.fixture
def worker() -> Iterator[psutil.Process]:
    """A process that looks like a worker, below one that does not."""
    child = "import time; print(1, flush=True); time.sleep(60)"
    parent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1],"
        " 'mpi4py.futures.server'])"
    )
    command = [sys.executable, "-c", parent, child]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = psutil.Process(process.pid).children()
        yield found
        process.kill()
        with contextlib.suppress(psutil.NoSuchProcess):
            found.kill()


def test_workers_are_found_at_any_depth_and_alone(worker: psutil.Process) -> None:
    assert [each.process for each in find_workers(os.getpid())] == [worker.pid]


def test_a_number_that_another_process_has_now_is_a_dead_worker(worker: psutil.Process) -> None:
    (found,) = find_workers(os.getpid())
    assert dead_worker([found]) is None
    assert dead_worker([found._replace(began="1")]) is not None
    worker.kill()
    end = time.monotonic() + 5
    while dead_worker([found]) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
