# SPDX-License-Identifier: Apache-2.0
"""--restart: what died or hung is started anew behind the same gateway, on the same ports."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.launched import READY_SECONDS, Launched
from support.load import ENSEMBLE, WAYS, ask
from support.serving import serve
from support.victims import VICTIMS

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


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
