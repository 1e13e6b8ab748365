# SPDX-License-Identifier: Apache-2.0
"""The JSON body of `/generate` and `/generate_stream`: checked, and given what the server needs.

What Triton does with a body that it does not understand is no help: status 500 without the name of
the field, or nothing at all for a key that is mistyped.
"""

import difflib
import json
from collections.abc import Collection
from typing import Any

from trellis.contract.accepted_fields import ACCEPTED_FIELDS, OTHER_NAMES
from trellis.contract.client_inputs import BEAMS, PROMPT, SEQUENCES, STOP
from trellis.gateway.fields import Field
from trellis.gateway.ids import RequestId, check_id
from trellis.gateway.json_bounds import check_bounds
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model
from trellis.gateway.prepared import Prepared, tokens_asked
from trellis.gateway.refusals import SHOWN, Refusal, shown
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
        return _unchecked(asked, inner_id)
    values = flat(model, asked)
    client_id = asked.get(ID, "")
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
    tokens = 0 if stops else tokens_asked(values, len(body))
    return Prepared(made, RequestId(inner_id, client_id), one, values, stops, len(body), tokens)


def _unchecked(asked: dict[str, Any], inner_id: str) -> Prepared:
    """The body for a model of which nothing is known; who may ask it is trusted.

    Without the parameter that says who asks: an engine that sees it leaves out what the gateway
    does not need, and an inner model is asked for all that it gives.
    """
    check_id(client_id := asked.get(ID, ""))
    inputs = {name: value for name, value in asked.items() if name != PARAMETER}
    made = _written({**inputs, ID: inner_id})
    size = len(made)
    tokens = tokens_asked({}, size)
    return Prepared(made, RequestId(inner_id, client_id), False, {}, False, size, tokens)


def _written(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def stop_body(inner_id: str) -> bytes:
    """The body of a request that ends another."""
    return _written({ID: inner_id, STOP: True})


def read(body: bytes) -> dict[str, Any]:
    """A JSON object, each key once. Raises Refusal for anything else."""
    if not body.strip():
        raise Refusal(400, 'the body is empty; send {"text_input": "...", ...}')
    try:
        asked = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Refusal(
            400, f"the body is not valid UTF-8 at byte {error.start} ({error.reason})"
        ) from error
    except RecursionError as error:
        raise Refusal(400, "the body is nested too deeply") from error
    except ValueError as error:
        # Python's own limit of digits says how to raise it, which is no client's business.
        why = "a number has too many digits" if "digits" in str(error) else str(error)
        raise Refusal(400, f"the body is not JSON: {why}") from error
    if not isinstance(asked, dict):
        raise Refusal(400, 'the body is not a JSON object; send {"text_input": "...", ...}')
    return asked


def flat(model: Model, asked: dict[str, Any]) -> dict[str, Any]:
    """The inputs, from the top level and from "parameters"; all keys are known ones.

    Where fields were sent that no ensemble has, but that are accepted, `asked` is settled: all
    inputs stand at its top level, and nothing else but the id. Raises Refusal for other fields.
    """
    values: dict[str, Any] = {}
    nested = asked.get(NESTED, {})
    if not isinstance(nested, dict):
        raise Refusal(400, f'{NESTED}: not an object; send {{"max_tokens": 16, ...}}')
    added: dict[str, Any] = {}
    for place in (asked, nested):
        for key, value in place.items():
            if place is asked and key == NESTED:
                continue
            if place is asked and key == ID:
                check_id(value)
            elif key in model.fields:
                if key in values:
                    raise Refusal(
                        400, f"{key}: given at the top level and in {NESTED}; send it once"
                    )
                values[key] = value
            elif key in ACCEPTED_FIELDS:
                added[key] = value
            else:
                raise Refusal(400, unknown(key, model))
    if added:
        _settle(model, asked, values, added)
    return values


def _settle(
    model: Model, asked: dict[str, Any], values: dict[str, Any], added: dict[str, Any]
) -> None:
    """Map what was added to the inputs that it stands for, and forget the rest of it."""
    for key, value in added.items():
        to = ACCEPTED_FIELDS[key].to
        if to and to not in model.fields:
            raise Refusal(400, unknown(key, model))
        if to and value is not None:
            if to in values:
                raise Refusal(400, f"{key}: means {to}, which is given, too; send one of them")
            model.fields[to].rows(value, escaped=True)  # names what the client knows it by
            values[to] = value
    kept = {ID: asked[ID]} if ID in asked else {}
    asked.clear()
    asked.update(kept | values)


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


def unknown(key: str, model: Model) -> str:
    """Why a field that no input is called is rejected."""
    name = shown(key)
    if key == PARAMETER:
        return f"{PARAMETER}: only the server sets this; leave it out"
    if key == ID:
        return f"{ID}: goes to the top level, not into {NESTED}"
    near = _meant(key, model.fields) if len(key) <= SHOWN else ""
    if near:
        return f"{name}: no input of {shown(model.name)}; did you mean {near}?"
    inputs = ", ".join(model.fields)
    return f"{name}: no input of {shown(model.name)}; leave it out (it has {inputs})"


def _meant(key: str, fields: Collection[str]) -> str:
    """The input that a name may stand for; '' for none.

    >>> _meant("maxTokens", ["max_tokens", "stream"]), _meant("x-y", ["max_tokens"])
    ('max_tokens', '')
    """
    plain = {_plain(name): name for name in fields}
    others = {_plain(name): to for name, to in OTHER_NAMES.items() if to in fields}
    asked = _plain(key)
    near = difflib.get_close_matches(key, fields, n=1) or difflib.get_close_matches(
        asked, plain, n=1
    )
    found = plain.get(asked) or others.get(asked)
    return found or (plain.get(near[0], near[0]) if near else "")


def _plain(name: str) -> str:
    """Without what spellings differ in: case, hyphens, underscores, blanks, dots."""
    return "".join(character for character in name.lower() if character.isalnum())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Refusal(400, f"{shown(twice)}: given twice; send it once")
    return made


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
