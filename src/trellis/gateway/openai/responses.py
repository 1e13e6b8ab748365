# SPDX-License-Identifier: Apache-2.0
"""POST /v1/responses, whole and as events. Nothing is kept from one request to the next."""

from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.asking import read_inputs
from trellis.gateway.openai.endpoint import Endpoint, request_id
from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import Prompt
from trellis.gateway.openai.messages import chat_prompt, effort_arguments
from trellis.gateway.openai.parsing import check_tools, plan_answer
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.response_input import read_items
from trellis.gateway.openai.response_writer import ResponseWriter
from trellis.gateway.openai.served import find_served
from trellis.gateway.sending import Client, Scope


class Responses(Endpoint):
    """The endpoint."""

    name = "/v1/responses"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(ResponsesRequest, body)
        log_probs, streams = asked.log_probs, asked.streams
        constraint, tools = asked.constraint, asked.plan
        record = record_of(scope)
        served = await find_served(self.state, asked.model, record)
        check_tools(served, tools)
        messages, places = read_items(asked.instructions, asked.input)
        effort = asked.reasoning.effort if asked.reasoning else None
        with record.timed("encode"):
            text, ids = await chat_prompt(
                self.state,
                served,
                messages,
                arguments=effort_arguments(served, effort, "reasoning.effort"),
                param="input",
                places=places,
                tools=tools.shown,
            )
        most = asked.max_output_tokens or served.room(len(ids), allowed=client.allowance.most)
        inputs = read_inputs(served, asked, most, log_probs, streams)
        with record.timed("constrain" if constraint or tools.use else "plan"):
            parsing, held = await plan_answer(self.state, served, asked, tools, constraint, text)
        if log_probs.answer and parsing.format is not None:
            what = (
                "not told where calls and reasoning are told from text; leave it out, or ask a chat"
            )
            raise bad("include", what, "unsupported_parameter")
        if held is not None:
            inputs.hold_to(served, held)
        generation = Generation(self.state, served, record)
        await generation.prepare([Prompt(ids, text)], 1, inputs, log_probs, streams, parsing)
        made_id = request_id(scope)
        writer = ResponseWriter(made_id, asked)
        await generation.run(client, writer, streams)
