# SPDX-License-Identifier: Apache-2.0
"""GET /v1/models and /v1/models/{id}: the ensembles that are loaded, and their LoRA adapters."""

import json
from typing import Any

from trellis.gateway.models import model_path
from trellis.gateway.openai.endpoint import Endpoint, send_json
from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.served import no_model
from trellis.gateway.refusals import Refusal
from trellis.gateway.relays import INDEX_PATH, opening
from trellis.gateway.sending import Client, Scope
from trellis.gateway.state import State
from trellis.gateway.triton import TritonLost

READY = "READY"
MISSING = "missing_required_parameter"


class ModelList(Endpoint):
    """All of them."""

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        await send_json(client, {"object": "list", "data": await served_models(self.state)})


class OneModel(Endpoint):
    """One of them."""

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises OpenAIError: 404 for one that is not there."""
        name = scope["path_params"]["name"]
        for model in await served_models(self.state):
            if model["id"] == name:
                await send_json(client, model)
                return
        raise no_model(name)


async def served_models(state: State) -> list[dict[str, Any]]:
    """What can be named as `model`. Raises Refusal where Triton cannot be asked."""
    try:
        reply = await state.triton.ask("POST", INDEX_PATH, b"{}", opening(state.settings))
    except TritonLost as error:
        raise error.refusal from error
    ready = {each["name"] for each in json.loads(reply.body) if each.get("state") == READY}
    found = []
    for made in state.models.made().values():
        if made.name in ready:
            about = {"object": "model", "created": made.made_at, "owned_by": "trellis"}
            if context := await _context(state, made.name):  # by the name that vLLM gives it
                about["max_model_len"] = context
            found.append({"id": made.name, **about})
            found += [
                {"id": adapter, **about, "root": made.name, "parent": made.name}
                for adapter in made.lora_adapters
            ]
    return found


async def only_model(state: State) -> str:
    """The model that is meant where none is named. Raises OpenAIError unless one alone makes text.

    Triton is only asked which are loaded where several were made.
    """
    texts = {made.name for made in state.models.made().values() if not made.embeds}
    if len(texts) != 1:
        texts &= {model["id"] for model in await served_models(state)}
    if len(texts) == 1:
        return texts.pop()
    there = f"send one of {', '.join(sorted(texts))}"[:512] if texts else "none is loaded that does"
    raise bad("model", f"needed where not one alone makes text; {there}", MISSING)


async def _context(state: State, name: str) -> int:
    """The most tokens of a prompt and its answer; 0: not known."""
    try:
        return (await state.models.find(model_path(name))).context
    except Refusal:  # it was unloaded just now
        return 0
