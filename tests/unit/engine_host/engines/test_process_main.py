"""The loop of an engine's own process, and an engine that misbehaves: every request is answered."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe

import numpy as np
import pytest

from trellis.engine_host.engines import process_main
from trellis.engine_host.engines.engine import MAX_FAILED_STEPS, Failure, Progress, Sampling
from trellis.engine_host.engines.process_main import Loop
from trellis.engine_host.engines.process_messages import (
    ADD,
    CANCEL,
    CLOSE,
    EVENTS,
    event_values,
    read_event,
    read_sampling,
    receive,
    sampling_values,
    send,
)
from trellis.errors import RequestError
from trellis.ipc.heartbeats import Heartbeats
from trellis.tokenizers import interpreter


class Engine:
    """Counts: a request of n tokens gets 1, 2 ... n, one a step."""

    def __init__(self) -> None:
        self.running: dict[int, list[int]] = {}  # key -> [made, wanted]
        self.prompts: dict[int, list[int]] = {}
        self.cancelled: list[int] = []
        self.failures = 0  # steps that will fail

    def refuse(self, sampling: Sampling) -> None:
        pass

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        if ids[0] == 13:
            raise ValueError("thirteen")
        if ids[0] == 14:
            raise RequestError("text_input: fourteen")
        self.prompts[key] = ids.tolist()
        self.running[key] = [0, sampling.max_tokens]

    def step(self) -> Iterable[Progress | Failure]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("out of luck")
        for key, state in list(self.running.items()):
            state[0] += 1
            done = state[0] == state[1]
            if done:
                del self.running[key]
            yield Progress(key, 0, [state[0]], "length" if done else None, [-0.5], -1.5)

    def cancel(self, key: int) -> None:
        self.cancelled.append(key)
        self.running.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self.running) or self.failures > 0

    def close(self) -> None:
        pass


class Host:
    """The other end of the pipe, and the loop on a thread."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.pipe, theirs = Pipe()
        self.gone = threading.Event()
        self.error: BaseException | None = None
        self.loop = Loop(self.engine, theirs, host_gone=self.gone.set)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:
            self.error = error

    def add(self, key: int, tokens: int = 3, first: int = 1) -> None:
        send(self.pipe, ADD, key, [first, 2, 3], sampling_values(Sampling(max_tokens=tokens)))

    def events(self, until: int) -> list[Progress | Failure]:
        """What comes, up to the end of request `until`."""
        found: list[Progress | Failure] = []
        while True:
            assert self.pipe.poll(10), f"nothing more after {found}"
            kind, values = receive(self.pipe)
            assert kind == EVENTS
            found += map(read_event, values)
            for event in found:
                if event.key == until and (isinstance(event, Failure) or event.finish):
                    return found


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    made.thread.start()
    yield made
    made.pipe.close()
    assert made.gone.wait(10)


def test_events_arrive_as_they_were_made(host: Host) -> None:
    host.add(7, tokens=2)
    assert host.events(7) == [
        Progress(7, 0, [1], None, [-0.5], -1.5),
        Progress(7, 0, [2], "length", [-0.5], -1.5),
    ]
    assert host.engine.prompts == {7: [1, 2, 3]}


@pytest.mark.parametrize(
    "event",
    [
        Progress(7, 2, [5], None, [], 0.0),
        Progress(7, 0, [], "cancelled", [], 0.0),
        Progress(7, 0, [5, 6], None, [-0.25, -1.0], -1.25),
        Failure(7, "é"),
        Failure(7, "max_tokens: too many", rejected=True),
    ],
)
def test_an_event_arrives_as_it_was_sent(event: Progress | Failure) -> None:
    here, there = Pipe()
    send(here, EVENTS, [event_values(event)])
    assert read_event(receive(there)[1][0]) == event


def test_a_sampling_arrives_as_it_was_sent() -> None:
    sampling = Sampling(max_tokens=5, temperature=0.1 + 0.2, seed=2**64 - 1, bad_words=("a", "é"))
    here, there = Pipe()
    send(here, ADD, sampling_values(sampling))
    assert read_sampling(receive(there)[1]) == sampling


def test_a_request_that_the_engine_refuses_fails_and_no_other(host: Host) -> None:
    host.add(1, tokens=10**9)
    host.add(2, first=13)
    assert Failure(2, "the engine refused the request: thirteen") in host.events(2)
    assert list(host.engine.running) == [1]
    host.add(3)
    assert len([event for event in host.events(3) if event.key == 3]) == 3


def test_what_the_engine_rejects_keeps_its_message(host: Host) -> None:
    host.add(2, first=14)
    assert host.events(2) == [Failure(2, "text_input: fourteen", rejected=True)]


def test_a_step_that_fails_ends_what_runs_and_the_next_request_is_served(host: Host) -> None:
    host.engine.failures = 1
    host.add(1)
    assert host.events(1) == [Failure(1, "the engine failed: out of luck")]
    assert host.engine.cancelled == [1]
    host.add(2)
    assert len(host.events(2)) == 3


def test_steps_that_fail_in_a_row_end_the_process(host: Host) -> None:
    host.engine.failures = MAX_FAILED_STEPS
    host.add(1)
    assert isinstance(host.events(1)[0], Failure)
    host.thread.join(10)
    assert "steps in a row failed" in str(host.error)


def test_a_cancelled_request_leaves_the_engine(host: Host) -> None:
    host.add(1, tokens=10**9)
    send(host.pipe, CANCEL, 1)
    host.add(2)
    host.events(2)
    assert host.engine.cancelled == [1]
    assert not host.engine.running


@pytest.mark.slow
def test_closing_ends_the_loop_while_requests_run(host: Host) -> None:
    host.add(1, tokens=10**9)
    send(host.pipe, CLOSE)
    while host.thread.is_alive():
        assert host.pipe.poll(10) or not host.thread.is_alive()
        while host.pipe.poll(0):
            receive(host.pipe)
    assert not host.thread.is_alive()
    assert host.error is None


def test_a_python_of_this_version_is_found_without_sys_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    path = interpreter.find_python()
    assert interpreter._probe(path) == interpreter._probe(f"{sys.prefix}/bin/python3")


def test_no_python_of_this_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_candidates", lambda version: iter(["/bin/true", "/none"]))
    with pytest.raises(RuntimeError, match=r"among /bin/true, /none: put python3\.\d+ on PATH"):
        interpreter.find_python()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestHeartbeats:
    @pytest.fixture
    def host(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
        monkeypatch.setattr(process_main, "IDLE_SECONDS", 0.02)
        self.table = Heartbeats.make(30)
        self.row = self.table.claim("the engine process", True, True)
        made = Host()
        made.loop._heartbeat = self.row
        self.steps = 0
        self.gate = threading.Event()
        self.gate.set()
        step = made.engine.step

        def waiting() -> Iterable[Progress | Failure]:
            self.gate.wait()
            return step()

        monkeypatch.setattr(made.engine, "step", waiting)
        made.thread.start()
        yield made
        self.gate.set()
        made.pipe.close()
        assert made.gone.wait(10)

    def beats(self, seconds: float = 0.1) -> bool:
        before = self.row.last_beat
        time.sleep(seconds)
        return self.row.last_beat != before

    def make_nothing(self) -> list[Progress]:
        time.sleep(0.001)
        self.steps += 1
        return []

    def test_an_idle_loop_beats_and_steps_do_and_one_that_never_returns_does_not(
        self, host: Host
    ) -> None:
        until(self.beats)
        host.add(1, tokens=2)
        host.events(1)
        until(self.beats)
        self.gate.clear()
        host.add(2)
        until(lambda: not self.beats())
        assert host.thread.is_alive()  # as are all others
        self.gate.set()
        host.events(2)
        until(self.beats)

    def test_steps_of_an_engine_that_counts_prove_what_it_counts(self, host: Host) -> None:
        until(self.beats)
        host.engine.moves = 1  # type: ignore[attr-defined]
        host.engine.step = self.make_nothing  # type: ignore[method-assign]
        host.add(1)
        until(lambda: not self.beats() and self.steps > 10)  # they go on, and make nothing
        before = self.row.last_beat
        host.engine.moves = 2  # type: ignore[attr-defined]
        until(lambda: self.row.last_beat != before)
