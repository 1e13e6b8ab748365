# SPDX-License-Identifier: Apache-2.0
"""From the body of a request to what Triton gets for it: one function, here and in a process.

A large body is read by a process of its own (parse_process.py), so what goes there and comes back
is JSON and bytes. Of the values that were sent only small ones come back: a large body goes to
Triton as it was written there.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trellis.gateway.body import prepare, read
from trellis.gateway.fields import Field
from trellis.gateway.ids import RequestId
from trellis.gateway.infer import InferRequest, read_infer, split_body
from trellis.gateway.json_bounds import check_bounds
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.outputs import Output
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Headers
from trellis.gateway.responses import Responses

SMALL_VALUE = 256  # bytes of JSON


@dataclass(frozen=True)
class Sent:
    """A request as a client sent it."""

    headers: Headers
    body: bytes
    inner_id: str
    once: bool  # whether it gets one response
    by_infer: bool  # whether it is of `/infer`, else of `/generate`


@dataclass(frozen=True)
class ReadRequest:
    """What was asked; `infer`: in KServe's form, too."""

    asked: Prepared
    infer: InferRequest | None = None


def read_request(model: Model, sent: Sent, limits: Limits) -> ReadRequest:
    """A request that is checked. Raises Refusal."""
    if not sent.by_infer:
        return ReadRequest(prepare(model, sent.body, sent.inner_id, limits, sent.once))
    text, binary = split_body(sent.headers, sent.body)
    check_bounds(text, limits)
    infer = read_infer(replace(model, fields=model.inputs), model.outputs, read(text), binary)
    asked = prepare(model, infer.generate_body(), sent.inner_id, limits, once=True)
    return ReadRequest(asked._replace(size=max(asked.size, len(sent.body))), infer)


def question(model: Model, sent: Sent, limits: Limits) -> dict[str, Any]:
    """All but the body, as JSON."""
    return {
        "name": model.name,
        "checked": model.checked,
        "inputs": [asdict(field) for field in model.inputs.values()],
        "outputs": [asdict(output) for output in model.outputs.values()],
        "responses": asdict(model.responses),
        "headers": [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in sent.headers
        ],
        "inner_id": sent.inner_id,
        "once": sent.once,
        "by_infer": sent.by_infer,
        "limits": asdict(limits),
    }


def read_question(asked: Mapping[str, Any], body: bytes) -> tuple[Model, Sent, Limits]:
    """What `question` wrote."""
    inputs = {
        field["name"]: Field(**field | {"dims": tuple(field["dims"])}) for field in asked["inputs"]
    }
    outputs = {
        output["name"]: Output(**output | {"dims": tuple(output["dims"])})
        for output in asked["outputs"]
    }
    model = Model(
        asked["name"],
        fields=inputs if asked["checked"] else {},
        responses=Responses(**asked["responses"]),
        inputs=inputs,
        outputs=outputs,
    )
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in asked["headers"]
    ]
    sent = Sent(headers, body, asked["inner_id"], asked["once"], asked["by_infer"])
    return model, sent, Limits(**asked["limits"])


def answer(made: ReadRequest) -> dict[str, Any]:
    """All but the body that Triton gets, as JSON."""
    asked, infer = made.asked, made.infer
    return {
        "client_id": asked.request_id.client,
        "one_text": asked.one_text,
        "values": _small(asked.values),
        "stops": asked.stops,
        "size": asked.size,
        "tokens": asked.tokens,
        "infer": infer and {"rows": infer.rows, "wanted": infer.wanted},
    }


def read_answer(found: Mapping[str, Any], inner_id: str, body: bytes) -> ReadRequest:
    """What `answer` wrote."""
    asked = Prepared(
        body,
        RequestId(inner_id, found["client_id"]),
        found["one_text"],
        found["values"],
        found["stops"],
        found["size"],
        found["tokens"],
    )
    infer = found["infer"]
    if infer is None:
        return ReadRequest(asked)
    return ReadRequest(asked, InferRequest({}, found["client_id"], infer["rows"], infer["wanted"]))


def _small(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, str | list) or len(json.dumps(value[:SMALL_VALUE])) < SMALL_VALUE
    }
