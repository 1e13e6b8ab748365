# SPDX-License-Identifier: Apache-2.0
"""Launchers of several hosts notice that another one stopped, failed, died or went silent."""

import socket
from collections.abc import Iterator

import pytest

from support.waiting import wait_for
from trellis.engine_host.engines.topology import Topology
from trellis.ranks import peers as module
from trellis.ranks.options import RanksError
from trellis.ranks.peers import Peers
from trellis.server.ports import free_ports


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where they meet; the launchers' own port is the one after it."""
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1.0)
    return free_ports(1)[0] - 1


@pytest.fixture
def head(port: int) -> Iterator[Peers]:
    with Peers(Topology(3, 3, 0, "127.0.0.1", port)) as first:
        yield first


def other(port: int, host: int = 1) -> Peers:
    return Peers(Topology(3, 3, host, "127.0.0.1", port))


def test_hosts_that_are_there_say_nothing_else(port: int, head: Peers) -> None:
    with other(port) as second, other(port, 2) as third:
        wait_for(lambda: head.joined == {1, 2}, 5)
        with pytest.raises(AssertionError):
            wait_for(lambda: bool(head.why or second.why or third.why), 2)


def test_a_host_may_come_before_the_first(port: int) -> None:
    with other(port) as second, Peers(Topology(3, 3, 0, "127.0.0.1", port)) as head:
        wait_for(lambda: head.joined == {1} and second.joined == {0}, 5)


def test_a_host_that_was_stopped_says_so(port: int, head: Peers) -> None:
    with other(port):
        wait_for(lambda: head.joined == {1}, 5)
    wait_for(lambda: head.why == "host 1 was asked to stop", 5)
    assert head.orderly


def test_a_host_that_failed_says_so(port: int, head: Peers) -> None:
    second = other(port)
    wait_for(lambda: head.joined == {1}, 5)
    second.__exit__(RuntimeError, RuntimeError(), None)
    wait_for(lambda: head.why == "host 1 failed; its own log says why", 5)
    assert not head.orderly


def test_the_first_host_s_end_reaches_all_others(port: int) -> None:
    with other(port) as second, other(port, 2) as third:
        with Peers(Topology(3, 3, 0, "127.0.0.1", port)) as head:
            wait_for(lambda: head.joined == {1, 2}, 5)
        wait_for(lambda: bool(second.why and third.why), 5)
        assert (second.why, second.orderly) == ("host 0 was asked to stop", True)


def greeted(port: int, head: Peers) -> socket.socket:
    """A host that says nothing by itself."""
    connection = socket.create_connection(("127.0.0.1", port + 1))
    connection.sendall(b"trellis 1 of 3\n")
    wait_for(lambda: head.joined == {1}, 5)
    return connection


def test_a_connection_that_ends_without_a_word_is_a_death(port: int, head: Peers) -> None:
    greeted(port, head).close()
    wait_for(lambda: head.why == "host 1 is gone", 0.9)
    assert not head.orderly


def test_silence_is_a_death(port: int, head: Peers) -> None:
    with greeted(port, head):
        assert not head.why
        wait_for(lambda: head.why == "host 1 is gone", 5)


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n\r\n", b"trellis 3 of 3\n", b"trellis 0 of 3\n"]
)
def test_who_is_no_host_of_this_server_is_sent_away(port: int, head: Peers, words: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port + 1)) as stranger:
        stranger.sendall(words)
        stranger.settimeout(5)
        assert stranger.recv(10) == b""
    assert (head.joined, head.why) == (set(), "")


def test_a_second_one_of_a_number_is_sent_away(port: int, head: Peers) -> None:
    with other(port), socket.create_connection(("127.0.0.1", port + 1)) as again:
        wait_for(lambda: head.joined == {1}, 5)
        again.sendall(b"trellis 1 of 3\n")
        again.settimeout(5)
        assert again.recv(10) == b""
        assert not head.why


def test_a_taken_port_is_named(port: int, head: Peers) -> None:
    with pytest.raises(RanksError, match=f"MASTER_PORT: {port + 1}, the port after it"):
        Peers(Topology(3, 3, 0, "127.0.0.1", port))
