"""The model's end of the step socket: real sockets, a real scheduler, an engine that counts."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from support.waiting import wait_for
from trellis.contract import metrics
from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.engine_host import step_server
from trellis.engine_host.answers import Answer
from trellis.engine_host.engines.engine import (
    Extras,
    Failure,
    FinishReason,
    Progress,
    Sampling,
)
from trellis.engine_host.queue import Overloaded, RequestQueue
from trellis.engine_host.request_reader import Asked
from trellis.engine_host.scheduler import Admission, Scheduler
from trellis.engine_host.senders import Senders
from trellis.engine_host.sequences import Row
from trellis.engine_host.step_answers import StepAnswer
from trellis.engine_host.step_inputs import read_step_inputs, with_step_inputs
from trellis.engine_host.step_server import StepConnection, StepServer
from trellis.errors import RequestError
from trellis.ipc import frames as wire
from trellis.ipc.frames import Frames, frame, step_address
from trellis.ipc.heartbeats import heartbeats

MODEL = "tensorrt_llm"
GUIDED = {GUIDE_TYPE: "json"}


class Engine:
    """Gives each request the ids 0, 1, 2 ..., one a step; it stands still while `pause` is set."""

    def __init__(self) -> None:
        self.running: dict[int, list[int]] = {}
        self.asked: dict[int, Sampling] = {}
        self.cancelled: list[int] = []
        self.pause = threading.Event()
        self.top = 1  # likeliest tokens

    def refuse(self, sampling: Sampling) -> None:
        pass

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        self.asked[key] = sampling
        self.running[key] = [0, sampling.max_tokens, int(ids[0])]

    def step(self) -> Any:
        time.sleep(0.0005)
        if self.pause.is_set():
            return
        for key, state in list(self.running.items()):
            made, wanted, first = state
            if first == 13 and made == 2:
                del self.running[key]
                yield Failure(key, "thirteen")
                continue
            state[0] += 1
            if state[0] == wanted:
                del self.running[key]
            finish: FinishReason | None = "length" if state[0] == wanted else None
            yield Progress(key, 0, [made], finish, [-1.5], -3.0, self.extras(key, made))

    def extras(self, key: int, made: int) -> Extras | None:
        """The id itself as the likeliest; a prompt of two; five of it were cached."""
        if not self.asked[key].extras:
            return None
        tops = [[(made, -1.5)] * self.top]
        if made:
            return Extras(tops)
        asked = self.asked[key].prompt_log_probs
        return Extras(tops, [None, (-2.0, [(9, -0.5)])] if asked else None, 5)

    def cancel(self, key: int) -> None:
        if self.running.pop(key, None):
            self.cancelled.append(key)

    @property
    def busy(self) -> bool:
        return bool(self.running)

    def close(self) -> None:
        pass


class Host:
    """What the model does, without Triton."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.senders = Senders()
        line: RequestQueue[Admission] = RequestQueue(64, 2)
        self.loop = Scheduler(lambda: self.engine, self.senders, line)
        self.keys = 0
        self.read: list[int] = []  # numbers of requests that were read
        self.reads_guides = threading.Event()
        self.reads_guides.set()
        self.server = StepServer(MODEL, "1", os.getpid(), self)

    def ask(self, connection: StepConnection, number: int, body: dict[str, Any]) -> None:
        self.read.append(number)
        if GUIDE_TYPE in body:
            self.reads_guides.wait(10)
        sampling = Sampling(max_tokens=body["tokens"], log_probs=body.get("log_probs", False))
        sampling = with_step_inputs(sampling, read_step_inputs(body))
        row = Row(0, sampling, 1, [], lambda: None)
        prompt = np.array([body.get("first", 1)])
        asked = Asked([prompt], [row], body.get("stream", True), frozenset(), None)
        answer = StepAnswer(number, connection, asked, "")
        connection.answers[number] = answer
        self.keys += 1
        try:
            if body["tokens"] > 100_000:
                raise RequestError("max_tokens: too many")
            self.loop.submit([Admission(self.keys, prompt, sampling, answer, 0)])
        except RequestError as error:
            connection.refuse(number, str(error), "INVALID_ARG")
        except Overloaded as error:
            connection.refuse(number, str(error), "UNAVAILABLE")

    def leave(self, answer: Answer) -> None:
        self.loop.cancel(answer)

    def close(self) -> None:
        self.loop.close()
        self.server.close()
        self.senders.close()


class Client:
    """The gateway's end."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(step_address(MODEL, os.getpid()))
        self.socket.settimeout(10)
        self.frames = Frames()
        self.events: list[list[Any]] = []
        self.steps = 0
        self.summaries: dict[int, list[Any]] = {}  # of answers that ended
        self.hello = self.receive()

    def receive(self) -> list[list[Any]]:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        messages = self.frames.feed(data)
        for message in messages:
            if message[0] == "events":
                self.steps += 1
                self.events += message[1]
                for event in message[1]:
                    if len(event) > 3 and event[2]:
                        self.summaries[event[0]] = event[4].pop("summary")
        return messages

    def ask(self, number: int, **body: Any) -> None:
        self.socket.sendall(frame("ask", number, body))

    def ends(self) -> set[int]:
        return {event[0] for event in self.events if len(event) == 3 or (event[2:] and event[2])}

    def read_until_ended(self, *numbers: int) -> None:
        while not self.ends() >= set(numbers):
            self.receive()

    def ids(self, number: int) -> list[int]:
        return [i for event in self.events if event[0] == number for i in event[1]]


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    made = Client()
    yield made
    made.socket.close()


def test_it_says_who_it_is(client: Client) -> None:
    about = {"protocol": 1, "version": "1", "no_guides": ""}
    assert client.hello == [["hello", about]]


def test_the_last_event_says_how_it_went(host: Host, client: Client) -> None:
    client.ask(1, tokens=3, return_cached_tokens=True)
    client.ask(2, tokens=2, stream=False)
    client.read_until_ended(1, 2)
    finish, cached, queued, lasted = client.summaries[1]
    assert (finish, cached, lasted) == ("length", 5, 0)
    assert 0 < queued < 5
    finish, cached, queued, lasted = client.summaries[2]
    assert (finish, cached) == ("length", None)
    assert 0 < queued < 5
    assert 0 < lasted < 5, "of a whole answer"
    assert (host.loop.figures()[metrics.STEPS] or 0) >= 3


def test_a_step_of_many_streams_is_one_message(host: Host, client: Client) -> None:
    host.engine.pause.set()
    numbers = range(1, 33)
    for number in numbers:
        client.ask(number, tokens=50)
    wait_for(lambda: len(host.engine.running) == 32)
    host.engine.pause.clear()
    client.read_until_ended(*numbers)
    assert all(client.ids(number) == list(range(50)) for number in numbers)
    assert client.steps == 50
    assert len(client.events) == 32 * 50


def test_whole_answers_come_in_one_event_with_what_was_asked_for(client: Client) -> None:
    client.ask(7, tokens=3, stream=False, log_probs=True)
    client.read_until_ended(7)
    outputs = {"cum_log_probs": -3.0, "output_log_probs": [-1.5, -1.5, -1.5]}
    assert client.events == [[7, [0, 1, 2], True, 0, outputs]]


def test_a_guide_that_takes_long_to_read_holds_up_nobody_else(host: Host, client: Client) -> None:
    host.reads_guides.clear()
    client.ask(1, tokens=3, **GUIDED)
    client.ask(2, tokens=3)
    client.read_until_ended(2)
    assert client.ends() == {2}
    host.reads_guides.set()
    client.read_until_ended(1)
    assert client.ids(1) == [0, 1, 2]


def test_who_leaves_while_a_guide_is_read_has_no_answer_made(host: Host, client: Client) -> None:
    host.reads_guides.clear()
    host.engine.pause.set()
    client.ask(1, tokens=99_999, **GUIDED)
    client.ask(2, tokens=99_999, **GUIDED)
    wait_for(lambda: host.read == [1])
    for number in (1, 2):
        client.socket.sendall(frame("leave", number))
    client.ask(3, tokens=2)
    wait_for(lambda: 3 in host.read)
    host.reads_guides.set()
    host.engine.pause.clear()
    client.read_until_ended(3)
    client.ask(4, tokens=2, **GUIDED)
    client.read_until_ended(4)
    assert host.read == [1, 3, 4]
    wait_for(lambda: not host.engine.busy)


def test_a_client_that_hangs_up_while_a_guide_is_read_has_no_answer_made(host: Host) -> None:
    host.reads_guides.clear()
    client = Client()
    for number in (1, 2):
        client.ask(number, tokens=99_999, **GUIDED)
    wait_for(lambda: host.read == [1])
    client.socket.close()
    wait_for(lambda: all(each.lost for each in host.server._connections))
    host.reads_guides.set()
    wait_for(lambda: host.keys == 1)
    wait_for(lambda: not host.engine.busy)
    assert host.read == [1]


def whole_answers(host: Host, client: Client, wanted: list[int]) -> None:
    """Of so many tokens each, told in one step: some 48 KiB a token."""
    host.engine.top = 5000
    host.engine.pause.set()
    for number, tokens in enumerate(wanted, 1):
        client.ask(number, tokens=tokens, stream=False, top_log_probs=1)
    wait_for(lambda: len(host.engine.running) == len(wanted))
    host.engine.pause.clear()
    client.read_until_ended(*range(1, len(wanted) + 1))


def test_answers_that_are_too_large_together_come_in_several_messages(
    host: Host, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 2 << 20)
    whole_answers(host, client, [12] * 8)
    assert [client.ids(number) for number in range(1, 9)] == [list(range(12))] * 8
    assert client.steps == 8
    tops = [event[4]["top_log_probs"] for event in client.events]
    assert tops == [[[[token, -1.5]] * 5000 for token in range(12)]] * 8


def test_an_answer_that_is_too_large_alone_ends_with_an_error_and_no_other_does(
    host: Host, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 2 << 20)
    whole_answers(host, client, [12, 60, 12])
    (error,) = [event for event in client.events if event[0] == 2]
    assert "fewer log probabilities" in error[1]
    assert client.ids(1) == client.ids(3) == list(range(12))
    wait_for(lambda: not host.loop.answers())


def test_a_part_of_a_stream_that_is_too_large_ends_it_at_the_engine_too(
    host: Host, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1 << 20)
    host.engine.top = 150_000
    client.ask(1, tokens=90_000, top_log_probs=1)
    client.read_until_ended(1)
    assert [event[2] for event in client.events] == ["INVALID_ARG"]
    wait_for(lambda: not host.engine.running and host.loop.cancelled == 1)


ASKED = {"top_log_probs": 1, "prompt_log_probs": True, "return_cached_tokens": True}
PROMPT = [None, [-2.0, [[9, -0.5]]]]


def test_log_probs_of_a_whole_answer_come_with_its_one_event(client: Client) -> None:
    client.ask(7, tokens=3, stream=False, **ASKED)
    client.read_until_ended(7)
    outputs = {
        "cum_log_probs": -3.0,
        "output_log_probs": [-1.5] * 3,
        "top_log_probs": [[[number, -1.5]] for number in range(3)],
        "prompt_log_probs": PROMPT,
        "cached_tokens": 5,
    }
    assert client.events == [[7, [0, 1, 2], True, 0, outputs]]


def test_a_stream_tells_each_token_s_once_the_prompt_s_first_and_the_cache_last(
    client: Client,
) -> None:
    client.ask(7, tokens=40, **ASKED)
    client.ask(8, tokens=40)
    client.read_until_ended(7, 8)
    mine = [event for event in client.events if event[0] == 7]
    outputs = [event[4] for event in mine]
    for event, told in zip(mine, outputs, strict=True):
        assert told["top_log_probs"] == [[[token, -1.5]] for token in event[1]]
        assert len(told["output_log_probs"]) == len(event[1])
    assert [told.get("prompt_log_probs") for told in outputs] == [PROMPT] + [None] * (
        len(outputs) - 1
    )
    assert [told.get("cached_tokens") for told in outputs] == [None] * (len(outputs) - 1) + [5]
    others = [event for event in client.events if event[0] == 8]
    assert all(len(event) == 2 for event in others[:-1])
    assert others[-1][4] == {}


def test_what_is_asked_alone_leaves_the_other_events_plain(client: Client) -> None:
    client.ask(7, tokens=40, return_cached_tokens=True)
    client.read_until_ended(7)
    assert all(len(event) == 2 for event in client.events[:-1])
    assert client.events[-1][4] == {"cached_tokens": 5}


def test_errors_are_of_one_request(client: Client) -> None:
    client.ask(1, tokens=1_000_000)
    client.ask(2, tokens=9, first=13)
    client.ask(3, tokens=5)
    client.read_until_ended(1, 2, 3)
    assert [1, "max_tokens: too many", "INVALID_ARG"] in client.events
    assert [2, "thirteen", "INTERNAL"] in client.events
    assert client.ids(3) == [0, 1, 2, 3, 4]


def test_an_overload_is_told_at_once(host: Host, client: Client) -> None:
    host.engine.pause.set()
    for number in range(80):
        client.ask(number, tokens=2)
    refused: set[int] = set()
    while len(refused) < 80 - 66:
        client.receive()
        refused = {event[0] for event in client.events if event[-1] == "UNAVAILABLE"}
    host.engine.pause.clear()
    client.read_until_ended(*range(80))


def test_who_leaves_frees_its_place(host: Host, client: Client) -> None:
    client.ask(1, tokens=90_000)
    client.ask(2, tokens=20)
    client.receive()
    client.socket.sendall(frame("leave", 1) + frame("leave", 99))
    client.read_until_ended(2)
    wait_for(lambda: not host.engine.running)
    assert host.loop.cancelled == 1


def test_a_client_that_is_gone_leaves_nothing(host: Host, client: Client) -> None:
    for number in range(5):
        client.ask(number, tokens=90_000, stream=number % 2 == 0)
    wait_for(lambda: len(host.engine.running) == 5)
    client.socket.close()
    wait_for(lambda: not host.engine.running and not host.loop.answers())
    again = Client()
    again.ask(1, tokens=3)
    again.read_until_ended(1)
    assert again.ids(1) == [0, 1, 2]
    again.socket.close()


def test_nobody_waits_for_a_client_that_does_not_read(host: Host, client: Client) -> None:
    for number in range(30):
        client.ask(number, tokens=4000)
    other = Client()
    other.ask(1, tokens=30)
    other.read_until_ended(1)
    wait_for(lambda: not host.engine.running, 60)  # all was made, most of it not read yet
    client.read_until_ended(*range(30))
    assert all(client.ids(number) == list(range(4000)) for number in range(30))
    assert client.steps < 4000, "what gathered did not leave together"
    other.socket.close()


@pytest.mark.parametrize(
    "sent", [b"\x00\x00\x00\x02{}", b"\xff" * 8, frame("run", 1), frame("ask", "1", {})]
)
def test_what_is_no_request_ends_the_connection_alone(
    host: Host, client: Client, sent: bytes
) -> None:
    other = Client()
    other.ask(1, tokens=200)
    client.socket.sendall(sent)
    with pytest.raises((EOFError, ConnectionError)):
        client.read_until_ended(10_000)
    other.read_until_ended(1)
    assert other.ids(1) == list(range(200))
    other.socket.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_not_served(host: Host) -> None:
    program = (
        "import os, socket, sys; os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(bytes.fromhex(sys.argv[1]))\n"
        "s.settimeout(5); print(len(s.recv(100)))"
    )
    address = step_address(MODEL, os.getpid()).hex()
    done = subprocess.run(
        [sys.executable, "-c", program, address], capture_output=True, text=True, timeout=20
    )
    assert (done.stdout.strip() or done.stderr.splitlines()[-1]) in (
        "0",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    )


def test_a_model_that_replaces_another_listens_once_that_is_gone(host: Host) -> None:
    later = StepServer(MODEL, "2", os.getpid(), host)
    assert Client().hello[0][1]["version"] == "1"
    host.server.close()

    def version() -> str:
        try:
            return str(Client().hello[0][1]["version"])
        except OSError:
            return ""

    wait_for(lambda: version() == "2")
    later.close()


def test_a_request_that_is_never_taken_is_seen_as_a_batch_that_does_not_end(
    host: Host, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(host, "ask", lambda *_: gate.wait())

    def stuck() -> list[float]:
        name = "a thread that reads a step socket"
        return [row.began for row in heartbeats().rows() if row.name == name and row.began]

    assert stuck() == []
    client.ask(1, tokens=1)
    wait_for(lambda: len(stuck()) == 1)
    gate.set()
    wait_for(lambda: stuck() == [])


def test_each_of_many_messages_that_come_together_has_its_own_time(
    host: Host, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def ask(*_: Any) -> None:
        name = "a thread that reads a step socket"
        began.extend(row.began for row in heartbeats().rows() if row.name == name and row.began)
        time.sleep(0.01)

    monkeypatch.setattr(host, "ask", ask)
    client.socket.sendall(b"".join(frame("ask", number, {}) for number in range(8)))
    wait_for(lambda: len(began) == 8)
    assert all(after - before >= 0.01 for before, after in pairwise(began))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_connections_are_taken_again_once_there_are_descriptors(
    host: Host, left: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`left`: those that are free when a client comes; a connection takes three."""
    monkeypatch.setattr(step_server, "ACCEPT_SECONDS", 0.05)
    rows = sum(row.pid > 0 for row in heartbeats().rows())
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(left)]
    holes = fill_descriptors()
    try:
        for each in spare:
            os.close(each)
        waiting.connect(step_address(MODEL, os.getpid()))
        wait_for(lambda: "could not take a connection" in caplog.text)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in holes:
            os.close(each)
    waiting.close()
    client = Client()
    client.ask(1, tokens=3)
    client.read_until_ended(1)
    assert client.ids(1) == [0, 1, 2]
    client.socket.close()
    wait_for(lambda: sum(row.pid > 0 for row in heartbeats().rows()) == rows)


def fill_descriptors() -> list[int]:
    """Take all descriptors of the process, of which it may have no more than it has at most."""
    lowest = os.open(os.devnull, os.O_RDONLY)
    taken = [lowest]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    return taken
