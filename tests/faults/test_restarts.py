# SPDX-License-Identifier: Apache-2.0
"""--restart: what died or hung is started anew behind the same gateway, on the same ports."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from support.launched import READY_SECONDS, Launched
from support.load import ENSEMBLE, WAYS, ask
from support.serving import serve
from support.victims import VICTIMS
from trellis.server import process
from trellis.server.process import Server
from trellis.server.restarts import LOADS

Found = TypeVar("Found")
BODY = {"text_input": "The capital of France is", "max_tokens": 8}
HANG_SECONDS = "5"


class TestRestarts:
    """In their order: each needs what the one before left."""

    @pytest.fixture(scope="class")
    @classmethod
    def launched(
        cls, demo_repo: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Launched]:
        folder = tmp_path_factory.mktemp("restarts")
        options = ("--restart", "3", "--hang_timeout", HANG_SECONDS)
        with serve(demo_repo, folder, *options, launcher=True) as running:
            yield running

    def test_a_killed_model_is_started_anew_behind_the_same_gateway(
        self, launched: Launched
    ) -> None:
        gateway = launched.find("trellis.gateway")
        right = {way: said(launched, way) for way in WAYS}
        launched.stub("tensorrt_llm").kill()
        wait_for(lambda: status(launched, "/v2/health/ready") == 503)
        meanwhile = httpx.post(f"{launched.url}{ENSEMBLE}/generate", json=BODY)
        assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (503, "1")
        assert "started anew" in meanwhile.json()["error"]
        for path, expected in (("live", 200), ("startup", 200), ("ready", 503)):
            assert status(launched, f"/v2/health/{path}") == expected
        wait_ready(launched, 2)
        assert gateway.is_running()
        assert {way: said(launched, way) for way in WAYS} == right
        assert "died; starting it anew in 1 s (1 of 3)" in launched.log()

    def test_a_stopped_engine_is_too(self, launched: Launched) -> None:
        gateway = launched.find("trellis.gateway")
        engine = VICTIMS["engine"](launched)
        engine.suspend()
        wait_ready(launched, 3)
        assert gateway.is_running()
        assert not engine.is_running()
        assert all(said(launched, way) for way in WAYS)
        assert "made no progress" in launched.log()

    def test_a_stopped_gateway_is_followed_by_another(self, launched: Launched) -> None:
        gateway = launched.find("trellis.gateway")
        gateway.suspend()
        wait_ready(launched, 4)
        assert not gateway.is_running()
        assert all(said(launched, way) for way in WAYS)

    def test_once_more_is_given_up(self, launched: Launched) -> None:
        launched.tree = {each for each in launched.look() if each.is_running()}
        launched.stub("preprocessing").kill()
        code, log = launched.ended(30)
        assert code == 1
        assert "the process of preprocessing" in log.splitlines()[-1]
        launched.assert_nothing_left()


def test_several_ranks_are_not_started_anew(demo_repo: Path, tmp_path: Path) -> None:
    options = ("--restart", "1", "--world_size", "2", "--no-check")
    with serve(demo_repo, tmp_path, *options, launcher=True, ready=False) as launched:
        code, log = launched.ended(30)
    assert code == 1
    assert "--restart: for one tritonserver on one host" in log


def test_a_load_that_triton_gives_up_is_begun_anew(demo_repo: Path, tmp_path: Path) -> None:
    """Triton waits for ever for the end of a process that was late with a sign of life."""
    with serve(demo_repo, tmp_path, launcher=True, ready=False) as launched:
        for _ in range(2):
            pause_the_load(launched)
        launched.wait_ready()
        assert "late with a sign of life while it loaded" in launched.log()
        assert f"starting it anew (2 of {LOADS - 1})" in launched.log()
        assert all(said(launched, way) for way in WAYS)


def test_a_load_at_run_time_that_triton_gives_up_fails_and_can_be_asked_again(
    demo_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "UNLOAD_SECONDS", 2.0)
    over = threading.Event()
    options: dict[str, Any] = {
        "extra": ("--model-control-mode=explicit",),
        "allow_admin_endpoints": True,
    }
    with serve(demo_repo, tmp_path, **options) as server, ThreadPoolExecutor(2) as pool:
        watch = pool.submit(server.watch, over.is_set)
        url = f"{server.settings.url}/v2/repository/models/tensorrt_llm/load"
        load = pool.submit(httpx.post, url, timeout=120)
        stub = wait_for(lambda: loading_process(server))
        pause(stub)
        try:
            answer = load.result(120)
            assert (answer.status_code, "not healthy" in answer.text) == (400, True), answer.text
            assert httpx.post(url, timeout=120).status_code == 200
        finally:
            over.set()
        assert watch.result() is None  # nothing died that should not
    assert not stub.is_running()


def loading_process(server: Server) -> psutil.Process | None:
    """The process of a model, once that of its engine is there."""
    with contextlib.suppress(psutil.Error):
        for pid in server.stubs():
            if (found := psutil.Process(pid)).children():
                return found
    return None


def pause_the_load(launched: Launched) -> None:
    """Pause the process of a model that loads its engine; returns once it is ended for that."""
    loading = wait_for(lambda: loading_stub(launched))
    pause(loading)
    wait_for(lambda: not loading.is_running())


def pause(loading: psutil.Process) -> None:
    """Stop a process that loads, for longer than Triton waits for a sign of life."""
    loading.suspend()
    time.sleep(3.0)
    loading.resume()


def loading_stub(launched: Launched) -> psutil.Process | None:
    """The process of `tensorrt_llm`, once that of its engine is there."""
    launched.look()
    with contextlib.suppress(LookupError, psutil.Error):
        stub = launched.stub("tensorrt_llm")
        return stub if stub.children() else None
    return None


def said(launched: Launched, way: str) -> str:
    outcome = ask(launched.url, f"127.0.0.1:{launched.grpc}", "horse", way)
    assert outcome.whole, outcome
    return outcome.text


def status(launched: Launched, path: str) -> int:
    return httpx.get(f"{launched.url}{path}", timeout=20).status_code


def wait_ready(launched: Launched, times: int) -> None:
    """Until it said so many times that it is ready."""
    wait_for(lambda: launched.log().count("ready after") == times)
    launched.look()


def wait_for(condition: Callable[[], Found | None]) -> Found:
    end = time.monotonic() + READY_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found
