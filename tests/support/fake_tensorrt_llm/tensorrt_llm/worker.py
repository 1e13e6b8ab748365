"""A worker: reads requests, makes a token of each a step, and writes what the step made.

    in   {"op": "add", "id", "ids", "streaming", "params"}   {"op": "abort", "id"}   {"op": "quit"}
    out  [response, ...]: {"id", "final", "whole", "beams": [part, ...]}, or {"id", "error"|"fatal"}

The first line in is the configuration, the first line out says that it is loaded.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any

from tensorrt_llm.behaviour import BEHAVIOUR, DESCRIPTORS
from tensorrt_llm.requests import Fatal, Finished, Request, Sampler

Message = dict[str, Any]


class Worker:
    """Runs until it is told to quit."""

    def __init__(self, config: Message, inbox: "queue.SimpleQueue[Message]", out: Any) -> None:
        self._sampler = Sampler(config)
        self._most = config["max_batch_size"]
        self._inbox = inbox
        self._out = out
        self._waiting: list[Request] = []
        self._running: list[Request] = []

    def run(self) -> None:
        """Steps, while there is something to do."""
        while self._take():
            responses = self._early
            places = self._most - sum(request.sequences for request in self._running)
            while self._waiting and self._waiting[0].sequences <= places:
                places -= self._waiting[0].sequences
                self._running.append(self._waiting.pop(0))
            for request in list(self._running):
                responses += self._step(request)
            if responses:
                self._out.write(json.dumps(responses) + "\n")
                self._out.flush()
            time.sleep(BEHAVIOUR.step_seconds)

    def _take(self) -> bool:
        """What came; waits for something while there is nothing to do. False to quit."""
        self._early: list[Message] = []
        while True:
            try:
                busy = self._running or self._waiting or self._early
                message = self._inbox.get(block=not busy)
            except queue.Empty:
                return True
            if message["op"] == "quit":
                return False
            if message["op"] == "add":
                self._add(message)
            else:
                self._abort(message["id"])

    def _add(self, message: Message) -> None:
        try:
            self._waiting.append(Request(message, self._sampler))
        except ValueError as error:
            self._early.append({"id": message["id"], "error": str(error)})

    def _abort(self, number: int) -> None:
        for line in (self._waiting, self._running):
            for request in list(line):
                if request.id == number:
                    line.remove(request)
                    self._early += request.cancelled()

    def _step(self, request: Request) -> list[Message]:
        try:
            responses: list[Message] = request.step()
        except Finished as finished:
            self._running.remove(request)
            return [{"id": request.id, "error": str(finished)}]
        except Fatal as fatal:
            self._running.clear()  # what else is in flight hangs
            self._waiting.clear()
            return [{"id": request.id, "fatal": str(fatal)}]
        if responses and responses[-1]["final"]:
            self._running.remove(request)
        return responses


def main() -> None:
    """Serve the process that started this one."""
    reading, writing = (int(number) for number in os.environ[DESCRIPTORS].split(","))
    lines, out = os.fdopen(reading, "r"), os.fdopen(writing, "w")
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    config = json.loads(lines.readline() or sys.exit(1))

    def read() -> None:
        for line in lines:
            inbox.put(json.loads(line))
        if not BEHAVIOUR.orphans:
            os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    out.write("loaded\n")
    out.flush()
    Worker(config, inbox, out).run()
