# SPDX-License-Identifier: Apache-2.0
"""Requests that go to the engine itself: the gateway does what `preprocessing` would have done.

It runs the code of the repository's own `preprocessing`, so the engine gets the same tensors. Left
to the ensemble is what would be much JSON: long prompts, a bias for each id.

Triton takes one list for a tensor, whatever its dims are, and deals it out: of a word list [2, n],
the ids of all words and then where each one ends.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trellis.contract.wiring_names import STEP_MARK
from trellis.gateway.fields import Field
from trellis.gateway.limits import LONG_BODY, MAX_ENGINE_BODY
from trellis.ipc.disconnect_sender import PARAMETER

if TYPE_CHECKING:
    from trellis.ipc.stream_announcements import CountedPrompt
    from trellis.pipeline.encode import Preprocessor

Step = Mapping[str, Any]  # of an ensemble, as in its configuration
BIAS, BIAS_WORDS = "EMBEDDING_BIAS", "embedding_bias_words"  # of `preprocessing`, of the client


class Written(NamedTuple):
    """A request as the engine gets it."""

    body: bytes  # JSON of its tensors
    counted: "CountedPrompt | None" = None  # with the C++ backend: what its answer is counted by
    tokens: int = 0  # of the prompt


class EngineRequests:
    """Makes bodies for the engine's `/generate` of what a client asks the ensemble."""

    def __init__(
        self,
        preprocessor: "Preprocessor",
        types: Callable[[str], Any],
        steps: tuple[Step, Step],
        fields: Mapping[str, Field],
        encode_bare: Callable[[str], list[int]] | None = None,
    ) -> None:
        """`types`: numpy's for a data type of Triton's; `steps`: `preprocessing` and the engine.

        `encode_bare`: what equals the tokenizer's, if anything.
        """
        before, engine = steps
        self._encode_bare = encode_bare or preprocessor.tokenizer.encode_bare
        self.preprocessor = preprocessor
        self._read = {
            name: (client, types(f"TYPE_{fields[client].kind}"))
            for name, client in before["input_map"].items()
            if client in fields
        }
        wires = {wire: name for name, wire in before["output_map"].items() if name != STEP_MARK}
        inputs = engine["input_map"]
        self._made = {name: wires[wire] for name, wire in inputs.items() if wire in wires}
        self._passed = {name: client for name, client in inputs.items() if client in fields}
        # What the engine calls a weight for each id, if it takes any.
        self.bias_input = next((name for name, made in self._made.items() if made == BIAS), "")

    def body(self, values: Mapping[str, Any], inner_id: str, size: int) -> Written | None:
        """The engine's body for the checked `values` of one prompt; None if it is not for here.

        `size`: of the client's body, in bytes. Raises what `preprocessing` answers: RequestError.
        """
        one_thread = size > LONG_BODY and not self.preprocessor.thread_safe
        if one_thread or size > MAX_ENGINE_BODY or (self.bias_input and BIAS_WORDS in values):
            return None
        prompts = self.preprocessor.read(self._arrays(values), lambda: inner_id)
        rows = self.preprocessor.encode(prompts.texts)
        body = self._written(prompts, rows, values, inner_id, {})
        (row,) = rows
        return Written(body, tokens=0 if isinstance(row, Exception) else len(row))

    def encode(self, text: str, bare: bool) -> list[int]:
        """The ids of a prompt. Raises RequestError.

        `bare`: whether the text says itself whether it has a BOS, as a chat template's does.
        """
        preprocessor = self.preprocessor
        text = preprocessor.limits.check_text(text.encode())
        if bare:
            row = preprocessor.encode_bare(text, self._encode_bare)
        else:
            (row,) = preprocessor.encode([text])
        return preprocessor.limits.check_ids(row)

    def write(
        self, values: Mapping[str, Any], inner_id: str, ids: list[int], more: Mapping[str, Any]
    ) -> "Written":
        """The engine's body for a prompt of these ids, however large. Raises RequestError.

        `more`: what the engine's step socket takes beside its tensors.
        """
        preprocessor = self.preprocessor
        prompts: Any = preprocessor.read(self._arrays(values), lambda: inner_id, of_ids=True)
        body = self._written(prompts, [ids], values, inner_id, more)
        if preprocessor.engine_inputs is None:
            return Written(body, tokens=len(ids))
        (counted,) = preprocessor.counted(prompts, [ids])
        return Written(body, counted, len(ids))

    def _arrays(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The inputs of `preprocessing`, [1, n] each."""
        arrays = {}
        for name, (client, dtype) in self._read.items():
            if client in values:
                value = values[client]
                row = value if isinstance(value, list) else [value]
                arrays[name] = np.array([row], dtype)
        return arrays

    def _written(
        self,
        prompts: Any,
        rows: Sequence[Any],
        values: Mapping[str, Any],
        inner_id: str,
        more: Mapping[str, Any],
    ) -> bytes:
        made = self.preprocessor.outputs(prompts, rows)
        body: dict[str, Any] = {PARAMETER: inner_id, "id": inner_id}
        for name, output in self._made.items():
            if output in made.arrays:
                body[name] = made.arrays[output][0].reshape(-1).tolist()
            elif output in made.columns:
                body[name] = made.columns[output][0]
        for name, client in self._passed.items():
            if client in values:
                body[name] = values[client]
        return json.dumps({**body, **more}, separators=(",", ":")).encode()
