# SPDX-License-Identifier: Apache-2.0
"""The workers of a gateway ask each other."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from trellis.gateway import worker_mesh
from trellis.gateway.worker_mesh import WorkerLost, WorkerMesh
from trellis.gateway.worker_table import WorkerTable
from trellis.ipc.frames import frame
from trellis.ipc.sockets import server_address

WORKERS = 3


@pytest.fixture
def tables() -> Iterator[list[WorkerTable]]:
    first = WorkerTable.make(WORKERS)
    rest = [WorkerTable(first.descriptor, at, WORKERS, first.first_pid) for at in (1, 2)]
    yield [first, *rest]
    os.close(first.descriptor)


@asynccontextmanager
async def meshes(tables: list[WorkerTable], heard: list[Any]) -> AsyncIterator[list[WorkerMesh]]:
    """All of them, listening. `who`: their number and what they were told; `fail`: an error."""

    def mesh(table: WorkerTable) -> WorkerMesh:
        def who(text: str) -> list[Any]:
            heard.append((table.number, text))
            return [table.number, text]

        def fail() -> None:
            raise RuntimeError("on purpose")

        return WorkerMesh(table, {"who": who, "fail": fail})

    made = [mesh(table) for table in tables]
    for each in made:
        each.start()
    try:
        yield made
    finally:
        for each in made:
            each.close()


def test_each_of_the_others_answers(tables: list[WorkerTable]) -> None:
    async def go() -> None:
        long = "긴 글 🙂" * 200_000
        async with meshes(tables, []) as made:
            for number, mesh in enumerate(made):
                others = [at for at in range(WORKERS) if at != number]
                assert await mesh.ask("who", long) == [[at, long] for at in others]

    asyncio.run(go())


def test_what_is_told_is_heard_by_all(tables: list[WorkerTable]) -> None:
    async def go() -> None:
        heard: list[Any] = []
        async with meshes(tables, heard) as made:
            made[1].tell("who", "now")
            while len(heard) < 2:
                await asyncio.sleep(0.01)
        assert sorted(heard) == [(0, "now"), (2, "now")]

    asyncio.run(go())


def test_one_that_does_not_listen_yet_is_left_out(tables: list[WorkerTable]) -> None:
    async def go() -> None:
        async with meshes(tables[:2], []) as made:
            assert await made[0].ask("who", "") == [[1, ""]]

    asyncio.run(go())


def test_one_that_listened_before_is_lost(tables: list[WorkerTable]) -> None:
    """Else the sums on the metrics page would go back while the workers end."""

    async def go() -> None:
        async with meshes(tables, []) as made:
            assert await made[0].ask("who", "") == [[1, ""], [2, ""]]
            made[1].close()
            for mesh in (made[0], made[2]):
                with pytest.raises(WorkerLost, match="worker 1 has ended"):
                    await mesh.ask("who", "")

    asyncio.run(go())


def test_nobody_can_take_an_address_beforehand() -> None:
    """Another user of the machine who had it would keep the gateway from starting."""
    tables = [WorkerTable.make(WORKERS) for _ in range(2)]
    assert tables[0].first_pid == tables[1].first_pid
    assert tables[0].name != tables[1].name
    same = WorkerTable(tables[0].descriptor, 1, WORKERS, tables[0].first_pid)
    assert same.name == tables[0].name

    async def go() -> None:
        async with meshes(tables[:1], []), meshes(tables[1:], []):
            pass

    try:
        asyncio.run(go())
    finally:
        for table in tables:
            os.close(table.descriptor)


def test_a_worker_without_descriptors_says_so(
    tables: list[WorkerTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with meshes(tables[:2], []) as made:

            def none_left(*_: Any) -> Any:
                raise OSError(24, "Too many open files")

            with monkeypatch.context() as patched:
                patched.setattr(socket, "socket", none_left)
                with pytest.raises(WorkerLost, match="worker 1 cannot be asked: "):
                    await made[0].ask("who", "")
            assert await made[0].ask("who", "") == [[1, ""]]

    asyncio.run(go())


def test_one_that_fails_or_says_nothing_is_lost(
    tables: list[WorkerTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_mesh, "ANSWER_SECONDS", 0.3)

    async def go() -> None:
        async with meshes(tables[:2], []) as made:
            with pytest.raises(WorkerLost, match="worker 1 does not answer"):
                await made[0].ask("fail")
            assert await made[0].ask("who", "still") == [[1, "still"]]
            address = server_address(f"gateway.{tables[0].name}.2", tables[0].first_pid)
            with socket.socket(socket.AF_UNIX) as silent:
                silent.bind(address)
                silent.listen()
                with pytest.raises(WorkerLost, match="worker 2 does not answer"):
                    await made[0].ask("who", "")

    asyncio.run(go())


@pytest.mark.parametrize("sent", [b"", b"\xff\xff\xff\xff", b"\0\0\0\2{}", frame("none")])
def test_what_is_no_question_leaves_a_worker_as_it_is(
    tables: list[WorkerTable], sent: bytes
) -> None:
    async def go() -> None:
        async with meshes(tables[:2], []) as made:
            address = server_address(f"gateway.{tables[0].name}.1", tables[0].first_pid)
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                client.connect(address)
                await loop.sock_sendall(client, sent)
                client.shutdown(socket.SHUT_WR)
                assert await loop.sock_recv(client, 1) == b""
            assert await made[0].ask("who", "still") == [[1, "still"]]

    asyncio.run(go())


def test_a_gateway_of_one_process_asks_nobody() -> None:
    async def go() -> None:
        mesh = WorkerMesh(None, {})
        mesh.start()
        assert await mesh.ask("who", "") == []
        mesh.tell("who", "")
        mesh.close()

    asyncio.run(go())
