"""Clients that hang up: whatever becomes of a first notice, their requests are stopped."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.fake_triton_http import FakeTriton, Host
from support.gateway_process import gateway
from support.gateway_wire import Wire, stream, wait_for

ASKED = {"text_input": "x"}


@contextmanager
def front(
    triton: FakeTriton, pid: int, exit_timeout: float = 5.0
) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A gateway before it: its port and process."""
    with gateway(triton.port, pid, exit_timeout) as running:
        yield running.port, running.process


def hang_up(port: int, **more: str) -> None:
    """Ask for a stream, and leave with the first of it."""
    with Wire(port) as wire:
        wire.send(stream({**ASKED, **more}))
        assert wire.socket.recv(10) == b"HTTP/1.1 2"


def end(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    """Have it stop; what it said."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=seconds)[1].decode()
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_notice_that_found_nobody_is_told_again_to_who_listens_later() -> None:
    host = Host()
    with FakeTriton() as triton, front(triton, host.pid) as (port, _):
        hang_up(port)
        hang_up(port)
        time.sleep(0.5)
        with host.bound() as listener:
            host.listen(listener, triton, 2.5)
        assert sorted(host.heard) == sorted(asked.token for asked in triton.streams)
        wait_for(lambda: all(asked.over for asked in triton.streams))


@pytest.mark.slow
def test_a_notice_that_found_a_full_queue_is_told_again() -> None:
    host = Host()
    with FakeTriton() as triton, front(triton, host.pid) as (port, _), host.bound() as listener:
        host.fill()
        hang_up(port)
        time.sleep(0.7)  # more than it waits for a place
        host.listen(listener, triton, 2.5)
        assert host.heard == [triton.streams[0].token]
        wait_for(lambda: triton.streams[0].over)


@pytest.mark.slow
def test_a_notice_that_was_heard_is_told_once() -> None:
    host = Host()
    with FakeTriton() as triton, front(triton, host.pid) as (port, _), host.bound() as listener:
        hang_up(port)
        host.listen(listener, triton, 3.0)
        assert host.heard == [triton.streams[0].token]


@pytest.mark.slow
def test_an_engine_that_knows_ids_is_told_no_tokens_but_stopped_until_it_stops() -> None:
    """Stops that come before the request itself comes out of its queue stop nothing."""
    host = Host()
    with (
        FakeTriton(by_id=True, deaf_to=3) as triton,
        front(triton, host.pid) as (port, _),
        host.bound() as listener,
    ):
        hang_up(port, id="late")
        wait_for(lambda: triton.streams[0].over, 10)
        host.listen(listener, triton, 2.0)
        inner = triton.streams[0].id
        assert inner != "late"
        assert (triton.stops, host.heard) == ([inner] * len(triton.stops), [])
        assert len(triton.stops) in (4, 5)  # one may have been on its way


@pytest.mark.slow
@pytest.mark.slow
def test_a_host_that_hears_nothing_keeps_no_front_from_ending() -> None:
    host = Host()
    with (
        FakeTriton() as triton,
        front(triton, host.pid, 0.3) as (port, process),
        host.bound(),
    ):
        host.fill()
        for _ in range(60):
            hang_up(port)
        assert end(process, 4) == ""


@pytest.mark.slow
@pytest.mark.parametrize("by_id", [True, False])
def test_what_is_cut_off_as_the_front_ends_is_stopped(by_id: bool) -> None:
    host = Host()
    with (
        FakeTriton(by_id) as triton,
        front(triton, host.pid, 0.3) as (port, process),
        Wire(port) as wire,
        host.bound() as listener,
    ):
        wire.send(stream({**ASKED, "id": "last"}))
        assert wire.socket.recv(10) == b"HTTP/1.1 2"
        assert end(process, 4) == ""
        host.listen(listener, triton, 0.2)
        tokens = set() if by_id else {triton.streams[0].token}
        stops = [triton.streams[0].id] if by_id else []
        assert (triton.stops[:1], set(host.heard)) == (stops, tokens)


@pytest.mark.slow
def test_a_configuration_that_breaks_off_is_an_answer_to_who_waits_for_it() -> None:
    with FakeTriton() as triton, front(triton, 1) as (port, _), Wire(port, 10) as wire:
        triton.breaks_off = True
        assert wire.send(stream(ASKED)).answer().status == 502
