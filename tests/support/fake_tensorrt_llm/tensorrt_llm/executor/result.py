"""RequestOutput: one object a request, which changes while its consumer pulls."""

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tensorrt_llm.behaviour import BEHAVIOUR
from tensorrt_llm.executor.utils import RequestError

if TYPE_CHECKING:
    from tensorrt_llm.executor.proxy import GenerationExecutorProxy

Response = dict[str, Any]
FINISH_REASONS = (None, "stop", "length", "timeout", "cancelled")


class Logprob(NamedTuple):
    """Of one id."""

    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One sequence, so far."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    generation_logits: Any = None
    additional_context_outputs: Any = None
    additional_generation_outputs: Any = None
    disaggregated_params: Any = None
    request_perf_metrics: Any = None
    _last_token_ids_len: int = field(default=0, repr=False)

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def token_ids_diff(self) -> list[int]:
        """Since the last response of this very sequence: stale where another one moved."""
        return self.token_ids[self._last_token_ids_len :]


class RequestOutput:
    """The answer to one request, to wait for in any of five ways."""

    def __init__(
        self,
        executor: "GenerationExecutorProxy | None" = None,
        request_id: int = 0,
        prompt_token_ids: list[int] | None = None,
        n: int = 1,
    ) -> None:
        if executor is None:
            raise RuntimeError("RequestOutput is designed to be instantiated by the executor alone")
        self._executor = executor
        self._done = self._aborted = False
        self._outputs = [CompletionOutput(index) for index in range(n)]
        self.request_id = request_id
        self.prompt: str | None = None
        self.prompt_token_ids = prompt_token_ids
        self.context_logits = None
        if BEHAVIOUR.numbers >= (1, 2):
            self.cached_tokens = 0
        self._queue: Any = queue.Queue()
        # What kind of queue is decided here, once.
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
            self._queue = asyncio.Queue()

    @property
    def outputs(self) -> list[CompletionOutput]:
        return self._outputs

    @property
    def finished(self) -> bool:
        return self._done

    def abort(self) -> None:
        """Ask for the end; it comes as the last response."""
        self._executor.abort_request(self.request_id)
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted

    def put(self, response: Response) -> None:
        """Called by the executor's thread."""
        if self._loop is None:
            self._queue.put(response)
        else:
            self._executor.loop_of(self._loop).call_soon_threadsafe(
                self._queue.put_nowait, response
            )

    def _handle(self, response: Response) -> None:
        self._executor.raise_background_error()
        if "error" in response:
            raise RequestError(response["error"])
        if "fatal" in response:
            self._executor.fail()
            raise RuntimeError(response["fatal"])
        for part in response["beams"]:
            self._extend(self._outputs[part["sequence"]], part, bool(response["whole"]))
        self._done = response["final"]
        if BEHAVIOUR.numbers >= (1, 2):
            self.cached_tokens = response["cached_tokens"]

    def _extend(self, output: CompletionOutput, part: dict[str, Any], whole: bool) -> None:
        output._last_token_ids_len = 0 if whole else len(output.token_ids)
        if whole:
            output.token_ids, output.logprobs = [], []
        output.token_ids.extend(part["ids"])
        output.logprobs.extend(
            {int(token): Logprob(value) for token, value in at.items()} for at in part["log_probs"]
        )
        if part["cum_log_prob"] is not None:
            output.cumulative_logprob = part["cum_log_prob"]
        if part["cut"]:
            del output.token_ids[-part["cut"] :]
            del output.logprobs[len(output.token_ids) :]
        if part["finish"] not in FINISH_REASONS:
            raise ValueError(f"Unknown finish reason: {part['finish']}")
        output.finish_reason = part["finish"] or output.finish_reason
        output.stop_reason = part["stop_reason"]

    def _result_step(self) -> None:
        self._handle(self._queue.get())

    async def _aresult_step(self) -> None:
        assert self._loop is not None, (
            "The asyncio event loop was not present during initialization, so async operations"
            " are not available."
        )
        self._handle(await self._queue.get())

    def result(self, timeout: float | None = None) -> "RequestOutput":
        """Wait for the end; the timeout is not used."""
        while not self._done:
            self._result_step()
        return self

    async def aresult(self) -> "RequestOutput":
        while not self._done:
            await self._aresult_step()
        return self

    def __await__(self) -> Generator[Any, None, "RequestOutput"]:
        return self.aresult().__await__()

    def __iter__(self) -> Iterator["RequestOutput"]:
        return self

    def __next__(self) -> "RequestOutput":
        if self._done:
            raise StopIteration
        self._result_step()
        return self

    def __aiter__(self) -> AsyncIterator["RequestOutput"]:
        return self

    async def __anext__(self) -> "RequestOutput":
        if self._done:
            raise StopAsyncIteration
        await self._aresult_step()
        return self
