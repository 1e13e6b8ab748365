"""The executor in the caller's process: workers, a thread that reads their answers, and errors."""

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tensorrt_llm.behaviour import DESCRIPTORS, read
from tensorrt_llm.executor.request import LoRARequest
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.sampling_params import _SamplingParams

ROOT = Path(__file__).parents[2]  # of the fake's packages


class GenerationExecutorProxy:
    """One executor."""

    def __init__(self, config: dict[str, Any], workers: int) -> None:
        self._results: dict[int, RequestOutput] = {}
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._ids = 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdown = False
        self._sending = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[tuple[IO[str], IO[str]]] = [self._spawn() for _ in range(workers)]
        self._tell(config)
        if not self._pipes[0][0].readline():
            raise RuntimeError("Executor worker died during initialization")
        self._thread = threading.Thread(target=self._dispatch, name="dispatch", daemon=True)
        self._thread.start()

    def submit(
        self,
        ids: list[int],
        params: _SamplingParams,
        streaming: bool,
        adapter: LoRARequest | None = None,
    ) -> RequestOutput:
        """Hand a request to the workers."""
        self.raise_background_error()
        if self._shutdown:
            raise RuntimeError("LLM is shutting down")
        self._ids += 1
        result = RequestOutput(self, self._ids, ids, params.n)
        if self._loop is None:
            self._loop = result._loop
        self._results[self._ids] = result
        request = {"op": "add", "id": self._ids, "ids": ids, "streaming": streaming}
        told = asdict(params) | {"adapter": 0 if adapter is None else adapter.lora_int_id}
        if params.embedding_bias is not None:
            pairs = enumerate(params.embedding_bias.tolist())
            told["embedding_bias"] = [(token, weight) for token, weight in pairs if weight]
        self._tell(request | {"params": told})
        return result

    def abort_request(self, request_id: int) -> None:
        """Ask the workers to end a request."""
        self._tell({"op": "abort", "id": request_id})

    def loop_of(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """The one loop that wakes all: that of the first request."""
        return self._loop or loop

    def raise_background_error(self) -> None:
        """Raise what a worker died of, if one did; seen here alone."""
        try:
            error = self._errors.get_nowait()
        except queue.Empty:
            return
        self.fail()
        raise error

    def healthy(self) -> bool:
        """What late releases tell."""
        return not self._shutdown and self._errors.empty()

    def is_shutdown(self) -> bool:
        return self._shutdown

    def fail(self) -> None:
        """After a fatal error: no more requests; the workers are told to quit."""
        self._shutdown = True
        self._tell({"op": "quit"})

    def shutdown(self) -> None:
        """End the workers, and wait for them without a limit."""
        self.fail()
        if read().shutdown_blocks:
            threading.Event().wait()
        for process in self._processes:
            process.wait()

    def _spawn(self) -> tuple[IO[str], IO[str]]:
        """A worker, and the pipes from it and to it."""
        from_us, to_worker = os.pipe()
        from_worker, to_us = os.pipe()
        self._processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "mpi4py.futures.server"],
                stdin=subprocess.DEVNULL,
                pass_fds=[from_us, to_us],
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    DESCRIPTORS: f"{from_us},{to_us}",
                },
            )
        )
        os.close(from_us)
        os.close(to_us)
        return os.fdopen(from_worker, "r"), os.fdopen(to_worker, "w")

    def _tell(self, message: dict[str, Any]) -> None:
        """To all workers, as MPI broadcasts; to one that is gone, nothing is noticed."""
        line = json.dumps(message) + "\n"
        with self._sending:
            for _, pipe in self._pipes:
                with contextlib.suppress(OSError):
                    pipe.write(line)
                    pipe.flush()

    def _dispatch(self) -> None:
        """Hand on what the first worker says, until it is gone."""
        for line in self._pipes[0][0]:
            for response in json.loads(line):
                result = self._results.get(response["id"])
                if result is not None:
                    if response.get("final"):
                        del self._results[response["id"]]
                    result.put(response)
        if not self._shutdown:
            self._errors.put(RuntimeError("Executor worker returned error: it is gone"))
