"""The load generator: a process of its own, whose CPU is not the server's.

`python load_generator.py` reads a pickled `Job` from stdin, keeps that many requests in flight, and
writes a pickled `Load`: what came when, and the CPU clocks of the server at both ends of the
measured window.
"""

import pickle
import secrets
import select
import sys
import time

from accounting import sample
from grpc_stream import GrpcStream
from http_stream import HttpStream
from jobs import ID, Job, Load, Sent


class Slots:
    """The connections, each with the request it has in flight."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.load = Load()
        kind = HttpStream if job.protocol == "http" else GrpcStream
        self.streams = [kind(job.host, job.port) for _ in range(job.streams)]
        self.by_fd = {stream.socket.fileno(): stream for stream in self.streams}
        self.flying: dict[int, Sent] = {}
        self._poll = select.epoll()
        for descriptor in self.by_fd:
            self._poll.register(descriptor, select.EPOLLIN)
        self._run = secrets.token_hex(3).encode()
        self._next = 0
        self._parts = [request.partition(ID) for request in job.requests]

    def start(self, descriptor: int) -> None:
        """Send the next request there."""
        which = self._next % len(self._parts)
        before, _, after = self._parts[which]
        request = before + self._run + b"%06d" % (self._next % 1_000_000) + after
        self._next += 1
        stream = self.by_fd[descriptor]
        self.flying[descriptor] = Sent(which, time.perf_counter(), [], False)
        stream.start(request)

    def turn(self, timeout: float, go_on: bool) -> None:
        """Read what has come within `timeout` seconds; a request that ends makes place for one."""
        for descriptor, _ in self._poll.poll(timeout):
            try:
                ended = self.by_fd[descriptor].read()
            except ConnectionError as error:
                self._poll.unregister(descriptor)
                self._done(descriptor, str(error))
                continue
            if ended and descriptor in self.flying:
                self._done(descriptor)
                if go_on:
                    self.start(descriptor)

    def give_up(self) -> None:
        """What is still in flight did not finish."""
        for descriptor in list(self.flying):
            self._done(descriptor, "no end came")

    def _done(self, descriptor: int, wrong: str = "") -> None:
        sent = self.flying.pop(descriptor, None)
        if sent is not None:
            sent.pieces = self.by_fd[descriptor].pieces
            sent.finished, sent.wrong = not wrong, wrong
            self.load.sent.append(sent)


def run(job: Job) -> Load:
    """Warm up, measure, let what is in flight end."""
    slots = Slots(job)
    load = slots.load
    _start_evenly(slots, 0.8 * job.warm_seconds)
    _turns(slots, time.perf_counter() + 0.2 * job.warm_seconds)
    own = time.process_time()
    load.cpu_begin, load.begin = sample(job.pids), time.perf_counter()
    for part in range(job.parts):
        _turns(slots, load.begin + job.seconds * (part + 1) / job.parts)
        used = sample(job.pids)
        load.marks.append((time.perf_counter(), used))
    load.end, load.cpu_end = load.marks[-1]
    load.own_cpu = time.process_time() - own
    limit = load.end + job.drain_seconds
    while slots.flying and time.perf_counter() < limit:
        slots.turn(0.1, go_on=False)
    slots.give_up()
    return load


def _start_evenly(slots: Slots, seconds: float) -> None:
    gap = seconds / len(slots.by_fd)
    begin = time.perf_counter()
    for at, descriptor in enumerate(slots.by_fd):
        while (left := begin + at * gap - time.perf_counter()) > 0:
            slots.turn(left, go_on=True)
        slots.start(descriptor)


def _turns(slots: Slots, until: float) -> None:
    while (left := until - time.perf_counter()) > 0 and slots.flying:
        slots.turn(left, go_on=True)


if __name__ == "__main__":
    pickle.dump(run(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
