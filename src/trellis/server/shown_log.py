# SPDX-License-Identifier: Apache-2.0
"""Triton's log where a person reads it: passed on as it is, but for the port behind the gateway."""

import contextlib
import os
import re
import threading
from typing import IO

HTTP_STARTED = re.compile(rb'"Started HTTPService at [^"]*"')


class ShownLog:
    """A pipe for the server's output, whose other end is this process's standard error.

    Clients ask the HTTP gateway: `url` is where, once it is known that there is one. The port that
    Triton itself says it listens on would be taken for the one to ask.
    """

    def __init__(self) -> None:
        self.url = ""
        read, write = os.pipe()
        self.output: IO[bytes] = os.fdopen(write, "wb")
        self._source = os.fdopen(read, "rb")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "ShownLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.output.close()
        self._thread.join(timeout=1)  # a process that outlives the server may hold the pipe

    def _run(self) -> None:
        for line in self._source:
            self._write(HTTP_STARTED.sub(self._started, line) if self.url else line)

    def _started(self, _: "re.Match[bytes]") -> bytes:
        return f'"Started HTTPService behind the gateway, which is asked at {self.url}"'.encode()

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more: the server goes on
            os.write(2, line)
