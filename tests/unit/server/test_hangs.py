"""The launcher's view of hangs: rows that stand still, stopped processes, a mute server."""

import os
import signal
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support.fake_triton_http import FakeTriton
from trellis.ipc.heartbeats import Heartbeats
from trellis.ipc.process_state import STOPPED, state
from trellis.server import hangs
from trellis.server.hangs import GRACE_SECONDS, Hang, Hangs, get, threads
from trellis.server.model_queues import Queue, QueueStalls, queues

LIMIT = 5.0
WAIT = "requests wait for it"
NOBODY = 2**22 + 1  # no process


class Watched:
    """A table, and looks at it by a clock of the test's."""

    def __init__(self, limit: float = LIMIT, port: int = 0) -> None:
        self.table = Heartbeats.make(limit)
        http = ("127.0.0.1", port) if port else None
        self.hangs = Hangs(self.table, (NOBODY, "tritonserver"), http, http)
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


def test_threads_of_one_process_and_name_are_told_apart(watched: Watched) -> None:
    hangs, works = (watched.table.claim("a thread") for _ in range(2))
    with hangs.working():
        for _ in range(int(LIMIT) - 1):
            with works.working():
                assert watched.after(1.0) == ""
        assert "a thread" in watched.after(2)


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


def page(pending: int, ran: int, active: int = 0, iterations: int = 0) -> str:
    """Of Triton's metrics, as 24.10 and the C++ backend write them."""
    return f"""# HELP nv_inference_pending_request_count Instantaneous number of pending requests
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="ensemble",version="1"}} 0
nv_inference_pending_request_count{{model="preprocessing",version="1"}} {pending}
nv_inference_exec_count{{model="preprocessing",version="1"}} {ran}
nv_inference_exec_count{{model="ensemble",version="1"}} 0
nv_inference_request_failure{{model="preprocessing",reason="OTHER",version="1"}} 3
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="waiting",version="1"}} 9
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="active",version="1"}} {active}
nv_trt_llm_general_metrics{{general_type="timestamp",model="tensorrt_llm",version="1"}} 1.7e+09
nv_trt_llm_general_metrics{{general_type="iteration_counter",model="tensorrt_llm",version="1"}} \
{iterations}
nv_gpu_utilization 0.5
"""


class TestQueues:
    def test_only_what_waits_is_a_queue(self) -> None:
        assert list(queues(page(0, 7))) == []
        assert list(queues("")) == []
        assert list(queues(page(2, 7, active=4, iterations=50))) == [
            Queue("preprocessing", "requests wait for it", 2, 7 + 3),
            Queue("tensorrt_llm", "requests run in its engine", 4, 50),
        ]

    def test_a_queue_that_moves_or_is_empty_now_and_then_is_no_stall(self) -> None:
        stalls = QueueStalls()
        assert stalls.look(page(1, 1), 0.0) == (0.0, Queue("preprocessing", WAIT, 1, 4))
        for second in range(2, 100):
            found = stalls.look(page(9, second), float(second))
            assert found is not None
            assert found[0] == 0
        assert stalls.look(page(0, 99), 100.0) is None
        found = stalls.look(page(9, 99), 101.0)
        assert found is not None
        assert found[0] == 0

    def test_requests_that_nobody_takes_are_a_hang_of_that_models_process(
        self, watched: Watched
    ) -> None:
        watched.table.claim("the process of preprocessing").beat()
        watched.hangs._probe = SimpleNamespace(  # type: ignore[assignment]
            page=page(3, 7), answers=None, close=lambda: None
        )
        assert watched.after(LIMIT + GRACE_SECONDS - 0.5) == ""
        what = watched.after(2)
        assert what.startswith("preprocessing: 3 requests wait for it, and none has left it for")
        assert f"its process (pid {os.getpid()})" in what

    def test_a_c_backend_that_makes_no_iteration_is_a_hang(self, watched: Watched) -> None:
        probe = SimpleNamespace(page="", answers=None, close=lambda: None)
        watched.hangs._probe = probe  # type: ignore[assignment]
        for iteration in range(40):
            probe.page = page(0, 7, 2, iteration)
            assert watched.after(0.5) == ""
        assert "tensorrt_llm: 2 requests run in its engine" in watched.after(LIMIT + 5)

    def test_a_page_that_cannot_be_had_is_none(self) -> None:
        with FakeTriton() as triton:
            assert get(("127.0.0.1", triton.port), "/metrics", 5) is not None
        assert get(("127.0.0.1", triton.port), "/metrics", 5) is None
