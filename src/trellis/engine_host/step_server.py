# SPDX-License-Identifier: Apache-2.0
"""Serves the steps of a Python engine on a local socket (ipc/frames.py), beside Triton.

What an engine makes in a step leaves as one message for all requests of a connection (as several
where it is much), written by the scheduler's own thread: no thread, process or HTTP of Triton's is
between it and the gateway. Where the other side does not read, its answers gather, and nobody waits
for it.
"""

import contextlib
import logging
import select
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.engine_host.answers import Answer
from trellis.engine_host.step_answers import StepAnswer
from trellis.ipc.frames import (
    ASK,
    EVENTS,
    HELLO,
    LEAVE,
    PROTOCOL,
    BadFrame,
    Frames,
    event_frames,
    frame,
    step_address,
)
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.sockets import peer_is_ours

BIND_SECONDS = 0.5  # between tries for an address that a model before this one still has
ACCEPT_SECONDS = 1.0  # between tries to take a connection where none could be taken
CLOSE_SECONDS = 2.0  # for threads to end
READ_BYTES = 262_144
CONNECTIONS = 64  # a gateway has one for each of its processes

log = logging.getLogger("trellis.steps")


class Host(Protocol):
    """The model that requests are for. Any thread."""

    def ask(self, connection: "StepConnection", number: int, body: dict[str, Any]) -> None:
        """Take a request, or refuse it by its connection. Never raises."""

    def leave(self, answer: Answer) -> None:
        """Nobody waits for this answer."""


class StepConnection:
    """One client: an outlet for its answers, and a thread that reads what it asks."""

    def __init__(
        self, client: socket.socket, version: str, host: Host, no_guides: str = ""
    ) -> None:
        """`version`: of the model; `no_guides`: why its engine follows none.

        Raises OSError or RuntimeError where a descriptor or a thread is wanting.
        """
        self.answers: dict[int, StepAnswer] = {}  # in flight, by the client's number
        self._socket = client
        self._socket.setblocking(False)
        self._host = host
        self._new: dict[int, StepAnswer] = {}  # scheduled since the last message
        self._unsent: deque[memoryview] = deque()  # what the socket did not take yet
        self._lost = False
        self._guided = _GuidedRequests(self, host)
        self._lock = threading.Lock()  # held to write
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._heartbeat = heartbeats().claim("a thread that reads a step socket")
        about = {"protocol": PROTOCOL, "version": version, "no_guides": no_guides}
        self._write(frame(HELLO, about))
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._heartbeat.release()
            raise

    def schedule(self, answer: StepAnswer) -> None:
        """Have what is new of it in the next message. The scheduler's thread alone."""
        with self._lock:
            self._new[answer.number] = answer

    def step_ended(self) -> None:
        """Write a message with all that is new, unless the one before is still being sent."""
        with self._lock:
            if not self._unsent:
                self._write_new()

    def refuse(self, number: int, message: str, code: str) -> None:
        """End a request that did not begin. `code` names one of Triton's error codes."""
        self.answers.pop(number, None)
        with self._lock:
            self._write(frame(EVENTS, [[number, message, code]]))

    def leave(self, number: int) -> None:
        """Nobody waits for this request's answer."""
        answer = self.answers.get(number)
        if answer is not None:
            self._host.leave(answer)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(CLOSE_SECONDS)

    @property
    def lost(self) -> bool:
        """Whether nobody is there any more."""
        return self._lost

    def _write_new(self) -> None:
        events, answers = [], self._new
        self._new = {}
        for number, answer in answers.items():
            event = answer.event()
            if answer.ended:
                self.answers.pop(number, None)
            if event is not None:
                events.append(event)
        if not events:
            return
        frames, too_large = event_frames(events)
        for number in too_large:
            answers[number].ended = True
            if self.answers.pop(number, None) is not None:
                self._host.leave(answers[number])
        for each in frames:
            self._write(each)

    def _write(self, data: bytes) -> None:
        """Send as much as the socket takes; the thread sends the rest."""
        if self._lost:
            return
        if self._unsent:
            self._unsent.append(memoryview(data))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the thread sees it, too
            self._lost = True
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _run(self) -> None:
        try:
            self._serve()
        except (OSError, EOFError):
            pass
        except BadFrame as error:
            log.error("the step socket got what is no message: %s", error)
        except Exception:
            log.exception("the step socket failed")
        self._lost = True
        self._heartbeat.release()
        self._guided.close()
        for answer in list(self.answers.values()):
            self._host.leave(answer)
        for each in (self._socket, self._bell, self._ear):
            each.close()

    def _serve(self) -> None:
        """Read what is asked, and send what could not be sent at once. Raises EOFError at last."""
        frames, poll = Frames(), select.poll()
        poll.register(self._ear, select.POLLIN)
        while True:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            for descriptor, event in poll.poll():
                if descriptor == self._ear.fileno():
                    self._ear.recv(64)
                    continue
                if event & select.POLLOUT:
                    self._send_rest()
                if event & ~select.POLLOUT:
                    data = self._socket.recv(READ_BYTES)
                    if not data:
                        raise EOFError
                    with self._heartbeat.working():
                        messages = frames.feed(data)
                    for message in messages:
                        with self._heartbeat.working():  # of many, each proves its own end
                            self._take(message)

    def _send_rest(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                sent = self._socket.send(self._unsent[0])
                rest = self._unsent.popleft()[sent:]
                if rest:
                    self._unsent.appendleft(rest)
            if not self._unsent:
                self._write_new()

    def _take(self, message: list[Any]) -> None:
        match message:
            case [kind, int(number), dict(body)] if kind == ASK:
                if GUIDE_TYPE in body:
                    self._guided.ask(number, body)
                else:
                    self._host.ask(self, number, body)
            case [kind, int(number)] if kind == LEAVE:
                if not self._guided.leave(number):
                    self.leave(number)
            case _:
                raise BadFrame(f"not known: {str(message)[:64]}")


class _GuidedRequests:
    """A connection's requests with guides, read one after the other on a thread of their own.

    A guide may take seconds to be read: meanwhile others are asked, and leave.
    """

    def __init__(self, connection: StepConnection, host: Host) -> None:
        self._connection = connection
        self._host = host
        self._reader = ThreadPoolExecutor(1, "guided-requests")
        self._lock = threading.Lock()
        self._waiting: dict[int, bool] = {}  # by number: whether its client has left

    def ask(self, number: int, body: dict[str, Any]) -> None:
        """Take a request when those before it were read."""
        self._waiting[number] = False
        self._reader.submit(self._ask, number, body)

    def leave(self, number: int) -> bool:
        """Whether it waits to be read: then it is dropped, or left once that is done."""
        with self._lock:
            if number not in self._waiting:
                return False
            self._waiting[number] = True
            return True

    def close(self) -> None:
        """All clients have left."""
        with self._lock:
            self._waiting = dict.fromkeys(self._waiting, True)
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _ask(self, number: int, body: dict[str, Any]) -> None:
        if not self._waiting[number]:
            self._host.ask(self._connection, number, body)
        with self._lock:
            left = self._waiting.pop(number)
        if left:
            self._connection.leave(number)


class StepServer:
    """Listens for the gateway on a thread."""

    def __init__(
        self, model: str, version: str, server_pid: int, host: Host, no_guides: str = ""
    ) -> None:
        """`server_pid`: of the process tritonserver, which the address is named after.

        `no_guides`: why the engine follows none.
        """
        self._address = step_address(model, server_pid)
        self._version = version
        self._host = host
        self._no_guides = no_guides
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connections: list[StepConnection] = []
        self._closed = threading.Event()
        self._listens = self._bind()
        self._thread = threading.Thread(target=self._run, name="step-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hang up on all, and end the thread."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._thread.join(CLOSE_SECONDS)
        self._socket.close()
        for connection in self._connections:
            connection.close()

    def _run(self) -> None:
        while not self._listens:
            if self._closed.wait(BIND_SECONDS):
                return
            self._listens = self._bind()
        while not self._closed.is_set():
            try:
                client, _ = self._socket.accept()
                self._take(client)
            except (OSError, RuntimeError) as error:  # no descriptor or thread is left: one may be
                if not self._closed.is_set():
                    log.error("the step socket could not take a connection: %s", error)
                    self._closed.wait(ACCEPT_SECONDS)

    def _bind(self) -> bool:
        """Whether it listens; a model that this one replaces has the address until it is gone."""
        try:
            self._socket.bind(self._address)
        except OSError:
            return False
        self._socket.listen(CONNECTIONS)
        return True

    def _take(self, client: socket.socket) -> None:
        """Serve this user's processes, and root's, but not too many."""
        self._connections = [each for each in self._connections if not each.lost]
        if len(self._connections) >= CONNECTIONS or not peer_is_ours(client):
            client.close()
            return
        try:
            made = StepConnection(client, self._version, self._host, self._no_guides)
        except BaseException:
            client.close()
            raise
        self._connections.append(made)
