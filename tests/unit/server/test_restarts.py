# SPDX-License-Identifier: Apache-2.0
"""When a server is started anew, after which wait, and when it is given up."""

import time
from collections.abc import Callable

import pytest

from trellis.server import restarts
from trellis.server.restarts import LOADS, STEADY_SECONDS, Restarts, keep_serving, load
from trellis.server.settings import LoadGivenUp, ServerFailed


def test_each_waits_twice_as_long_up_to_a_minute_and_then_it_is_given_up() -> None:
    made = Restarts(8)
    waits = [made.after(5.0) for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, None]
    assert made.after(5.0) is None


def test_a_server_that_ran_long_begins_anew() -> None:
    made = Restarts(2)
    assert [made.after(1), made.after(1), made.after(STEADY_SECONDS), made.after(0)] == [1, 2, 1, 2]
    assert made.after(1) is None


def test_none_is_asked_for() -> None:
    assert Restarts(0).after(10**6) is None


class Server:
    """Fails at each watch for the next of its reasons, and then is asked to stop."""

    def __init__(self, *reasons: str, loads: bool = True, given_up: int = 0) -> None:
        """`given_up`: how many loads Triton gives up."""
        self.reasons = list(reasons)
        self.given_up = given_up
        self.loads = loads
        self.did: list[str] = []
        self.stopped = False

    def wait_ready(self, look: Callable[[float], None]) -> float:
        self.did.append("ready")
        if self.given_up:
            self.given_up -= 1
            raise LoadGivenUp("Triton gave it up")
        if not self.loads and self.did.count("ready") > 1:
            raise ServerFailed("it does not load")
        return 1.5

    def watch(self, stopping: Callable[[], bool]) -> str | None:
        if self.reasons:
            return self.reasons.pop(0)
        self.stopped = True
        return None

    def put_down(self) -> None:
        self.did.append("down")

    def start_again(self) -> None:
        self.did.append("start")

    def stopping(self) -> bool:
        return self.stopped


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "MOST_SECONDS", 0.01)


def keep(server: Server, most: int) -> tuple[str | None, list[float]]:
    ready: list[float] = []
    why = keep_serving(server, most, server.stopping, ready.append)  # type: ignore[arg-type]
    return why, ready


@pytest.mark.usefixtures("fast")
def test_a_server_that_fails_is_started_anew_until_it_is_asked_to_stop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server("it died", "it hung")
    assert keep(server, 2) == (None, [1.5] * 3)
    assert server.did == ["ready", *["down", "start", "ready"] * 2]
    said = capsys.readouterr().err
    assert "it died; starting it anew in 0.01 s (1 of 2)" in said
    assert "it hung; starting it anew in 0.01 s (2 of 2)" in said


@pytest.mark.usefixtures("fast")
def test_one_that_fails_too_often_is_given_up_with_its_last_reason() -> None:
    server = Server("one", "two", "three")
    assert keep(server, 2) == ("three", [1.5] * 3)
    assert server.did[-1] == "ready"  # it was not put down for nothing
    assert keep(Server("one"), 0) == ("one", [1.5])


@pytest.mark.usefixtures("fast")
def test_one_that_does_not_load_again_counts_and_is_given_up() -> None:
    server = Server("it died", loads=False)
    assert keep(server, 3) == ("it does not load", [1.5])
    assert server.did.count("start") == 3


@pytest.mark.usefixtures("fast")
def test_one_that_was_never_ready_is_not_started_anew() -> None:
    server = Server(loads=False)
    server.did.append("ready")
    with pytest.raises(ServerFailed, match="does not load"):
        keep(server, 3)


@pytest.mark.parametrize("most", [0, 2])
def test_a_load_that_triton_gives_up_is_tried_again(
    most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(given_up=LOADS - 1)
    assert keep(server, most) == (None, [1.5])
    assert server.did == ["ready", *["down", "start", "ready"] * (LOADS - 1)]
    assert (
        f"Triton gave it up; starting it anew ({LOADS - 1} of {LOADS - 1})"
        in capsys.readouterr().err
    )


def test_one_that_it_gives_up_each_time_fails() -> None:
    server = Server(given_up=LOADS)
    with pytest.raises(LoadGivenUp):
        keep(server, 5)
    assert server.did[-1] == "ready"
    with pytest.raises(LoadGivenUp):  # others depend on this one's processes
        load(Server(given_up=1), loads=1)  # type: ignore[arg-type]


@pytest.mark.usefixtures("fast")
def test_a_new_start_is_tried_again_too() -> None:
    server = Server("it died")
    waited = Server.wait_ready

    def once(self: Server, look: Callable[[float], None]) -> float:
        self.given_up = int(self.did.count("ready") == 1)
        return waited(self, look)

    server.wait_ready = once.__get__(server)  # type: ignore[method-assign]
    assert keep(server, 1) == (None, [1.5, 1.5])
    assert server.did.count("start") == 2


def test_a_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "MOST_SECONDS", 60.0)
    monkeypatch.setattr(Server, "put_down", lambda self: setattr(self, "stopped", True))
    begin = time.monotonic()
    assert keep(Server("it died"), 3) == (None, [1.5])
    assert time.monotonic() - begin < 0.9
