# SPDX-License-Identifier: Apache-2.0
"""How the workers of one gateway ask each other, which they seldom do.

For the metrics page, which shows the sums of all; to stop a request that another worker has; and
when models were loaded. Each worker listens on a Unix stream socket in Linux's abstract namespace;
a question and its answer are a message each, as of ipc/frames.py, on a connection of their own.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from trellis.errors import TrellisError
from trellis.gateway.deadlines import within
from trellis.gateway.worker_table import WorkerTable, iterate_others
from trellis.ipc.frames import MAX_BYTES, frame
from trellis.ipc.sockets import peer_is_ours, server_address

ANSWER_SECONDS = 2.0
BACKLOG = 64
ANSWER = "answer"
_LENGTH = struct.Struct(">I")
Answerer = Callable[..., Any]
log = logging.getLogger("trellis.gateway")


class WorkerLost(TrellisError, RuntimeError):
    """Another worker does not answer."""


class WorkerMesh:
    """This worker's end. Without a table there is no other, and every list of answers is empty."""

    def __init__(self, table: WorkerTable | None, answers: Mapping[str, Answerer]) -> None:
        """`answers`: what answers a question, by its name; JSON's types in and out."""
        self._table = table
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._taking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen for the others. Raises OSError."""
        if self._table is None:
            return
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(_address(self._table, self._table.number))
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._table.listens()
        self._taking = asyncio.create_task(self._take(self._listener))

    def close(self) -> None:
        """Listen no more."""
        for task in (self._taking, *self._tasks):
            if task is not None:
                task.cancel()
        if self._listener is not None:
            self._listener.close()

    async def ask(self, question: str, *values: Any) -> list[Any]:
        """What each of the others answers; not those that do not listen yet. Raises WorkerLost."""
        if self._table is None:
            return []
        numbers = iterate_others(self._table)
        asked = (self._asked(self._table, each, [question, *values]) for each in numbers)
        return [answer for found in await asyncio.gather(*asked) for answer in found]

    def tell(self, question: str, *values: Any) -> None:
        """The same, and nobody waits for the answers."""
        if self._table is not None:
            self._keep(self._told(question, *values))

    async def _told(self, question: str, *values: Any) -> None:
        try:
            await self.ask(question, *values)
        except WorkerLost as error:
            log.error("%s: %s", question, error)

    def _keep(self, work: Any) -> None:
        self._tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self._tasks.discard)

    async def _asked(self, table: WorkerTable, number: int, message: list[Any]) -> list[Any]:
        """Its answer alone in a list; [] where it does not listen yet."""
        try:
            asked = _connected(_address(table, number))
        except ConnectionRefusedError:
            if table.listened(number):
                raise WorkerLost(f"worker {number} has ended") from None
            return []
        except OSError as error:
            raise WorkerLost(f"worker {number} cannot be asked: {error}") from None
        with asked:
            if not peer_is_ours(asked):
                raise WorkerLost(f"worker {number}'s address is another user's")
            try:
                return [await within(ANSWER_SECONDS, _answer(asked, message))]
            except (OSError, EOFError, asyncio.TimeoutError, ValueError):
                raise WorkerLost(f"worker {number} does not answer") from None

    async def _take(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.error("the other workers cannot ask: %s", error)
                await asyncio.sleep(1.0)
                continue
            if peer_is_ours(client):
                self._keep(self._serve(client))
            else:
                client.close()

    async def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                question, *values = await within(ANSWER_SECONDS, _read(client))
                answer = self._answers[question](*values)
                await asyncio.get_running_loop().sock_sendall(client, frame(ANSWER, answer))
            except (OSError, EOFError, asyncio.TimeoutError):
                return
            except Exception as error:
                log.error("another worker was not answered: %s", error)


def _address(table: WorkerTable, number: int) -> bytes:
    # With what nobody can guess: who has an address first keeps it, another user, too.
    return server_address(f"gateway.{table.name}.{number}", table.first_pid)


def _connected(address: bytes) -> socket.socket:
    """Raises OSError: BlockingIOError where too many wait to be taken."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


async def _answer(asked: socket.socket, message: list[Any]) -> Any:
    """What comes for a question. Raises OSError, EOFError, ValueError."""
    await asyncio.get_running_loop().sock_sendall(asked, frame(*message))
    _, answer = await _read(asked)
    return answer


async def _read(peer: socket.socket) -> list[Any]:
    """One message. Raises OSError, EOFError, ValueError."""
    (length,) = _LENGTH.unpack(await _exactly(peer, _LENGTH.size))
    if length > MAX_BYTES:
        raise ValueError(f"a message of {length} bytes")
    message = json.loads(await _exactly(peer, length))
    if not isinstance(message, list) or not message:
        raise ValueError("no array")
    return message


async def _exactly(peer: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(peer, size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
