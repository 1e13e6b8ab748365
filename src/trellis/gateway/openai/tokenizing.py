# SPDX-License-Identifier: Apache-2.0
"""POST /tokenize and /detokenize: text to ids and back, as the model sees them."""

from typing import Annotated, Any

from pydantic import Field

from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.choices import token_text
from trellis.gateway.openai.completions import Ids
from trellis.gateway.openai.endpoint import Endpoint, send_json
from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import Fields
from trellis.gateway.openai.messages import Messages, chat_prompt, text_ids
from trellis.gateway.openai.models import only_model
from trellis.gateway.openai.parsing import check_tools
from trellis.gateway.openai.served import Served, find_served
from trellis.gateway.openai.tools import Tools, plan_tools
from trellis.gateway.sending import Client, Scope
from trellis.gateway.state import State
from trellis.panics import guarded

OF_PROMPT = ("add_special_tokens",)  # a chat's are those of its template
OF_MESSAGES = ("add_generation_prompt", "continue_final_message", "chat_template_kwargs", "tools")
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class TokenizeRequest(Fields):
    """A text, or the messages of a chat."""

    model: ModelName | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Tools | None = None
    return_token_strs: bool | None = None

    def check_kind(self) -> None:
        """Raise OpenAIError for a field that the kind of text at hand does not have."""
        if (self.prompt is None) == (self.messages is None):
            raise bad("prompt", "send either prompt or messages")
        other, names = ("messages", OF_MESSAGES) if self.messages is None else ("prompt", OF_PROMPT)
        for name in names:
            if getattr(self, name):  # false, {} and [] are what happens anyway
                what = f"only means something with {other}; leave it out"
                raise bad(name, what, "unsupported_parameter")


class DetokenizeRequest(Fields):
    """Ids."""

    model: ModelName | None = None
    tokens: Ids
    skip_special_tokens: bool | None = None


async def _served(state: State, name: str | None, scope: Scope) -> Served:
    """The model that is named, or the only one. Raises OpenAIError."""
    return await find_served(state, name or await only_model(state), record_of(scope))


class Tokenize(Endpoint):
    """Text to ids."""

    name = "/tokenize"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(TokenizeRequest, body)
        asked.check_kind()
        served = await _served(self.state, asked.model, scope)
        if asked.messages is not None:
            tools = plan_tools(asked.tools, None, None)
            check_tools(served, tools)
            continued = bool(asked.continue_final_message)
            begins = asked.add_generation_prompt
            _, ids = await chat_prompt(
                self.state,
                served,
                asked.messages,
                not continued if begins is None else begins,
                continued,
                asked.chat_template_kwargs,
                tools=tools.shown,
            )
        else:
            bare = asked.add_special_tokens is False
            ids = await text_ids(self.state, served, asked.prompt or "", bare, "prompt")
        made: dict[str, Any] = {"count": len(ids), "tokens": ids}
        if served.route.bounds.max_seq_len:
            made["max_model_len"] = served.route.bounds.max_seq_len
        if asked.return_token_strs:
            made["token_strs"] = [token_text(served.tokenizer, token)[0] for token in ids]
        await send_json(client, made)


class Detokenize(Endpoint):
    """Ids to text, special tokens with it unless they are to be left out."""

    name = "/detokenize"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(DetokenizeRequest, body)
        served = await _served(self.state, asked.model, scope)
        most = served.tokenizer.vocab_size - 1
        if asked.tokens and max(asked.tokens) > most:
            raise bad("tokens", f"{max(asked.tokens)} is not in the vocabulary; send 0 to {most}")
        skip = bool(asked.skip_special_tokens)
        await send_json(client, {"prompt": guarded(served.tokenizer.decode, asked.tokens, skip)})
