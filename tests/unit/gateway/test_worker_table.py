# SPDX-License-Identifier: Apache-2.0
"""What the workers of a gateway count together: each by the memory that all see."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.key_files import KeyFile
from trellis.errors import TrellisError
from trellis.gateway import worker_table
from trellis.gateway.access.accounts import Account
from trellis.gateway.access.key_file import KeyLimits
from trellis.gateway.access.keys import Keyring
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal
from trellis.gateway.request_body import Bodies
from trellis.gateway.server_state import GatewayServerState
from trellis.gateway.worker_table import BODIES, VARIABLE, WorkerTable

WORKERS = 3
ROUNDS = 2000


@pytest.fixture
def tables() -> Iterator[list[WorkerTable]]:
    """The table as each worker sees it."""
    first = WorkerTable.make(WORKERS)
    yield [
        first,
        *(
            WorkerTable(first.descriptor, number, WORKERS, first.first_pid)
            for number in range(1, WORKERS)
        ),
    ]
    os.close(first.descriptor)


def test_a_worker_inherits_the_table_once(
    tables: list[WorkerTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tables[0].environment(2).items():
        monkeypatch.setenv(name, value)
    found = WorkerTable.inherited()
    assert found is not None
    assert (found.number, found.workers, found.first_pid) == (2, WORKERS, os.getpid())
    assert VARIABLE not in os.environ  # what it starts is no worker
    assert WorkerTable.inherited() is None


def test_bodies_of_all_workers_are_bounded_together(tables: list[WorkerTable]) -> None:
    bodies = [Bodies(100, table.share(BODIES)) for table in tables]
    with bodies[0].room() as first, bodies[1].room() as second:
        first.take(60)
        second.take(30)
        with bodies[2].room() as third, pytest.raises(Refusal, match="too large"):
            third.take(11)
        with bodies[2].room() as third:
            third.take(10)
            with pytest.raises(Refusal):
                second.take(1)
    with bodies[2].room() as alone:
        alone.take(100)


class Client:
    """A connection as the counts see it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.transport = self
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_connections_of_an_address_are_counted_together(tables: list[WorkerTable]) -> None:
    limits = Limits(connections_per_address=4)
    states = [GatewayServerState(limits, 100, table) for table in tables]
    mine = [Client("192.0.2.1") for _ in range(4)]
    assert [states[at % WORKERS].admit(each) for at, each in enumerate(mine)] == [None] * 4
    for state in states:
        refused = Client("192.0.2.1")
        refusal = state.admit(refused)
        assert refusal is not None
        assert refusal.status == 429
        state.forget(refused)
        other = Client("192.0.2.2")
        assert state.admit(other) is None
        state.forget(other)
    states[0].forget(mine[0])
    assert states[1].admit(Client("192.0.2.1")) is None


def test_connections_are_bounded_together_and_one_that_waits_makes_room(
    tables: list[WorkerTable],
) -> None:
    states = [GatewayServerState(Limits(connections=4), 100, table) for table in tables]

    def connect(state: GatewayServerState, number: int) -> tuple[Client, Refusal | None]:
        made = Client(f"192.0.2.{number}")
        state.connections.add(made)
        return made, state.admit(made)

    first = [connect(states[at % 2], at) for at in range(4)]
    assert [refusal for _, refusal in first] == [None] * 4
    _, refusal = connect(states[0], 5)
    assert refusal is None
    assert first[0][0].aborted  # this worker's own, the longest idle
    assert not first[1][0].aborted
    _, refusal = connect(states[2], 6)  # it has none that waits
    assert refusal is not None
    assert refusal.status == 503


@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from("abcdef"))))
def test_addresses_are_as_many_as_were_noted(noted: list[tuple[int, str]]) -> None:
    first = WorkerTable.make(WORKERS)
    shares = [
        WorkerTable(first.descriptor, number, WORKERS, 1).addresses() for number in range(WORKERS)
    ]
    for worker, address in noted:
        shares[worker].note(address, 1)
    for number, share in enumerate(shares):
        for address in "abcdef":
            others = sum(worker != number and each == address for worker, each in noted)
            assert share.others(address) == others
    for worker, address in noted:
        shares[worker].note(address, -1)
    assert all(share.others(address) == 0 for share in shares for address in "abcdef")
    os.close(first.descriptor)


class TestKeys:
    def test_what_a_key_takes_is_taken_in_all(self, tables: list[WorkerTable]) -> None:
        limits = KeyLimits(requests_in_flight=2, tokens_per_minute=100)
        accounts = [Account("alice", limits, lambda: 5.0, table.key("alice")) for table in tables]
        with accounts[0].request() as first, accounts[1].request():
            first.reserve(70)
            assert [account.requests for account in accounts] == [2] * WORKERS
            assert [account.tokens for account in accounts] == [70] * WORKERS
            with pytest.raises(Refusal, match="2 requests in flight"), accounts[2].request():
                pass
        with accounts[2].request() as third:
            with pytest.raises(Refusal, match="100 tokens a minute"):
                third.reserve(31)
            third.reserve(30)
        assert accounts[0].requests == accounts[0].tokens == 0

    def test_another_key_is_another_row(self, tables: list[WorkerTable]) -> None:
        numbers = [tables[0].key(name) for name in ("alice", "bob")]
        numbers[0].cells[0] = 7.0
        assert numbers[1].cells[0] == 0.0
        assert tables[1].key("alice").cells[0] == 7.0

    def test_a_new_limit_fills_a_bucket_once(
        self, tables: list[WorkerTable], tmp_path: Path
    ) -> None:
        file = KeyFile(tmp_path / "keys.yaml")
        key = file.add("alice", requests_per_minute=2)
        rings = [Keyring(file.path, lambda: 5.0, table) for table in tables[:2]]
        accounts = [ring.account(key) for ring in rings]
        assert accounts[0] is not None
        assert accounts[1] is not None
        accounts[0].count()
        accounts[1].count()
        with pytest.raises(Refusal):
            accounts[0].count()
        file.add("alice", requests_per_minute=3)
        rings[0].load()
        accounts[0].count()
        rings[1].load()  # later than the first, and no reason to fill it again
        accounts[1].count()
        accounts[0].count()
        with pytest.raises(Refusal):
            accounts[1].count()

    def test_more_names_than_there_is_room_for_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker_table, "KEYS", 4)
        table = WorkerTable.make(2)
        for number in range(4):
            table.key(f"key {number}")
        table.key("key 2")
        with pytest.raises(TrellisError, match="room for 4 names"):
            table.key("one more")
        os.close(table.descriptor)

    def test_processes_that_count_at_once_lose_nothing(self, tables: list[WorkerTable]) -> None:
        context = multiprocessing.get_context("fork")
        others = [
            context.Process(target=_count, args=(table,), daemon=True) for table in tables[1:]
        ]
        for process in others:
            process.start()
        _count(tables[0])
        for process in others:
            process.join(60)
            assert process.exitcode == 0
        account = Account("alice", KeyLimits(), time.monotonic, tables[0].key("alice"))
        assert account.tokens == WORKERS * ROUNDS


def _count(table: WorkerTable) -> None:
    account = Account("alice", KeyLimits(), time.monotonic, table.key("alice"))
    for _ in range(ROUNDS):
        account.reserve(2)
        account.give_back(1)
