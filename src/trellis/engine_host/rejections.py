# SPDX-License-Identifier: Apache-2.0
"""Refusals, sent from threads of their own: a flood of them holds up neither answers nor requests.

Sending waits for Triton, and for Python's lock, which an engine may keep for as long as a step
takes: one after another, a thousand refusals would take a thousand steps.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trellis.engine_host.triton_answers import error_response, final_flag
from trellis.errors import one_line

THREADS = 16

log = logging.getLogger("trellis.rejections")


class Refusals:
    """Ends requests that never begin with an error each."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "refusal")

    def send(self, sender: Any, message: str, code: str) -> None:
        """Have this error sent as the one response; `code` names one of Triton's error codes."""
        self._pool.submit(_send, sender, message, code)

    def close(self) -> None:
        """Send what is left, then end the threads."""
        self._pool.shutdown()


def _send(sender: Any, message: str, code: str) -> None:
    try:
        sender.send(error_response(message, code), flags=final_flag())
    except Exception as error:
        log.error("a refusal could not be sent: %s", one_line(error))
