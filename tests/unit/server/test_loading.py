# SPDX-License-Identifier: Apache-2.0
"""What makes waiting for models vain, seen with real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from support.waiting import wait_within
from trellis.ipc.process_state import awaited
from trellis.server import loading
from trellis.server.loading import GivenUp, Loading

CHILD = (
    "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True)"
)


@contextmanager
def parent(rest: str, *child: str) -> Iterator[tuple[int, int]]:
    """A process with a child, and that child: their pids."""
    command = [sys.executable, "-c", f"{CHILD}; {rest}", *child]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            yield process.pid, pid
        finally:
            for each in psutil.Process(process.pid).children():
                each.kill()
            process.kill()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_SECONDS", "GRACE_SECONDS", "GIVEN_UP_SECONDS"):
        monkeypatch.setattr(loading, name, 0.0)


def failure(pid: int, stub: int, limit: float = 0.0) -> loading.Failure | None:
    """What is seen in two looks."""
    looks = Loading(pid, lambda: {stub: "tensorrt_llm"}, limit)
    return looks.failure() or looks.failure()


@pytest.mark.usefixtures("at_once")
def test_a_process_whose_end_is_waited_for_while_it_lives_was_given_up() -> None:
    with parent("child.wait()", "sleep", "60") as (pid, child):
        wait_within(10, lambda: awaited(pid) == {child})
        found = failure(pid, child)
        assert found is not None
        assert found.passing
        assert f"gave up on the process of tensorrt_llm (pid {child})" in found.why
        assert failure(pid, pid) is None  # the one that is waited for is no model's


@pytest.mark.usefixtures("at_once")
def test_a_process_that_nobody_waits_for_loads() -> None:
    with parent("sys.stdin.read(); import time; time.sleep(60)", "sleep", "60") as (pid, child):
        assert failure(pid, child) is None


@pytest.mark.usefixtures("at_once")
def test_a_dead_process_that_nobody_waits_for_is_a_failure_that_comes_again() -> None:
    with parent("import time; time.sleep(60)", "true") as (pid, child):
        wait_within(10, lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
        found = failure(pid, child)
        assert found is not None
        assert not found.passing
        assert found.why == f"the process of tensorrt_llm died (pid {child})"


def test_the_limit_is_a_failure_that_comes_again() -> None:
    with parent("import time; time.sleep(60)", "sleep", "60") as (pid, child):
        time.sleep(0.02)
        found = failure(pid, child, limit=1e-9)
        assert found == ("1e-09 s (--load_timeout) passed", False)


def test_a_short_wait_is_what_the_end_of_a_load_is() -> None:
    with parent("child.wait()", "sleep", "60") as (pid, child):
        wait_within(10, lambda: awaited(pid) == {child})
        given_up, stubs = GivenUp(pid, 5.0), {child: "m"}
        assert [given_up.look(stubs, now) for now in (1.0, 5.9, 6.0)] == [None, None, child]
        assert given_up.look({}, 7.0) is None
        assert given_up.look(stubs, 8.0) is None  # it is seen anew


def test_a_process_that_is_gone_waits_for_nobody() -> None:
    assert awaited(2**22 + 1) == set()
