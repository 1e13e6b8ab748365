# SPDX-License-Identifier: Apache-2.0
"""The process that reads large bodies: parsing holds Python's lock, 50 ms a megabyte of numbers.

It is started with the first large body, has a limit of memory and one of time for each body, and
is started anew when it has died or was killed. One body at a time; others wait, so many at most.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

from trellis.gateway.deadlines import within
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.parse_worker import LENGTHS
from trellis.gateway.reading import ReadRequest, Sent, question, read_answer
from trellis.gateway.refusals import Refusal
from trellis.server.gateway_settings import IMPORTED_FROM

MODULE = "trellis.gateway.parse_worker"


class ParseProcess:
    """Reads bodies in a process of its own."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: Process | None = None

    async def read(self, model: Model, sent: Sent) -> ReadRequest:
        """A request that is checked. Raises Refusal."""
        if self._waiting >= self._limits.parse_queue:
            raise Refusal(503, "too many large requests at once; try again")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._read(model, sent)
        finally:
            self._waiting -= 1

    async def _read(self, model: Model, sent: Sent) -> ReadRequest:
        process = await self._running()
        seconds = self._limits.parse_seconds
        try:
            found, body = await within(seconds, self._ask(process, model, sent))
        except asyncio.TimeoutError:
            self.kill()
            raise Refusal(
                400, f"the body could not be read in {seconds:.0f} s; send less", close=True
            ) from None
        except (OSError, EOFError):
            self.kill()
            raise Refusal(
                413, "the body could not be read in the memory that it may take; send less", True
            ) from None
        except BaseException:
            self.kill()
            raise
        if "message" in found:
            raise Refusal(found["status"], found["message"], found["close"])
        return read_answer(found, sent.inner_id, body)

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULE,
                str(self._limits.parse_memory_bytes),
                stdin=PIPE,
                stdout=PIPE,
                cwd=IMPORTED_FROM,
                start_new_session=True,  # an interrupt from the terminal is not its own
            )
        return self._process

    async def _ask(
        self, process: Process, model: Model, sent: Sent
    ) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        head = json.dumps(question(model, sent, self._limits)).encode()
        process.stdin.write(LENGTHS.pack(len(head), len(sent.body)) + head)
        process.stdin.write(sent.body)
        await process.stdin.drain()
        lengths = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
        found, body = [await process.stdout.readexactly(length) for length in lengths]
        return json.loads(found), body

    def kill(self) -> None:
        """End the process; the next body starts another."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
