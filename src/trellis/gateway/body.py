# SPDX-License-Identifier: Apache-2.0
"""The JSON body of `/generate` and `/generate_stream`: checked, and given what the server needs.

What Triton does with a body that it does not understand is no help: status 500 without the name of
the field, or nothing at all for a key that is mistyped.
"""

import difflib
import json
from typing import Any

from trellis.contract.client_inputs import BEAMS, PROMPT, SEQUENCES, STOP
from trellis.gateway.fields import Field
from trellis.gateway.ids import RequestId, check_id
from trellis.gateway.json_bounds import check_bounds
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import Refusal
from trellis.ipc.disconnect_sender import PARAMETER

BOM = b"\xef\xbb\xbf"
NESTED = "parameters"
ID = "id"
LARGE = ("return_context_logits", "return_generation_logits")  # megabytes of JSON


def prepare(model: Model, body: bytes, inner_id: str, limits: Limits, once: bool) -> Prepared:
    """A body as it goes to Triton, written anew.

    Raises Refusal with the field and what to do.

    `inner_id`: what Triton and the engine know the request by; `once`: it is answered with one
    response or not at all, as `/generate` does.
    """
    body = body.removeprefix(BOM)
    check_bounds(body, limits)
    asked = read(body)
    if not model.checked:
        return _unchecked(asked, inner_id, limits)
    values = flat(model, asked)
    check_id(client_id := asked.get(ID, ""), limits.id_characters)
    stops = _stops(values.get(STOP))
    _unnest(model, asked, values)
    rows = check(model, values, b"\\u" in body, prompt=not stops)
    if stops and not client_id:
        raise Refusal(
            400, f'{STOP}: needs the "{ID}" of the request to end; send it at the top level'
        )
    if once and not stops:
        model.responses.check_one(values, rows)
    one = values[STOP] in (True, [True]) if stops else rows == 1 and _one_sequence(values)
    made = _written({**values, PARAMETER: inner_id, ID: inner_id})
    return Prepared(made, RequestId(inner_id, client_id), one, values, stops, len(body))


def _unchecked(asked: dict[str, Any], inner_id: str, limits: Limits) -> Prepared:
    """The body for a model of which nothing is known; who may ask it is trusted."""
    client_id = asked.get(ID, "")
    if not isinstance(client_id, str):
        raise Refusal(400, f"{ID}: not a string; send a string")
    check_id(client_id, limits.id_characters)
    made = _written({**asked, PARAMETER: inner_id, ID: inner_id})
    return Prepared(made, RequestId(inner_id, client_id), False, {}, False, len(made))


def _written(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def stop_body(inner_id: str) -> bytes:
    """The body of a request that ends another."""
    return _written({ID: inner_id, STOP: True})


def read(body: bytes) -> dict[str, Any]:
    """A JSON object, each key once. Raises Refusal for anything else."""
    try:
        asked = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Refusal(
            400, f"the body is not valid UTF-8 at byte {error.start} ({error.reason})"
        ) from error
    except RecursionError as error:
        raise Refusal(400, "the body is nested too deeply") from error
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refusal(400, 'the body is not a JSON object; send {"text_input": "...", ...}')
    return asked


def flat(model: Model, asked: dict[str, Any]) -> dict[str, Any]:
    """The inputs, from the top level and from "parameters"; all keys are known ones."""
    values = {}
    nested = asked.get(NESTED, {})
    if not isinstance(nested, dict):
        raise Refusal(400, f'{NESTED}: not an object; send {{"max_tokens": 16, ...}}')
    for place in (asked, nested):
        for key, value in place.items():
            if place is asked and key == NESTED:
                continue
            if place is asked and key == ID:
                if not isinstance(value, str):
                    raise Refusal(400, f"{ID}: not a string; send a string")
                continue
            if key not in model.fields:
                raise Refusal(400, _unknown(key, model))
            if key in values:
                raise Refusal(400, f"{key}: given at the top level and in {NESTED}; send it once")
            values[key] = value
    return values


def check(model: Model, values: dict[str, Any], escaped: bool, prompt: bool = True) -> int:
    """Types, ranges and numbers of values; how many prompts there are.

    Raises Refusal for the first that is wrong.

    `prompt`: there has to be one.
    """
    rows = {name: model.fields[name].rows(value, escaped) for name, value in values.items()}
    if not prompt:
        return 0
    if PROMPT not in rows:
        raise Refusal(400, f"{PROMPT}: missing; send the prompt")
    for name, count in rows.items():
        if count != rows[PROMPT]:
            raise Refusal(400, _uneven(model.fields[name], count, rows[PROMPT]))
    return rows[PROMPT]


def _unnest(model: Model, asked: dict[str, Any], values: dict[str, Any]) -> bool:
    """Have one list where lists of lists were sent, in both; whether there were any."""
    changed = {}
    for name, value in values.items():
        one = model.fields[name].one_list(value)
        if one is not value:
            changed[name] = one
    for name, one in changed.items():
        values[name] = one
        (asked if name in asked else asked[NESTED])[name] = one
    return bool(changed)


def _one_sequence(values: dict[str, Any]) -> bool:
    several = any(values.get(name, 1) not in (1, [1]) for name in (SEQUENCES, BEAMS))
    return not several and not any(values.get(name) for name in LARGE)


def _stops(value: Any) -> bool:
    """Whether a request ends another: then its id is in use, and it needs no prompt."""
    return value is True or (isinstance(value, list) and True in value)


def _uneven(field: Field, rows: int, prompts: int) -> str:
    if field.open_ended:
        return (
            f"{field.name}: not possible for a list of {prompts} prompts by /generate; send them"
            " one by one, or by gRPC"
        )
    return (
        f"{field.name}: values for {rows}, but {PROMPT} has {prompts}; send a list with a value"
        " for each prompt"
    )


def _unknown(key: str, model: Model) -> str:
    name = key if len(key) <= 64 else key[:61] + "..."
    if key == PARAMETER:
        return f"{PARAMETER}: only the server sets this; leave it out"
    if key == ID:
        return f"{ID}: goes to the top level, not into {NESTED}"
    near = difflib.get_close_matches(key, model.fields, n=1) if len(key) <= 64 else []
    if near:
        return f"{name}: no input of {model.name}; did you mean {near[0]}?"
    return f"{name}: no input of {model.name}; leave it out (it has {', '.join(model.fields)})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Refusal(400, f"{twice}: given twice; send it once")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
