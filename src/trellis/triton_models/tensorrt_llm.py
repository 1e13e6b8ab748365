# SPDX-License-Identifier: Apache-2.0
"""`tensorrt_llm` for Python engines: requests in, streams of token ids out.

Only used where the engine is not TensorRT-LLM itself (then this model is configuration only). All
that is Triton lives here and in `triton_answers.py`; `engines/` knows nothing of it. A request's
way: `execute`, or from the gateway by a socket (`step_server.py`) -> `Scheduler` -> `Answer.feed`
-> a sender thread -> Triton, or as an event of the step -> the gateway.
"""

import itertools
import logging
import os
from dataclasses import replace
from typing import Any

from trellis.contract.model_names import model_of
from trellis.engine_host.answers import INTERNAL, INVALID, UNAVAILABLE, Answer
from trellis.engine_host.cancellation import CancellationWatch
from trellis.engine_host.disconnect_listener import DisconnectListener, client_token
from trellis.engine_host.engine_settings import read_engine_settings, show_gpus
from trellis.engine_host.engines.engine import TOKENIZER_SAMPLE, Engine, Sampling
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.engine_host.engines.kinds import ENGINE_TYPES
from trellis.engine_host.hang_watch import HangWatch
from trellis.engine_host.metrics import Metrics
from trellis.engine_host.queue import Overloaded, RequestQueue
from trellis.engine_host.rejections import Refusals
from trellis.engine_host.request_reader import Asked, RequestReader, flag
from trellis.engine_host.scheduler import Admission, Scheduler
from trellis.engine_host.senders import Senders
from trellis.engine_host.step_answers import StepAnswer
from trellis.engine_host.step_inputs import read_step_inputs
from trellis.engine_host.step_server import StepConnection, StepServer
from trellis.engine_host.step_tensors import StepTensors
from trellis.engine_host.triton_answers import TritonAnswer, empty_response, final_flag
from trellis.errors import RequestError, one_line
from trellis.ipc.heartbeats import heartbeats
from trellis.ipc.process_state import show_stacks_on_signal
from trellis.ipc.server_lifetime import end_with_server
from trellis.panics import guarded
from trellis.pipeline.model_settings import ConfigError, ModelSettings
from trellis.tokenizers import Tokenizer

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
log = logging.getLogger("trellis.model")


class TritonPythonModel:
    """Triton's entry point: `initialize` once, `execute` a batch of requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine and the tokenizer; raises with the parameter's name."""
        end_with_server()
        show_stacks_on_signal()
        settings = ModelSettings.read(args)
        self.heartbeat = heartbeats().claim(f"the process of {settings.name}", True, True)
        self.reader = RequestReader(settings)
        self.senders = Senders()
        self.refusals = Refusals()
        line: RequestQueue[Admission] = RequestQueue(
            settings.max_batch_size,
            settings.integer("max_queue_size") or 0,
            (settings.integer("queue_timeout_microseconds") or 0) / 1e6,
        )
        engine_type = settings.text("engine_type")
        sample = _sample(self.reader.tokenizer)
        self.loop = Scheduler(
            lambda: load_engine(engine_type, settings, sample),
            self.senders,
            line,
            model_of(settings.name),
            self.heartbeat,
        )
        self.hangs = HangWatch(self.loop, self.heartbeat)
        metrics = Metrics(settings.name, self.loop.figures)
        self.watch = CancellationWatch(self.loop, metrics.report)
        self.gone = DisconnectListener(settings.name, self._cancel_clients)
        self.keys = itertools.count(1)
        self.tensors = StepTensors.of(args["model_config"])
        self.steps = StepServer(
            settings.name,
            args["model_version"],
            os.getppid(),
            self,
            why_no_guides(self.loop.engine),
        )

    def execute(self, requests: list[Any]) -> None:
        """Hand every request to the scheduler; its answer leaves from a sender thread."""
        for request in requests:
            with self.heartbeat.working():  # of many, each proves its own end
                sender = request.get_response_sender()
                try:
                    self._accept(request, sender)
                except Exception as error:
                    self.refusals.send(sender, *refusal(error))

    def finalize(self) -> None:
        """End every stream, then the threads."""
        self.hangs.close()
        self.gone.close()
        self.watch.close()
        self.loop.close()
        self.heartbeat.release()
        self.steps.close()
        self.senders.close()
        self.refusals.close()

    # What a step server asks of its host.

    def ask(self, connection: StepConnection, number: int, body: dict[str, Any]) -> None:
        """Take a request that came by a socket; what is wrong with it is its answer."""
        try:
            asked = self.reader.read(
                self.tensors.read(body), self.loop.engine, read_step_inputs(body)
            )
            answer = StepAnswer(number, connection, asked, body.get("id", ""))
            connection.answers[number] = answer
            self._submit(asked, answer)
        except Exception as error:
            connection.refuse(number, *refusal(error))

    def leave(self, answer: Answer) -> None:
        """Nobody waits for this answer."""
        self.loop.cancel(answer)

    def _accept(self, request: Any, sender: Any) -> None:
        arrays = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        request_id = _request_id(request)
        if flag(arrays, "stop", False):
            self._stop(request_id)
            response = empty_response(len(arrays["input_ids"]), arrays.get("stream_key"))
            sender.send(response, flags=final_flag())
            return
        client = client_token(request)
        if heartbeats().status.draining and not client:  # the gateway's were let in before
            raise Overloaded("the server is stopping; send the request to another, or later")
        asked = self.reader.read(arrays, self.loop.engine)
        step = flag(arrays, "ensemble_step", False)
        keyed = "stream_key" in arrays and "stream_key" in request.requested_output_names()
        answer = TritonAnswer(
            sender,
            self.senders,
            asked.rows,
            streaming=asked.streaming,
            returns=asked.returns,
            request_id=request_id,
            client=client,
            ensemble_step=step,
            # The HTTP gateway knows a stream by its connection; each tensor of a chunk costs.
            keyed=(step or not client) and keyed,
            skip_special_tokens=asked.skip_special_tokens,
            lengths=not step and not client,
        )
        self._submit(asked, answer)
        if answer.client in self.gone:  # it left before its request was here
            self.loop.cancel(answer)

    def _submit(self, asked: Asked, answer: Answer) -> None:
        """Raises Overloaded."""
        rows = enumerate(zip(asked.prompts, asked.rows, strict=True))
        self.loop.submit(
            [
                Admission(next(self.keys), prompt, row.sampling, answer, index)
                for index, (prompt, row) in rows
            ]
        )

    def _stop(self, request_id: str) -> None:
        """End the requests of that id, with what they have. Raises RequestError without one."""
        if not request_id:
            raise RequestError("stop: needs the id of the request to end; send it as request_id")
        self.loop.stop_where(lambda answer: answer.request_id == request_id)

    def _cancel_clients(self, tokens: frozenset[str]) -> None:
        self.loop.cancel_where(lambda answer: answer.client in tokens)


def refusal(error: Exception) -> tuple[str, str]:
    """What a request that was not taken is told, and the name of Triton's code for it."""
    if isinstance(error, RequestError):
        return str(error), INVALID
    if isinstance(error, Overloaded):
        return str(error), UNAVAILABLE
    log.error("a request could not be read: %s", one_line(error))
    return f"the request could not be read: {error}", INTERNAL


def why_no_guides(engine: Engine) -> str:
    """Why the engine can't hold an answer to a guide; "" if it can."""
    try:
        engine.refuse(Sampling(guide_type="json"))
    except RequestError as error:
        return str(error)
    return ""


def _sample(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of TOKENIZER_SAMPLE; () from a tokenizer that fails at it."""
    try:
        return tuple(guarded(tokenizer.encode, TOKENIZER_SAMPLE))
    except Exception:
        return ()


def load_engine(engine_type: str, settings: ModelSettings, sample: tuple[int, ...]) -> Engine:
    """The engine of that type; `sample`: what the tokenizer makes of TOKENIZER_SAMPLE.

    Raises ConfigError for an unknown one.
    """
    if engine_type not in ENGINE_TYPES:
        raise ConfigError(
            f"parameter engine_type is {engine_type!r}; known: {', '.join(ENGINE_TYPES)}"
        )
    engine_settings = replace(read_engine_settings(settings), tokenizer_sample=sample)
    if engine_type != "openvino":
        show_gpus(settings)
    return EngineProcess(engine_type, engine_settings, f"of {settings.name}")


def _request_id(request: Any) -> str:
    try:
        return str(request.request_id())
    except UnicodeDecodeError as error:
        raise RequestError("id: not valid UTF-8") from error
