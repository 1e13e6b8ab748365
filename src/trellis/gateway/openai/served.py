# SPDX-License-Identifier: Apache-2.0
"""The model that a request names: an ensemble, or a LoRA adapter of one."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.gateway.engine_requests import EngineRequests
from trellis.gateway.metrics.record import Record
from trellis.gateway.models import Model, check_inner, model_path
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.refusals import Refusal, shown
from trellis.gateway.routes import Route
from trellis.gateway.state import State
from trellis.gateway.text_answers import Source

if TYPE_CHECKING:
    from trellis.parsers import Format
    from trellis.pipeline.encode import Preprocessor
    from trellis.tokenizers import Tokenizer

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of an ensemble: it becomes a part of a path
DEFAULT_TOKENS = 4096  # where nothing says what the engine holds


@dataclass(frozen=True)
class Served:
    """A model that can be asked."""

    name: str  # as the client knows it
    model: Model
    route: Route
    engine: Source
    requests: EngineRequests
    adapter: str = ""  # the LoRA adapter

    @property
    def preprocessor(self) -> "Preprocessor":
        """What `preprocessing` does."""
        return self.requests.preprocessor

    @property
    def tokenizer(self) -> "Tokenizer":
        """The model's."""
        return self.preprocessor.tokenizer

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may encode at once."""
        return self.preprocessor.thread_safe

    def template_knows(self, name: str) -> bool:
        """Whether the chat template knows a role, `developer`, or a variable, `tools`."""
        chat = self.tokenizer.chat
        return chat is not None and chat.speaks_of(name)

    def format(self, calls: bool) -> "Format | None":
        """What its answers are read by; `calls`: whether tools may be called."""
        formats = self.route.formats
        return formats.all if calls else formats.reasoning

    async def follows_tags(self, state: State) -> bool:
        """Whether its engine can hold an answer to a structural tag: no release of the C++ backend.

        They read one in different ways.
        """
        if GUIDE_TYPE not in self.model.fields or self.is_cpp:
            return False
        channel = await state.steps.find(self.engine.model)
        return channel is not None and not channel.no_guides

    @property
    def is_cpp(self) -> bool:
        """Whether TensorRT-LLM's C++ backend is behind."""
        return self.preprocessor.engine_inputs is not None

    def room(self, prompt: int, sequences: int = 1, allowed: int = 0) -> int:
        """How many tokens may follow a prompt of so many; at least 1, which is rejected then.

        `allowed`: that the prompt and each of the `sequences` may take together; 0: no limit.
        """
        bounds = self.route.bounds
        left = [bound - prompt for bound in (bounds.max_seq_len, bounds.kv_cache_tokens) if bound]
        most = [bounds.max_tokens_limit] if bounds.max_tokens_limit else []
        room = min([*left, *most], default=DEFAULT_TOKENS)
        if allowed:
            room = min(room, (allowed - prompt) // sequences)
        return max(room, 1)


async def find_served(state: State, name: str, record: Record) -> Served:
    """The model of that name, which `record` is then of. Raises OpenAIError: 404 if none is."""
    ensemble, adapter = name, ""
    made = state.models.made()
    if name not in made:
        owner = next((each.name for each in made.values() if name in each.lora_adapters), None)
        if owner is not None:
            ensemble, adapter = owner, name
    if ensemble in made and made[ensemble].embeds:
        raise OpenAIError(
            400,
            f"model: {shown(name)} makes embeddings, and no text; ask /v1/embeddings, or another"
            " model",
            param="model",
            code="unsupported_model",
        )
    if not NAME.fullmatch(ensemble):
        raise no_model(name)
    try:
        model = await state.models.find(model_path(ensemble))
        check_inner(model)
    except Refusal as refusal:
        if refusal.status == 404:
            raise no_model(name) from None
        raise
    record.model, record.adapter = model.name, adapter
    route = model.route
    if route is None or route.engine is None or route.requests is None:
        raise OpenAIError(
            501,
            f"model: {shown(name)} is not served by this release's own plugins, which the OpenAI"
            " API needs; its log says why. Ask /v2/models, or make it anew (HOOKS= is for changes)",
            param="model",
        )
    return Served(name, model, route, route.engine, route.requests, adapter)


def no_model(name: Any) -> OpenAIError:
    """A model that is not there."""
    return OpenAIError(
        404,
        f"model: {shown(str(name))} is not served; GET /v1/models lists what is",
        param="model",
        code="model_not_found",
    )
