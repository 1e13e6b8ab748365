# SPDX-License-Identifier: Apache-2.0
"""POST /v1/embeddings: texts or ids to vectors, by an embedding model of the repository."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic_core import from_json, to_json

from trellis.gateway.access.accounts import Allowance
from trellis.gateway.metrics.record import record_of
from trellis.gateway.models import model_path
from trellis.gateway.openai.endpoint import Endpoint, send_parts, unless_left
from trellis.gateway.openai.errors import Names, OpenAIError, as_openai, bad, rejected
from trellis.gateway.openai.fields import FAIL_FAST, Count, Fields, Positive
from trellis.gateway.openai.jobs import written
from trellis.gateway.openai.served import NAME, no_model
from trellis.gateway.prepared import BYTES_PER_TOKEN
from trellis.gateway.refusals import Refusal, shown
from trellis.gateway.sending import Client, Scope
from trellis.gateway.state import State
from trellis.gateway.triton import TritonLost

MOST_INPUTS = 2048  # OpenAI's own
INFER = "/infer"
# What the models and a key's limits speak of -> the one field that it came by.
NAMES: Names = {"prompt": "input", "max_tokens": "input"}
FLOATS_AT_ONCE = 65_536  # written while nobody else is served: some milliseconds

Ids = Annotated[list[Count], FAIL_FAST]
Many = Field(fail_fast=True, max_length=MOST_INPUTS)
Inputs = str | Ids | Annotated[list[str], Many] | Annotated[list[Ids], Many]


class EmbeddingRequest(Fields):
    """The fields of a request."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None


class Embeddings(Endpoint):
    """The endpoint."""

    name = "/v1/embeddings"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(EmbeddingRequest, body)
        inputs = _inputs(asked.input)
        path, batch = await _find(self.state, asked.model)
        record = record_of(scope)
        record.model = asked.model
        try:
            client.allowance.reserve(_estimate(inputs))
        except Refusal as refusal:
            raise as_openai(refusal, NAMES) from None
        batches = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
        work = _ask_all(self.state, path, batches, asked.dimensions, client.allowance)
        made, tokens = await unless_left(client.receive, work)
        record.prompt_tokens = tokens
        parts = await _written(made, asked.model, tokens, asked.encoding_format == "base64")
        await send_parts(client, parts)


async def _written(made: np.ndarray, model: str, tokens: int, coded: bool) -> list[bytes]:
    """An answer as JSON, in parts; others are served meanwhile. `coded`: vectors as base64."""
    write = _base64 if coded else _floats
    at_once = max(FLOATS_AT_ONCE // max(made.shape[1], 1), 1)
    parts = [b'{"object":"list","data":[']
    for start in range(0, len(made), at_once):
        items = (
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, write(vector))
            for index, vector in enumerate(made[start : start + at_once], start)
        )
        parts.append((b"," if start else b"") + b",".join(items))
        await asyncio.sleep(0)
    usage = written({"prompt_tokens": tokens, "total_tokens": tokens})
    parts.append(b'],"model":%b,"usage":%b}' % (written(model), usage))
    return parts


def _inputs(sent: Any) -> Sequence[Any]:
    """The texts or lists of ids, each one. Raises OpenAIError for none."""
    single = isinstance(sent, str) or (bool(sent) and isinstance(sent[0], int))
    inputs: Sequence[Any] = [sent] if single else sent
    if not inputs:
        raise bad("input", "the list is empty; send at least one text")
    for at, each in enumerate(inputs):
        if not each:
            raise bad("input" if single else f"input[{at}]", "empty; send some text")
    return inputs


def _estimate(inputs: Sequence[Any]) -> int:
    """The tokens of texts or lists of ids; of a text about, since the model encodes it."""
    return sum(
        len(each) // BYTES_PER_TOKEN + 1 if isinstance(each, str) else len(each) for each in inputs
    )


async def _find(state: State, name: str) -> tuple[str, int]:
    """Where a model is, and how many texts it takes at once. Raises OpenAIError."""
    if not NAME.fullmatch(name):
        raise no_model(name)
    try:
        model = await state.models.find(model_path(name))
    except Refusal as refusal:
        if refusal.status == 404:
            raise no_model(name) from None
        raise
    made = state.models.made().get(name)
    if made is None or not made.embeds:
        raise OpenAIError(
            400,
            f"model: {shown(name)} makes no embeddings; name a model that was made of an embedding"
            " engine",
            param="model",
            code="unsupported_model",
        )
    return model_path(name), max(model.batch, 1)


async def _ask_all(
    state: State,
    path: str,
    batches: Sequence[Sequence[Any]],
    dimensions: int | None,
    allowance: Allowance,
) -> tuple[np.ndarray, int]:
    """As `_ask`, one batch after the other.

    `allowance` takes what was computed, come what may. Other `dimensions` than the model's are
    found with the first batch. Raises OpenAIError.
    """
    vectors, tokens = [], 0
    try:
        for batch in batches:
            try:
                some, count = await _ask(state, path, batch)
            except asyncio.CancelledError:  # the client left while an engine worked for it
                tokens += _estimate(batch)
                raise
            vectors.append(some)
            tokens += count
            if dimensions not in (None, some.shape[1]):
                raise bad(
                    "dimensions",
                    f"{dimensions} is not {some.shape[1]}, which this model's vectors have; leave"
                    " it out",
                )
    finally:
        allowance.settle(tokens)
    return np.concatenate(vectors), tokens


async def _ask(state: State, path: str, inputs: Sequence[Any]) -> tuple[np.ndarray, int]:
    """The vectors of some texts or lists of ids, [n, size] float32, and how many tokens they have.

    Raises OpenAIError.
    """
    body = json.dumps({"inputs": _tensors(inputs)}).encode()
    try:
        seconds = state.limits.request_seconds  # an engine works for it
        reply = await state.triton.ask("POST", f"{path}{INFER}", body, seconds=seconds)
    except TritonLost as error:
        raise error.refusal from error
    said = from_json(reply.body)
    if reply.status != 200:
        raise rejected(str(said.get("error", "the model failed")), NAMES, reply.status)
    outputs = {each["name"]: each for each in said["outputs"]}
    vectors = np.array(outputs["embedding"]["data"], np.float32)
    tokens = sum(outputs["num_input_tokens"]["data"])
    return vectors.reshape(outputs["embedding"]["shape"]), tokens


def _tensors(inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """The model's inputs, as KServe's JSON has them; ids are filled up to the longest."""
    count = len(inputs)
    if isinstance(inputs[0], str):
        return [_tensor("text_input", "BYTES", [count, 1], list(inputs))]
    most = max(map(len, inputs))
    ids = [token for each in inputs for token in (*each, *[0] * (most - len(each)))]
    lengths = [len(each) for each in inputs]
    return [
        _tensor("input_ids", "INT32", [count, most], ids),
        _tensor("input_lengths", "INT32", [count, 1], lengths),
    ]


def _tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _floats(vector: np.ndarray) -> bytes:
    """As JSON, ten times as fast as the library json writes it."""
    return to_json(vector.tolist())


def _base64(vector: np.ndarray) -> bytes:
    """Of the little-endian floats, as OpenAI writes it, in quotes."""
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())
