# SPDX-License-Identifier: Apache-2.0
"""Renders chat templates in processes of their own, within a time and a memory.

>>> render_template("{{ messages[0].content }}", {"messages": [{"content": "Hello"}]})
'Hello'

A template comes with a model, from people you may not know, and sees what users send. jinja2's
sandbox keeps it from files and from Python; it does not keep it from looping without end, from
'a' * 10**10, or from spending minutes in one C function, which no thread can be stopped in. A
process can: it is killed at the time limit and started anew when it is next needed. The price is
a trip over a socket for each render, with the messages and the prompt as JSON.

Nothing is started before the first render. The processes (template_worker.py, with jinja2 and the
standard library alone) are shared by all tokenizers of this process and end with it.
"""

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trellis.errors import TrellisError
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.interpreter import find_python

TIME_LIMIT = 2.0
"""The seconds that one render may take, its template's compilation with it."""
MEMORY_LIMIT = 256 * 1024 * 1024
"""The bytes by which one render may enlarge its process."""
TEXT_LIMIT = 16 * 1024 * 1024
"""The characters that a rendered prompt may have."""
PROCESSES = 4
"""How many renders run at once; others wait."""

_WORKER = Path(__file__).with_name("template_worker.py")
_PACKAGES = ("jinja2", "markupsafe")
_KEPT_ENVIRONMENT = ("TZ", "LD_LIBRARY_PATH")
_START_SECONDS = 30.0
_LENGTH_BYTES = 8
_ANSWER_BYTES = 12 * TEXT_LIMIT + 65_536  # JSON's longest way to write a character


class TemplateFailedError(TrellisError):
    """A template that gave no text: its own complaint, or the limit that it ran into."""


def render_template(source: str, variables: Mapping[str, Any]) -> str:
    """The text of a jinja2 template. Any number of threads may call this at once.

    Args:
        source: The template.
        variables: The template's variables, all of JSON's types.

    Raises:
        TemplateFailedError: The template is at fault, or the variables under it.
        TokenizerError: The variables are not JSON, or no process could be started.
    """
    request = {
        "source": source,
        "variables": variables,
        "seconds": TIME_LIMIT,
        "memory": MEMORY_LIMIT,
        "characters": TEXT_LIMIT,
    }
    try:
        body = json.dumps(request).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise TokenizerError(f"messages, tools and documents must be JSON: {error}") from error
    answer = _pool.ask(body)
    if "error" in answer:
        raise TemplateFailedError(answer["error"])
    return str(answer["text"])


class _Pool:
    """The processes that wait for a request, and a limit of how many there are."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._room = threading.BoundedSemaphore(PROCESSES)
        self._idle: list[_Worker] = []

    def ask(self, body: bytes) -> dict[str, Any]:
        """One process's answer."""
        with self._room:
            worker = self._take()
            try:
                answer = worker.ask(body)
            except BaseException:
                worker.kill()
                raise
            if answer["last"]:
                worker.kill()
            else:
                self._idle.append(worker)
            return answer

    def _take(self) -> "_Worker":
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread took it
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.kill()
        return _Worker()

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().kill()

    def forget(self) -> None:
        """After a fork, in the child: the processes are the parent's."""
        for worker in self._idle:
            worker.forget()
        self._begin()


class _Worker:
    """One process of template_worker.py, and this end of its socket."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        environment = {k: os.environ[k] for k in _KEPT_ENVIRONMENT if k in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [_python(), "-I", "-S", str(_WORKER), *_package_folders()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # an interrupt from the terminal is not its own
            )
        try:
            self._receive(time.monotonic() + _START_SECONDS)
        except (OSError, EOFError) as error:
            self.kill()
            raise TokenizerError(f"no process for chat templates could be started: {error}") from (
                error
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, body: bytes) -> dict[str, Any]:
        """The answer to a request. After any exception the process must be killed."""
        deadline = time.monotonic() + TIME_LIMIT
        try:
            self._socket.settimeout(TIME_LIMIT)
            self._socket.sendall(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
            return self._receive(deadline)
        except TimeoutError:
            raise TemplateFailedError(f"took longer than {TIME_LIMIT:g} s") from None
        except (OSError, EOFError):
            self.kill()
            status = self._process.returncode
            raise TemplateFailedError(f"ended its process (status {status})") from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        size = int.from_bytes(self._read(_LENGTH_BYTES, deadline), "big")
        if size > _ANSWER_BYTES:
            raise EOFError(f"an answer of {size} bytes")
        message: dict[str, Any] = json.loads(self._read(size, deadline))
        return message

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError("it ended at once")
            data += piece
        return bytes(data)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Leave the process to the one that this one was forked from."""
        self._socket.close()
        self._process.returncode = 0  # not ours to wait for


@functools.cache
def _python() -> str:
    try:
        return find_python()
    except RuntimeError as error:
        raise TokenizerError(f"chat templates: {error}") from error


def _package_folders() -> list[str]:
    """Where jinja2 and what it imports lie; they are not imported here."""
    folders = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise TokenizerError(f"chat templates need the package {name}: pip install {name}")
        folders.append(str(Path(spec.origin).absolute().parents[1]))
    return list(dict.fromkeys(folders))


_pool = _Pool()
atexit.register(_pool.close)
os.register_at_fork(after_in_child=_pool.forget)
