# SPDX-License-Identifier: Apache-2.0
"""Guides for the OpenVINO engine: compiled aside, so that no step waits for one.

The library compiles a guide inside the step after it was asked for, and a guide that it cannot
read fails that step and every later one. It keeps what it compiled with the tokenizer, so a second
pipeline on the same tokenizer, over a model that does nothing, compiles and checks it first, on a
thread of its own: the library lets go of Python's lock for it.

The two pipelines share the library's compiler, which has locks of its own, and a list of the times
that it took, which has none: a time may be lost in it, and nothing reads them.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import openvino_genai as genai
from openvino import opset13 as ops
from openvino.op import util

from trellis.contract.client_inputs import GUIDE
from trellis.errors import RequestError
from trellis.guides.limits import GUIDE_SECONDS, KEPT_ELEMENTS
from trellis.guides.translate import Guide, size

MOST_IDS = 2**19  # logits of the idle model: the library writes as many as the real model has
GUIDES = {"ebnf_grammar": "grammar", "structural_tag": "structural_tags_config"}
REASON_CHARACTERS = 300


def structured_output(guide: Guide) -> Any:
    """The library's StructuredOutputConfig of a guide."""
    return genai.StructuredOutputConfig(**{GUIDES[guide.kind]: guide.text})


class Compiling(NamedTuple):
    """A request whose guide is being compiled."""

    done: "Future[None]"
    begun: list[float]  # when, once it is: one is compiled after another
    guide: Guide
    request: Any


class OpenVinoGuides:
    """Compiles guides, one after another, for the pipeline that has the same tokenizer.

    One thread owns it.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: of a pipeline that followed a guide, so that its size counts."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "idle.xml")
            openvino.save_model(_idle_model(), file)
            self._weights = openvino.Tensor(np.fromfile(file.with_suffix(".bin"), np.uint8))
            self._pipeline = genai.LLMPipeline(
                file.read_text(), self._weights, tokenizer, "CPU", ATTENTION_BACKEND="SDPA"
            )
        self._thread = ThreadPoolExecutor(1, "guides")
        self.compiled, self.seconds = 0, 0.0  # guides, and what they took
        self._kept: set[bytes] = set()  # digests of what was compiled
        self._elements = 0  # of all that the library was given, whoever still waits for it
        self._waiting: dict[int, Compiling] = {}

    def is_ready(self, guide: Guide) -> bool:
        """Whether it is compiled already."""
        return _digest(guide) in self._kept

    @property
    def full(self) -> bool:
        """Whether the library keeps so much that no more guides should be compiled."""
        return self._elements >= KEPT_ELEMENTS

    @property
    def busy(self) -> bool:
        """Whether a request waits."""
        return bool(self._waiting)

    def wait_for(self, key: int, guide: Guide, request: Any) -> None:
        """Have the guide compiled; `taken` gives the request back then."""
        begun: list[float] = []
        done = self._thread.submit(self._compile, guide, begun)
        self._waiting[key] = Compiling(done, begun, guide, request)

    def forget(self, key: int) -> None:
        """Drop a request."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.done.cancel()

    def taken(self, wait_seconds: float) -> Iterator[tuple[int, Any]]:
        """Requests whose guide is compiled, and for those whose guide cannot be a RequestError.

        `wait_seconds`: to wait for the first of them.
        """
        if not self._waiting:
            return
        wait([each.done for each in self._waiting.values()], wait_seconds, FIRST_COMPLETED)
        for key, each in list(self._waiting.items()):
            if each.done.done():
                yield key, self._outcome(each)
            elif each.begun and time.monotonic() - each.begun[0] > GUIDE_SECONDS:
                yield key, _too_late()
            else:
                continue
            self.forget(key)

    def _outcome(self, each: Compiling) -> Any:
        try:
            each.done.result()
        except RequestError as error:
            return error
        return each.request

    def _compile(self, guide: Guide, begun: list[float]) -> None:
        """Compile a guide, if that was not done. Raises RequestError."""
        begin = time.monotonic()
        begun.append(begin)
        if self.is_ready(guide):
            return
        self._elements += size(guide)
        once = genai.GenerationConfig()
        once.max_new_tokens, once.structured_output_config = 1, structured_output(guide)
        try:
            self._pipeline.generate(openvino.Tensor(np.zeros((1, 1), np.int64)), once)
        except RuntimeError as error:
            raise RequestError(f"{GUIDE}: OpenVINO cannot follow it: {_reason(error)}") from None
        self.compiled += 1
        self.seconds += time.monotonic() - begin
        self._kept.add(_digest(guide))

    def close(self) -> None:
        """End the thread, when what it compiles now is done."""
        self._thread.shutdown(cancel_futures=True)


def _digest(guide: Guide) -> bytes:
    return hashlib.blake2b("\0".join(guide).encode(), digest_size=16).digest()


def _too_late() -> RequestError:
    return RequestError(
        f"{GUIDE}: not compiled within {GUIDE_SECONDS:.0f} s (guide_seconds); send a smaller one,"
        " or this again later"
    )


def _reason(error: RuntimeError) -> str:
    """The library's reason, without the place in its sources."""
    text = str(error).strip().splitlines()[-1]
    return text.rpartition(".cc:")[2].partition(": ")[2] or text[-REASON_CHARACTERS:]


def _idle_model() -> openvino.Model:
    """A model of the form that the library takes, with a state, whose logits are all 0."""
    ids, mask, positions = (
        _input(name, [-1, -1], np.int64) for name in ("input_ids", "attention_mask", "position_ids")
    )
    beams = _input("beam_idx", [-1], np.int32)
    zeros = ops.multiply(ops.convert(ids, np.float32), ops.constant(np.float32(0)))
    for unused in (mask, positions):
        total = ops.reduce_sum(ops.convert(unused, np.float32), ops.constant([0, 1]), False)
        zeros = ops.add(zeros, ops.multiply(total, ops.constant(np.float32(0))))
    shape = ops.shape_of(ids)
    logits = ops.broadcast(
        ops.unsqueeze(zeros, ops.constant(2)),
        ops.concat([shape, ops.constant(np.array([MOST_IDS], np.int64))], 0),
    )
    logits.output(0).get_tensor().set_names({"logits"})
    kept = _state(zeros, shape, beams)
    return openvino.Model([ops.result(logits)], [kept], [ids, mask, positions, beams], "idle")


def _input(name: str, shape: list[int], dtype: Any) -> Any:
    made = ops.parameter(shape, dtype, name=name)
    made.output(0).get_tensor().set_names({name})
    return made


def _state(values: Any, shape: Any, beams: Any) -> Any:
    """A cache as that of a model, [batch, 1, tokens, 1], which `values` are added to."""
    info = util.VariableInfo()
    info.data_shape = openvino.PartialShape([-1, 1, -1, 1])
    info.data_type = openvino.Type.f32
    info.variable_id = "past"
    variable = util.Variable(info)
    batch = ops.gather(shape, ops.constant([0]), ops.constant(0))
    empty = ops.broadcast(
        ops.constant(np.float32(0)),
        ops.concat([batch, ops.constant(np.array([1, 0, 1], np.int64))], 0),
    )
    past = ops.gather(ops.read_value(empty, variable), beams, ops.constant(0))
    new = ops.unsqueeze(ops.unsqueeze(values, ops.constant(1)), ops.constant(3))
    return ops.assign(ops.concat([past, new], 2), variable)
