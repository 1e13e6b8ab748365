"""Hangs of the engine and the scheduler, by a clock of the test's own and by real processes."""

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trellis.engine_host import hang_watch
from trellis.engine_host.answers import UNAVAILABLE
from trellis.engine_host.engines.engine import Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.engine_host.hang_watch import NO_EVENT_TIMES, HangWatch
from trellis.ipc.heartbeats import Heartbeats
from trellis.ipc.stalls import PROMPT_TOKENS

LIMIT = 30.0
STEP_TOKENS = 256


class Replay:
    """An engine process's side of the model's process, whose messages the test writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_tokens: int) -> None:
        self.table = Heartbeats.make(LIMIT)
        self.engine = EngineProcess.__new__(EngineProcess)
        monkeypatch.setattr(self.engine, "_send", lambda *message: None, raising=False)
        values: dict[str, Any] = {
            "_running": {}, "_unbegun": {}, "silent_seconds": 0.0, "_step_tokens": step_tokens,
            "_process": SimpleNamespace(pid=os.getpid()),
            "_limits": SimpleNamespace(given=lambda sampling: None),
            "heartbeat": self.table.claim("the engine process", True, True),
        }  # fmt: skip
        for name, value in values.items():
            setattr(self.engine, name, value)
        self.row = self.table.claim("the process of tensorrt_llm", True, True)
        self.scheduler = SimpleNamespace(engine=self.engine, running=False, events=0)
        monkeypatch.setattr(hang_watch, "threading", SimpleNamespace(Event=threading.Event,
                            Thread=lambda **_: SimpleNamespace(start=lambda: None)))  # fmt: skip
        self.watch = HangWatch(self.scheduler, self.row, self.table)  # type: ignore[arg-type]
        self.now = 1000.0
        self.steps = 0

    def pass_time(self, seconds: float, step_every: float = 0, event_every: float = 0) -> str:
        """What hangs in that time, if anything does; '' else. The scheduler's loop turns on."""
        for tick in range(1, int(seconds / 0.5) + 1):
            self.now += 0.5
            self._write(self.row)
            if step_every and tick % (step_every / 0.5) == 0:
                self._write(self.engine.heartbeat)
            if event_every and tick % (event_every / 0.5) == 0:
                self.scheduler.events += 1
            if hang := self.watch.look(self.now):
                return hang[0]
        return ""

    def _write(self, row: Any) -> None:
        self.steps += 1
        row._numbers[1] = self.now + self.steps  # as `beat` does, by the test's clock

    def ask(self, key: int, tokens: int, **sampling: Any) -> None:
        self.engine.add(key, np.arange(tokens), Sampling(**sampling))
        self.scheduler.running = True


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    made = Replay(monkeypatch, STEP_TOKENS)
    yield made
    made.table.close()


@pytest.fixture
def unstepped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    """An engine that says nothing of steps which make no token."""
    made = Replay(monkeypatch, 0)
    yield made
    made.table.close()


def test_steps_that_end_are_no_hang_and_one_that_does_not_is(replay: Replay) -> None:
    replay.ask(1, 8)
    assert replay.pass_time(600, step_every=20, event_every=20) == ""
    assert replay.pass_time(LIMIT - 1) == ""
    assert "the engine process made no progress for 3" in replay.pass_time(6)


def test_a_long_prefill_by_steps_is_no_hang(replay: Replay) -> None:
    replay.ask(1, 8192)
    assert replay.pass_time(300, step_every=25) == ""  # no token for five minutes
    assert replay.engine.quiet_seconds == STEP_TOKENS / PROMPT_TOKENS  # of one step alone
    assert "made no progress" in replay.pass_time(LIMIT + STEP_TOKENS / PROMPT_TOKENS + 1)


def test_a_prefill_of_60_seconds_in_one_silence_is_no_hang(unstepped: Replay) -> None:
    unstepped.pass_time(1, step_every=0.5)
    unstepped.ask(1, 4000)
    assert unstepped.pass_time(60) == ""
    unstepped.engine._begun(1)  # its first token came
    assert unstepped.engine.quiet_seconds == 0
    assert "made no progress" in unstepped.pass_time(2)


def test_beams_that_are_told_at_their_end_are_no_hang(unstepped: Replay) -> None:
    unstepped.pass_time(1, step_every=0.5)
    unstepped.ask(1, 8, beam_width=4, max_tokens=1000)
    assert unstepped.pass_time(LIMIT + 90) == ""
    assert "made no progress" in unstepped.pass_time(20)


def test_a_stopped_process_gets_no_time_for_its_prompts(
    unstepped: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    unstepped.pass_time(1, step_every=0.5)
    unstepped.ask(1, 100_000)
    monkeypatch.setattr(hang_watch, "stopped_below", lambda pid: [pid])
    assert unstepped.pass_time(LIMIT - 1) == ""
    assert "made no progress" in unstepped.pass_time(2)


def test_steps_that_make_nothing_for_anybody_are_a_hang_in_the_end(replay: Replay) -> None:
    replay.ask(1, 8)
    assert replay.pass_time(NO_EVENT_TIMES * LIMIT - 1, step_every=1) == ""
    assert "made no token" in replay.pass_time(5, step_every=1)


def test_an_idle_engine_that_beats_is_no_hang_and_one_that_does_not_is(replay: Replay) -> None:
    assert replay.pass_time(600, step_every=1) == ""
    assert "made no progress" in replay.pass_time(LIMIT + 2)


def test_what_the_engine_allows_itself_is_no_hang(replay: Replay) -> None:
    replay.pass_time(1, step_every=0.5)
    replay.engine.heartbeat.allow(900)
    assert replay.pass_time(LIMIT + 800) == ""
    assert "made no progress" in replay.pass_time(200)


def test_an_engine_that_did_not_begin_yet_is_no_hang(replay: Replay) -> None:
    assert replay.pass_time(600) == ""


def test_a_scheduler_that_hangs_is_seen(replay: Replay) -> None:
    replay.pass_time(1, step_every=0.5)
    found = None
    while found is None:
        replay.now += 0.5
        replay._write(replay.engine.heartbeat)
        found = replay.watch.look(replay.now)
    assert "the scheduler of the process of tensorrt_llm hangs" in found[0]
    assert found[1] == os.getpid()


def test_the_end_is_told_to_readiness_then_to_clients(
    replay: Replay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    ended: list[int] = []
    monkeypatch.setattr(hang_watch, "threading", threading)
    monkeypatch.setattr(hang_watch, "LAST_WORDS_SECONDS", 0.2)
    monkeypatch.setattr(hang_watch, "ask_for_stacks", lambda pid: None)

    def fail(message: str) -> None:
        told.append((replay.table.status.hung, message))
        time.sleep(5)  # what hangs has a lock, say: the process ends all the same

    replay.scheduler.fail_at_once = fail
    replay.watch._end = ended.append
    replay.watch._give_up("the engine process made no progress for 30 s", os.getpid())
    ((hung, message),) = told
    assert "made no progress for 30 s" in hung
    assert hung in message
    assert "send the request again" in message
    assert ended == [1]
    assert hung in caplog.text


def test_all_that_wait_are_failed_past_a_loop_that_hangs() -> None:
    from unit.engine_host.test_scheduler import Host, failure

    host = Host()
    gate = threading.Event()

    def block(key: int) -> None:
        gate.wait()

    host.engine.fault = block
    senders = [host.ask([1], 5, streaming=streaming) for streaming in (True, False)]
    while not host.loop.running:
        time.sleep(0.01)
    host.loop.fail_at_once("it hangs")
    host.wait(*senders)
    assert {failure(sender).message for sender in senders} == {"it hangs"}
    assert {failure(sender).code for sender in senders} == {
        getattr(type(failure(senders[0])), UNAVAILABLE)
    }
    gate.set()
    host.loop.close()
