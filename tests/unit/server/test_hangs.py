"""The launcher's view of hangs: rows that stand still, stopped processes, a mute server."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support.fake_triton_http import FakeTriton
from trellis.ipc.heartbeats import Heartbeats
from trellis.ipc.process_state import STOPPED, state
from trellis.server import hangs
from trellis.server.hangs import GRACE_SECONDS, Hang, Hangs, threads

LIMIT = 5.0
NOBODY = 2**22 + 1  # no process


class Watched:
    """A table, and looks at it by a clock of the test's."""

    def __init__(self, limit: float = LIMIT, port: int = 0) -> None:
        self.table = Heartbeats.make(limit)
        self.hangs = Hangs(self.table, (NOBODY, "tritonserver"), "127.0.0.1", port)
        self.now = 100.0

    def after(self, seconds: float, own: dict[int, str] | None = None, *below: int) -> str:
        """What hangs in that time; '' if nothing does."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            if hang := self.hangs.look(own or {}, below, self.now):
                return hang.what
        return ""


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.hangs.close()
    made.table.close()


@pytest.fixture
def stopped() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        process.send_signal(signal.SIGSTOP)
        while state(process.pid) != STOPPED:
            pass
        yield process.pid
        process.kill()


def test_a_loop_that_does_not_beat_hangs(watched: Watched) -> None:
    row = watched.table.claim("the HTTP gateway", loops=True)
    assert watched.after(60) == ""  # it did not begin yet
    row.beat()
    assert watched.after(LIMIT - 0.5) == ""
    row.beat()
    assert watched.after(LIMIT - 0.5) == ""
    what = watched.after(2)
    assert what.startswith(f"the HTTP gateway (pid {os.getpid()}) made no progress for 5 s")


def test_a_batch_that_does_not_end_hangs_and_none_at_all_does_not(watched: Watched) -> None:
    row = watched.table.claim("the process of preprocessing")
    row.beat()
    assert watched.after(60) == ""
    with row.working():
        assert watched.after(LIMIT - 0.5) == ""
    assert watched.after(LIMIT - 0.5) == ""
    with row.working():
        row.allow(3)
        assert watched.after(LIMIT + 2) == ""
        assert "the process of preprocessing" in watched.after(2)


def test_what_is_seen_inside_has_a_moment_more(watched: Watched) -> None:
    watched.table.claim("the engine process", loops=True, watched_inside=True).beat()
    assert watched.after(LIMIT + GRACE_SECONDS - 0.5) == ""
    assert "the engine process" in watched.after(2)


def test_a_stopped_process_hangs_whatever_it_proved(watched: Watched, stopped: int) -> None:
    assert watched.after(LIMIT - 0.5, {stopped: "the process of x"}) == ""
    what = watched.after(1.5, {stopped: "the process of x"})
    assert what.startswith(f"the process of x (pid {stopped}) is stopped by a signal")


def test_a_stopped_worker_hangs(watched: Watched, stopped: int) -> None:
    assert watched.after(LIMIT + GRACE_SECONDS - 0.5, {}, stopped) == ""
    assert f"sleep (pid {stopped}) is stopped" in watched.after(2, {}, stopped)


def test_a_time_out_of_0_is_none(stopped: int) -> None:
    watched = Watched(limit=0)
    watched.table.claim("x", loops=True).beat()
    assert watched.after(1000, {stopped: "y"}) == ""
    watched.table.close()


def test_a_server_that_does_not_answer_hangs() -> None:
    with FakeTriton() as triton:
        watched = Watched(0.5, triton.port)
        probe = watched.hangs._probe
        assert probe is not None
        while not probe.answers:
            pass
    while True:  # nobody is there any more
        before = probe.answers
        if not probe._closed.wait(0.3) and probe.answers == before:
            break
    assert "tritonserver" in watched.after(5)
    assert "did not answer /v2/health/live" in watched.after(5)
    watched.hangs.close()
    watched.table.close()


def test_a_hang_is_told_to_readiness_and_to_the_log(
    watched: Watched, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(hangs, "ask_for_stacks", asked.append)
    watched.hangs.report(Hang(NOBODY, "tritonserver did not answer"))
    assert watched.table.status.hung == "tritonserver did not answer"
    assert "HANG: tritonserver did not answer" in capfd.readouterr().err
    assert asked == [NOBODY]
    assert any(line.startswith(f"thread {os.getpid()} ") for line in threads(os.getpid()))
