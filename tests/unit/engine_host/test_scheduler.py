"""The engine host, with an engine and senders that misbehave: every answer ends, exactly once."""

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from support.fake_triton import Sender, TritonError
from trellis.engine_host.engines.engine import Failure, Progress, Sampling
from trellis.engine_host.queue import RequestQueue
from trellis.engine_host.scheduler import Admission, Scheduler
from trellis.engine_host.senders import Senders
from trellis.engine_host.sequences import Row
from trellis.engine_host.triton_answers import TritonAnswer


class Engine:
    """Gives every request the ids 1, 2, 3 ... one a step; `fault` may replace a step."""

    def __init__(self) -> None:
        self.running: dict[int, list[int]] = {}  # key -> [made, wanted]
        self.fault: Callable[[int], Progress | Failure | None] = lambda key: None
        self.cancelled: list[int] = []

    def refuse(self, sampling: Sampling) -> None:
        pass

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        if ids[0] == 13:
            raise ValueError("thirteen")
        self.running[key] = [0, sampling.max_tokens]

    def step(self) -> Iterable[Progress | Failure]:
        time.sleep(0.001)
        for key in list(self.running):
            if key not in self.running:
                continue
            fault = self.fault(key)
            if fault is not None:
                self.running.pop(key)
                yield fault
                continue
            self.running[key][0] += 1
            made, wanted = self.running[key]
            if made == wanted:
                self.running.pop(key)
            yield Progress(key, 0, [made], "length" if made == wanted else None, [], 0.0)

    def cancel(self, key: int) -> None:
        self.cancelled.append(key)
        self.running.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self.running)

    def close(self) -> None:
        pass


class Host:
    """The engine host as model.py puts it together."""

    def __init__(self, line: RequestQueue[Admission] | None = None) -> None:
        line = RequestQueue(places=64) if line is None else line
        self.engine = Engine()
        self.senders = Senders()
        self.loop = Scheduler(lambda: self.engine, self.senders, line)
        self.keys = 0

    def ask(
        self, prompts: list[int], tokens: int = 5, streaming: bool = False, fail_at: int = 0
    ) -> Sender:
        sender = Sender(fail_at or None)
        sampling = Sampling(max_tokens=tokens)
        rows = [Row(1 << 16, sampling, 1, [], lambda: None) for _ in prompts]
        answer = TritonAnswer(sender, self.senders, rows, streaming, frozenset())
        admissions = []
        for row, prompt in enumerate(prompts):
            self.keys += 1
            admissions.append(Admission(self.keys, np.array([prompt]), sampling, answer, row))
        self.loop.submit(admissions)
        return sender

    def wait(self, *senders: Sender) -> None:
        end = time.monotonic() + 10
        while not all(sender.finals for sender in senders):
            assert time.monotonic() < end, "an answer never ended"
            time.sleep(0.005)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.loop.close()
    made.senders.close()


def ids(sender: Sender) -> list[int]:
    return [i for response in sender.sent for i in response.array("output_ids").reshape(-1)]


def error(sender: Sender) -> str:
    return failure(sender).message


def failure(sender: Sender) -> TritonError:
    assert sender.sent[-1].error is not None
    return sender.sent[-1].error


def test_streams_and_whole_answers_carry_every_id_in_order(host: Host) -> None:
    streams = [host.ask([1], 40, streaming=True) for _ in range(20)]
    whole = [host.ask([1, 2], 40) for _ in range(20)]
    host.wait(*streams, *whole)
    assert all(ids(sender) == list(range(1, 41)) for sender in streams)
    assert all(ids(sender) == list(range(1, 41)) * 2 for sender in whole)
    assert all(len(sender.sent) == 1 for sender in whole)


def test_a_failed_row_ends_its_request_and_no_other(host: Host) -> None:
    good = host.ask([1], 200, streaming=True)
    host.engine.fault = lambda key: Failure(key, "no room") if key == 2 else None
    bad = host.ask([1, 1, 1], 200)
    host.wait(bad, good)
    assert error(bad) == "no room"
    assert failure(bad).code == TritonError.INTERNAL
    assert ids(good) == list(range(1, 201))
    assert {3, 4} <= set(host.engine.cancelled)


def test_a_row_that_the_engine_rejects_is_an_invalid_argument(host: Host) -> None:
    host.engine.fault = lambda key: Failure(key, "max_tokens: too many", rejected=True)
    bad = host.ask([1])
    host.wait(bad)
    assert failure(bad).code == TritonError.INVALID_ARG


def test_rows_after_one_that_the_engine_refused_do_not_run(host: Host) -> None:
    bad = host.ask([1, 13, 1], 10_000)
    host.wait(bad)
    assert "thirteen" in error(bad)
    assert not host.engine.busy


def test_an_engine_step_that_raises_ends_all_in_flight_and_the_next_is_served(host: Host) -> None:
    def fault(key: int) -> None:
        if key <= 2:
            raise RuntimeError("out of luck")

    host.engine.fault = fault
    first, second = host.ask([1], 50), host.ask([1], 50, streaming=True)
    host.wait(first, second)
    assert "out of luck" in error(first)
    assert "out of luck" in error(second)
    host.engine.running.clear()
    third = host.ask([1], 3)
    host.wait(third)
    assert ids(third) == [1, 2, 3]


def test_a_response_that_cannot_be_sent_ends_its_request_and_leaves_the_engine(host: Host) -> None:
    bad = host.ask([1], 10_000, streaming=True, fail_at=3)
    good = host.ask([1], 100, streaming=True)
    host.wait(bad, good)
    assert "no room in shared memory" in error(bad)
    assert ids(good) == list(range(1, 101))
    end = time.monotonic() + 5
    while host.engine.busy:
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.01)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_cancelled_answer_ends_and_leaves_the_engine(host: Host, streaming: bool) -> None:
    sender = host.ask([1], 10_000, streaming)
    while not host.loop.answers() or (streaming and not sender.sent):
        time.sleep(0.005)
    (answer,) = host.loop.answers()
    host.loop.cancel(answer)
    host.wait(sender)
    if streaming:
        assert all(response.error is None for response in sender.sent)
    else:
        assert "cancelled" in error(sender)
    assert not answer.cancelled()  # not asked of Triton after the end


def test_closing_ends_what_runs() -> None:
    host = Host()
    sender = host.ask([1], 10_000)
    time.sleep(0.05)
    host.loop.close()
    host.senders.close()
    assert sender.finals == 1
    assert "shutting down" in error(sender)


def test_no_more_run_at_a_time_than_there_are_places_and_all_are_served_in_turn() -> None:
    host = Host(RequestQueue(places=4, most=100))
    most: list[int] = []

    def fault(key: int) -> None:
        most.append(len(host.engine.running))

    host.engine.fault = fault
    senders = [host.ask([1], 5) for _ in range(30)]
    host.wait(*senders)
    assert all(ids(sender) == [1, 2, 3, 4, 5] for sender in senders)
    assert 1 <= max(most) <= 4
    host.loop.close()
    host.senders.close()


def test_a_request_that_waits_too_long_ends_with_an_error_and_never_runs() -> None:
    host = Host(RequestQueue(places=1, most=100, seconds=0.05))
    runs, waits = host.ask([1], 300), host.ask([2], 5)
    host.wait(waits)
    assert "waited 0.05 s" in error(waits)
    assert waits.sent[-1].error is not None
    assert waits.sent[-1].error.code == "UNAVAILABLE"
    host.wait(runs)
    assert ids(runs) == list(range(1, 301))
    host.loop.close()
    host.senders.close()


def test_a_request_cancelled_in_line_leaves_it() -> None:
    line: RequestQueue[Admission] = RequestQueue(places=1, most=100)
    host = Host(line)
    runs, waits = host.ask([1], 300), host.ask([2, 2], 5)
    _, answer = host.loop.answers()
    host.loop.cancel(answer)
    host.wait(waits)
    assert "cancelled" in error(waits)
    assert len(line) == 0
    host.wait(runs)
    host.loop.close()
    host.senders.close()


def test_closing_ends_those_who_wait_too() -> None:
    host = Host(RequestQueue(places=1, most=100))
    senders = [host.ask([1], 10_000) for _ in range(3)]
    time.sleep(0.05)
    host.loop.close()
    host.senders.close()
    assert [error(sender) for sender in senders] == [
        "the model is unloaded or the server is shutting down"
    ] * 3
