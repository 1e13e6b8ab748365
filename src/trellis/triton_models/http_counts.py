# SPDX-License-Identifier: Apache-2.0
"""HTTP requests that the gateway answered past their ensemble, on Triton's metrics page.

Triton counts a request for the models that it was asked, and the gateway asks the engine itself. So
it tells here, by datagrams `{"ensemble": 3}`, how many answers more an ensemble and its engine have
given. The first step of an ensemble hears it because each has one, whatever its engine is.
"""

import contextlib
import json
import logging
import os
import select
import socket
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from trellis.ipc.sockets import HTTP_COUNTS, datagram_socket, model_address, receive, try_bind

MAX_DATAGRAM_BYTES = 8192
LOOK_SECONDS = 0.5
log = logging.getLogger("trellis.preprocessing")


class HttpCounts:
    """Listens on a thread; of several instances of the model one at a time hears."""

    def __init__(self, model: str) -> None:
        """`model`: this one's name."""
        self._address = model_address(HTTP_COUNTS, model, os.getppid())
        self._metrics: dict[str, Any] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._family = pb_utils.MetricFamily(
                name="trellis_http_requests_total",
                description="HTTP requests that the gateway answered without Triton's ensemble",
                kind=pb_utils.MetricFamily.COUNTER,
            )
        except Exception as error:  # a server without metrics serves all the same
            log.warning("HTTP requests are not counted: %s", error)
            return
        self._socket = datagram_socket()
        self._socket.setblocking(False)
        self._bound = False
        self._thread = threading.Thread(target=self._run, name="http-counts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._closed.set()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RD)  # wakes the thread
            self._thread.join(timeout=2)
            self._socket.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._bound = self._bound or try_bind(self._socket, self._address)
            readable, _, _ = select.select([self._socket], [], [], LOOK_SECONDS)
            if readable and not self._closed.is_set():
                self._take(receive(self._socket, MAX_DATAGRAM_BYTES)[0])

    def _take(self, data: bytes) -> None:
        try:
            for model, count in json.loads(data).items():
                if model not in self._metrics:
                    self._metrics[model] = self._family.Metric(labels={"model": model})
                self._metrics[model].increment(count)
        except Exception:  # the thread hears the next ones
            log.exception("counts of HTTP requests could not be read")
